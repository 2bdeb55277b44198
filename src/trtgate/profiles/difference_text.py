"""What changed between two profiles, in words: one sentence, or a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ..common.text_columns import Line, TextTable, first_few, number_of
from .differences import (
    FELL_BACK,
    MATCHED,
    REGROUPED,
    SLOWER,
    SYNCHRONIZING,
    TAKEN_UP,
    Cause,
    Explained,
    LayerGroupChange,
    Moved,
    ProfileDifference,
)
from .layer_names import modules, phrase, shown

NONE_SLOWER = "same layers, none is slower beyond noise"
THESE_SLOWER = "same layers, these got slower"
NAMED = 2
"""Changes that a sentence names."""
OPERATORS = 5
"""Operators that a line names."""
MOST_OF_IT = 0.9
"""Share of the total change that the counted layers explain at least."""


class LayerChange(msgspec.Struct, frozen=True, kw_only=True):
    """What changed in a layer, or a group of layers, to be shown: microseconds after less before."""

    what: str
    """Its name, and what became of it."""
    modules: str
    """PyTorch's, cut short; empty where none is known."""
    cause: str
    """Why, as in `differences.CAUSES`; empty for what is faster, or within the noise."""
    us: float
    low_us: float | None = None
    """The 95 % interval; None where too few blocks were kept."""
    high_us: float | None = None


def sentence(difference: ProfileDifference) -> str:
    """Return one line: the change of all layers, its causes, the largest changes, and how few layers explain it."""
    notable = [change for change in difference.changes if _is_notable(change)]
    largest = [f"{_subject(change)} {_with_interval(change.explained)}" for change in notable[:NAMED]]
    pieces = [_causes(difference), ", ".join(largest), _engines(difference), _concentration(difference)]
    total = _number(difference.total.us)
    said = "; ".join(piece for piece in pieces if piece)
    return f"{shown(difference.case_id)}: {total} µs in layers, each timed by itself: {said}"


def lines(difference: ProfileDifference, top: int = 10) -> list[Line]:
    """Return the sentence, a table of the `top` largest changes, and what can't be seen; safe for a terminal."""
    listed = [change for change in difference.changes[:top] if change.explained.us or _is_notable(change)]
    return [
        sentence(difference),
        *_table(listed),
        *_rest(difference.changes[len(listed) :]),
        *_sides(difference),
        *_unseen(difference.of_kind(MATCHED)),
        *(f"  {shown(problem)}" for problem in difference.problems),
    ]


def layer_changes(difference: ProfileDifference, top: int) -> list[LayerChange]:
    """Return the `top` largest changes that have a cause or are beyond noise, largest first."""
    return [
        LayerChange(
            what=_what(change),
            modules=modules([*change.before, *change.after]),
            cause=change.cause,
            us=change.explained.us,
            low_us=change.explained.low_us,
            high_us=change.explained.high_us,
        )
        for change in [change for change in difference.changes if _is_notable(change)][:top]
    ]


def _is_notable(change: LayerGroupChange) -> bool:
    return bool(change.cause) or change.is_beyond_noise


def _causes(difference: ProfileDifference) -> str:
    causes = [cause.cause for cause in difference.causes]
    if not causes:
        return NONE_SLOWER
    said = [_cause(difference, cause) for cause in difference.causes]
    if causes == [SLOWER]:
        said[0] = said[0].replace(SLOWER, THESE_SLOWER)
    return ", ".join(said)


def _cause(difference: ProfileDifference, cause: Cause) -> str:
    if cause.cause == FELL_BACK:
        return f"{FELL_BACK} ({_operators(difference.fell_back)})"
    if cause.cause == TAKEN_UP:
        return f"{TAKEN_UP} ({_operators(difference.taken_up)})"
    if cause.cause == SLOWER:
        unseen = sum(change.tactic_unseen for change in difference.changes if change.cause == SLOWER)
        of_some = f" of {unseen} of {cause.changes}" if unseen < cause.changes else ""
        return SLOWER + f" (TensorRT names no tactic{of_some}: it may be another one)" * bool(unseen)
    return cause.cause


def _operators(moved: Sequence[Moved]) -> str:
    count: dict[str, int] = {}
    for entry in moved:
        count[entry.operator] = count.get(entry.operator, 0) + entry.count
    return first_few([f"{n} {shown(operator)}" for operator, n in count.items()], OPERATORS)


def _engines(difference: ProfileDifference) -> str:
    before, after = difference.engines_before, difference.engines_after
    if before != after:
        return f"engines {before} → {after}"
    replaced = len(difference.engines_added)
    return f"{replaced} of {number_of(after, 'engine')} replaced" if replaced else ""


def _concentration(difference: ProfileDifference) -> str:
    """Say how few layers explain most of the total; nothing when that is within the noise."""
    share, layers = 0.0, 0
    for change in difference.changes:
        if change.share is not None and change.share > 0 and share < MOST_OF_IT:
            share += change.share
            layers += change.layers
    return f"{share * 100:.0f} % explained by {number_of(layers, 'layer')}" if layers else ""


def _table(changes: Sequence[LayerGroupChange]) -> list[TextTable]:
    if not changes:
        return []
    head = ("µs", "95 % interval", "share", "layer", "modules")
    return [TextTable([head, *(_row(change) for change in changes)], left=(3, 4), indent=2)]


def _row(change: LayerGroupChange) -> tuple[str, ...]:
    share = "" if change.share is None else f"{change.share * 100:.0f} %"
    origin = modules([*change.before, *change.after])
    return _number(change.explained.us), _interval(change.explained), share, _what(change), origin


def _what(change: LayerGroupChange) -> str:
    """Return what a row of the table is about."""
    if change.kind == SYNCHRONIZING:
        return change.kind
    if change.kind == MATCHED:
        marks = ["other precision"] * change.other_precision + ["other tactic"] * change.other_tactic
        return phrase(change.after) + f" ({', '.join(marks)})" * bool(marks)
    name = " → ".join(phrase(side) for side in (change.before, change.after) if side)
    return name if change.kind == REGROUPED else f"{change.kind}: {name}"


def _subject(change: LayerGroupChange) -> str:
    """Return the modules of a change, or where they are unknown its layers."""
    return modules([*change.before, *change.after]) or _what(change)


def _rest(changes: Sequence[LayerGroupChange]) -> Iterator[str]:
    us = sum(change.explained.us for change in changes)
    if us:
        yield f"  and {len(changes)} more, {_number(us)} µs together"


def _sides(difference: ProfileDifference) -> Iterator[str]:
    for what, moved in ((FELL_BACK, difference.fell_back), (TAKEN_UP, difference.taken_up)):
        if moved:
            yield f"  {what}: {first_few([_operator(entry) for entry in moved], OPERATORS)}"


def _operator(entry: Moved) -> str:
    return f"{entry.count} {shown(entry.operator)}" + f" of {shown(entry.module)}" * bool(entry.module)


def _unseen(matched: Sequence[LayerGroupChange]) -> Iterator[str]:
    """Say where a tactic may have changed unseen, when that could explain a change."""
    unseen = [change for change in matched if change.tactic_unseen]
    if any(change.is_beyond_noise for change in unseen):
        yield f"  TensorRT names no tactic of {len(unseen)} of {len(matched)} layers: another one can't be seen there"


def _with_interval(explained: Explained) -> str:
    interval = _interval(explained)
    return f"{_number(explained.us)} µs" + f" ({interval})" * bool(interval)


def _interval(explained: Explained) -> str:
    if explained.low_us is None or explained.high_us is None:
        return ""
    low, high = (_number(end, like=explained.us) for end in (explained.low_us, explained.high_us))
    return f"{low} to {high}"


def _number(us: float, like: float | None = None) -> str:
    """Return microseconds with a sign, and a second decimal where `like`, or they themselves, are small."""
    return f"{us:+,.{1 if abs(us if like is None else like) >= 1 else 2}f}"
