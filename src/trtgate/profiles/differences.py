"""Where the time between two profiles went: every layer's change with its interval, largest first, and its cause.

Pure. Layers are matched by `matching` without looking at times; here are the times. All are means over a layer's blocks
(`Layer.blocks_us`, in microseconds), or its median where no blocks were kept.

A profile is of one launch. Its blocks show the noise within that launch; from launch to launch, where memory lies
elsewhere, a layer differs more: as much as is usual (`welch`) is in the intervals. A card's clock shifts all at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from ..records.profile_record import PYTORCH, TENSORRT, Layer, Profile
from ..verdict import adjusted
from .layer_names import synchronizes
from .layer_row import LayerRow
from .layer_structure import has_other_precision, has_other_tactic, is_tactic_unseen
from .matching import Computed, Match, match
from .welch_intervals import Estimates, estimates

ALPHA = 0.05
"""Chance that any matched layer is called changed although none is, as far as noise within a launch goes."""

MATCHED, REGROUPED, ADDED, REMOVED = "matched", "re-fused", "added", "removed"
FELL_BACK, TAKEN_UP = "fell back to PyTorch", "taken up by TensorRT"
SYNCHRONIZING = "signals and waits"

FUSIONS, TACTICS, PRECISION = "fusions changed", "tactics changed", "precision changed"
LAYERS = "layers added or removed"
SLOWER = "unchanged layers got slower"
CAUSES = (FELL_BACK, TAKEN_UP, FUSIONS, LAYERS, PRECISION, TACTICS, SLOWER)
_CAUSE_OF = {FELL_BACK: FELL_BACK, TAKEN_UP: TAKEN_UP, REGROUPED: FUSIONS, ADDED: LAYERS, REMOVED: LAYERS}


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds after less before, with their 95 % interval; its ends are None where too few blocks were kept."""

    us: float
    low_us: float | None
    high_us: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether it is known to be a change: its interval excludes 0."""
        return self.low_us is not None and self.high_us is not None and not self.low_us <= 0 <= self.high_us


class LayerGroupChange(msgspec.Struct, frozen=True, kw_only=True):
    """A layer, or a group of layers, before and after, and how much of the total change it explains."""

    kind: str
    """MATCHED, REGROUPED, ADDED, REMOVED, FELL_BACK, TAKEN_UP or SYNCHRONIZING."""
    before: list[Layer]
    """In the order of execution; empty for what was added."""
    after: list[Layer]
    explained: Explained
    share: float | None
    """Of the total change; None where that is within the noise."""
    is_beyond_noise: bool
    """Matched layers: adjusted for their number, at 5 %; others: their interval excludes 0."""
    other_tactic: bool = False
    """Seen to differ; see `tactic_unseen`."""
    other_precision: bool = False
    tactic_unseen: bool = False
    """A matched layer of an engine without a name for its tactic: whether it is another one can't be seen."""

    @property
    def cause(self) -> str:
        """One of CAUSES; empty for a layer that is the same and not slower beyond noise."""
        if self.kind in _CAUSE_OF:
            return _CAUSE_OF[self.kind]
        if self.other_precision:
            return PRECISION
        if self.other_tactic:
            return TACTICS
        return SLOWER if self.kind == MATCHED and self.is_beyond_noise and self.explained.us > 0 else ""

    @property
    def layers(self) -> int:
        """How many layers it is about."""
        return max(len(self.before), len(self.after))


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One of CAUSES, and what all its changes explain together."""

    cause: str
    changes: int
    us: float


class Moved(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Operators of one module that another kind of part computes now."""

    operator: str
    module: str
    count: int


class ProfileDifference(msgspec.Struct, frozen=True, kw_only=True):
    """What changed between two profiles."""

    case_id: str
    """Of the later profile."""
    before_us: float
    """Sum of all layers."""
    after_us: float
    total: Explained
    causes: list[Cause]
    """Those that explain most first; empty when all layers are the same and none is slower beyond noise."""
    changes: list[LayerGroupChange]
    """All layers, by absolute microseconds explained; equal ones in the order of execution."""
    fell_back: list[Moved]
    taken_up: list[Moved]
    engines_before: int
    engines_after: int
    engines_added: list[str]
    engines_removed: list[str]
    problems: list[str]
    """Parts that could not be profiled, whose layers may be missing."""

    def of_kind(self, kind: str) -> list[LayerGroupChange]:
        """Return the changes of one kind, such as ADDED, by absolute microseconds explained."""
        return [change for change in self.changes if change.kind == kind]


class _Item(NamedTuple):
    """A change before its times are known."""

    kind: str
    before: list[Layer]
    after: list[Layer]
    is_tensorrt: bool = False
    """A matched layer of an engine."""


def compare(before: Profile, after: Profile) -> ProfileDifference:
    """Return what changed between two profiles of one case, in which layers, and how much each explains.

    The interval of a matched layer is Welch's t interval of the difference of two means; that of several layers, and
    of the total, adds their means and the variances of these (see `welch.estimates`). A layer is called changed where
    p, adjusted for all matched layers by Holm's procedure, is 5 % at most.
    """
    found = match(before, after)
    items = [*_items(found), *_synchronizing(before, after)]
    each, total = estimates([(item.before, item.after) for item in items])
    changes = _changes(items, each, _explained(total, 0))
    return ProfileDifference(
        case_id=after.case_id,
        before_us=float(total.before[0]),
        after_us=float(total.after[0]),
        total=_explained(total, 0),
        causes=_causes(changes, found),
        changes=changes,
        fell_back=_moved(found.fell_back),
        taken_up=_moved(found.taken_up),
        engines_before=_engines(before),
        engines_after=_engines(after),
        engines_added=found.engines_added,
        engines_removed=found.engines_removed,
        problems=[*_problems("before", before), *_problems("after", after)],
    )


def _items(found: Match) -> Iterator[_Item]:
    """Yield every layer that was matched, fused anew, added or removed, in the order of execution of each of these."""
    old, new = found.before, found.after
    for i, j in found.pairs:
        yield _Item(MATCHED, [old[i].layer], [new[j].layer], new[j].kind == TENSORRT)
    for kind, before, after in (
        *((REGROUPED, [old[i] for i in group.before], [new[j] for j in group.after]) for group in found.groups),
        *((ADDED, [], [new[j]]) for j in found.added),
        *((REMOVED, [old[i]], []) for i in found.removed),
    ):
        yield _Item(_kind(kind, before, after, found), [row.layer for row in before], [row.layer for row in after])


def _kind(kind: str, before: list[LayerRow], after: list[LayerRow], found: Match) -> str:
    """Return `kind`, unless operators of these layers changed sides."""
    if any(row.kind == PYTORCH and row.operators & found.falling for row in after):
        return FELL_BACK
    if any(row.kind == PYTORCH and row.operators & found.rising for row in before):
        return TAKEN_UP
    return kind


def _synchronizing(before: Profile, after: Profile) -> Iterator[_Item]:
    """Yield one item of the signals and waits that take time, should there be any."""
    old, new = (
        [layer for _, layer in profile.layers() if synchronizes(layer) and any((layer.median_us, *layer.blocks_us))]
        for profile in (before, after)
    )
    if old or new:
        yield _Item(SYNCHRONIZING, old, new)


def _explained(of: Estimates, index: int) -> Explained:
    low, high = float(of.low[index]), float(of.high[index])
    known = not np.isnan(low)
    return Explained(us=float(of.change[index]), low_us=low if known else None, high_us=high if known else None)


def _changes(items: Sequence[_Item], each: Estimates, total: Explained) -> list[LayerGroupChange]:
    """Return the changes by absolute microseconds explained; equal ones stay in order."""
    family = [index for index, item in enumerate(items) if item.kind == MATCHED and not np.isnan(each.p[index])]
    chance = dict(zip(family, adjusted(each.p[family].tolist()), strict=True))
    found = []
    for index in map(int, np.argsort(-np.abs(each.change), kind="stable")):
        item, explained = items[index], _explained(each, index)
        beyond = chance.get(index, 1.0) <= ALPHA if item.kind == MATCHED else explained.excludes_zero
        share = explained.us / total.us if _is_told(total) else None
        found.append(_change(item, explained, share, beyond))
    return found


def _change(item: _Item, explained: Explained, share: float | None, is_beyond_noise: bool) -> LayerGroupChange:
    pair = (item.before[0], item.after[0]) if item.kind == MATCHED else None
    tactic = pair is not None and has_other_tactic(*pair)
    return LayerGroupChange(
        kind=item.kind,
        before=item.before,
        after=item.after,
        explained=explained,
        share=share,
        is_beyond_noise=is_beyond_noise,
        other_tactic=tactic,
        other_precision=pair is not None and has_other_precision(*pair),
        tactic_unseen=item.is_tensorrt and not tactic and pair is not None and is_tactic_unseen(*pair),
    )


def _is_told(total: Explained) -> bool:
    """Whether there is a total change to have a share of."""
    return bool(total.us) and (total.low_us is None or total.excludes_zero)


def _causes(changes: Iterable[LayerGroupChange], found: Match) -> list[Cause]:
    number = dict.fromkeys(CAUSES, 0)
    us = dict.fromkeys(CAUSES, 0.0)
    for change in changes:
        if change.cause:
            number[change.cause] += 1
            us[change.cause] += change.explained.us
    seen = {FELL_BACK: bool(found.fell_back), TAKEN_UP: bool(found.taken_up)}
    causes = [Cause(cause=c, changes=number[c], us=us[c]) for c in CAUSES if number[c] or seen.get(c)]
    return sorted(causes, key=lambda cause: -abs(cause.us))


def _moved(computed: Computed) -> list[Moved]:
    return sorted(Moved(operator=op, module=module, count=n) for (op, module), n in computed.items())


def _engines(profile: Profile) -> int:
    return sum(part.kind == TENSORRT for part in profile.parts)


def _problems(which: str, profile: Profile) -> list[str]:
    return [f"{which}: {part.name}: {part.problem}" for part in profile.parts if part.problem]
