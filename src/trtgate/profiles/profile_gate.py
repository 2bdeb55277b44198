"""A profile against the one that is stored for the same case: what changed in its layers, as something to show.

Times are not judged here: they are one launch's. A changed layer is a notice, or under `--trtgate-strict-layers` a
failure; what is slower is the latency gate's to say, and `where` then says in which layers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from ..common.explanations import Explanation, explained
from ..common.text_columns import first_few
from ..records.profile_record import Profile
from . import profile_checks, profile_files, profile_summary
from .difference_text import LayerChange, layer_changes, sentence
from .differences import compare
from .layer_structure import Structure, structural
from .profile_summary import LayerTime

RECORD_COMMAND = "pytest benchmarks -m trtgate_profile --trtgate-update-baselines"
SHOWN = 3
TOP = 30
"""Layers, modules and changes that a result carries; a profile has all."""
WHAT = {
    "engines_added": "engines added", "engines_removed": "engines removed", "fell_back": "fell back to PyTorch",
    "taken_up": "now in TensorRT", "fusions": "fused anew", "added": "layers added", "removed": "layers removed",
    "precisions": "other precision", "tactics": "other tactic",
}  # fmt: skip
"""Field of a Structure → how it is called; the weightiest first."""


class LayersVerdict(enum.StrEnum):
    """What became of a case's layers."""

    NEW = "new"
    UNCHANGED = "unchanged"
    CHANGED = "changed"


class ProfileResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a profile test found."""

    case_id: str
    verdict: LayersVerdict
    device_us: float | None
    sum_us: float
    layers: int
    engines: int
    attributed: float
    changes: dict[str, list[str]] = {}
    """Field of a Structure → its entries, of those that are not empty."""
    folder: str = ""
    stored: bool = False
    longest: list[LayerTime] = []
    modules: dict[str, float] = {}
    """PyTorch module → microseconds of its layers; those that take longest."""
    slower: list[LayerChange] = []
    """The largest changes of time since the stored profile."""

    @property
    def sentence(self) -> str:
        """Say in a line what changed."""
        if self.verdict is LayersVerdict.NEW:
            said = f"{self.case_id}: no profile of it is stored for this accelerator"
            return explained(said, Explanation.NEW_CASE)
        changes = [f"{WHAT[name]}: {first_few(entries, SHOWN)}" for name, entries in self.changes.items()]
        if not changes:
            return f"{self.case_id}: the same layers"
        return explained(f"{self.case_id}: its layers changed: {'; '.join(changes)}", Explanation.LAYERS_CHANGED)


def judge(profile: Profile, root: Path, key: str) -> ProfileResult:
    """Compare with the stored profile of the same case. Raises TrtgateError for a broken one."""
    stored = profile_files.read_baseline(root, key, profile.case_id)
    verdict, changes, slower = LayersVerdict.NEW, {}, []
    if stored is not None:
        slower = layer_changes(compare(stored, profile), TOP)
        changes = _changes(structural(stored, profile))
        verdict = LayersVerdict.CHANGED if changes else LayersVerdict.UNCHANGED
    return ProfileResult(
        case_id=profile.case_id,
        verdict=verdict,
        device_us=profile.device_us,
        sum_us=profile.sum_us,
        layers=sum(1 for _ in profile.layers()),
        engines=sum(part.engine_bytes > 0 for part in profile.parts),
        attributed=profile.attributed,
        changes=changes,
        longest=profile_summary.longest(profile, TOP),
        modules=dict(list(profile_summary.module_times(profile).items())[:TOP]),
        slower=slower,
    )


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """In which layers a case that got slower lost its time."""

    sentence: str = ""
    """It in one sentence, or why it can't be said."""
    changes: list[LayerChange] = []


def where(before: Profile, after: Profile) -> Where:
    """Say in which layers a case that got slower lost its time."""
    difference = compare(before, after)
    return Where(sentence=f"where: {sentence(difference)}", changes=layer_changes(difference, TOP))


def complaint(profile: Profile) -> str:
    """Return what makes a profile unbelievable, as one line; empty when nothing does."""
    found = profile_checks.problems(profile)
    said = f"profile of {profile.case_id}: {'; '.join(found)}"
    return explained(said, Explanation.PROFILE_UNBELIEVABLE) if found else ""


def rows(results: Iterable[ProfileResult]) -> list[Sequence[str]]:
    """Return the table of a run, its head first."""
    head = ("case", "latency", "sum of layers", "engines", "layers", "attributed", "layers are")
    return [head, *(_row(result) for result in results)]


def _row(result: ProfileResult) -> Sequence[str]:
    device = "" if result.device_us is None else f"{result.device_us:.1f} µs"
    return (
        result.case_id, device, f"{result.sum_us:.1f} µs", str(result.engines), str(result.layers),
        f"{result.attributed:.0%}", str(result.verdict),
    )  # fmt: skip


def _changes(found: Structure) -> dict[str, list[str]]:
    return {name: entries for name in WHAT if (entries := list(getattr(found, name)))}
