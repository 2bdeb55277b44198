"""What changed between two profiles, in words: one sentence, or a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from ..report.columns import aligned, first_few
from ..report.sentences import percent
from .differences import (
    ADDED,
    MATCHED,
    REFUSED,
    REMOVED,
    SLOWER,
    SYNCHRONIZING,
    TACTICS,
    Change,
    Difference,
    Explained,
)
from .layer_names import modules, phrase, shown

NONE_SLOWER = "same layers, none is slower beyond noise"
SAME_LAYERS = "same layers, these got slower"
NAMED = 2
"""Changes that a sentence names."""
MOST_OF_IT = 0.9
"""Share of the total change that the counted layers explain at least."""


def sentence(difference: Difference) -> str:
    """Return one line: the change of all layers, its causes, the largest changes, and how few layers explain it."""
    notable = [change for change in difference.changes if _is_notable(change)]
    largest = [f"{_subject(change)} {_us(change.explained)}" for change in notable[:NAMED]]
    pieces = [_causes(difference), ", ".join(largest), *_engines(difference), _concentration(difference)]
    told = "; ".join(piece for piece in pieces if piece)
    return f"{shown(difference.case_id)}: {difference.total.us:{_digits(difference.total.us)}} µs in layers: {told}"


def lines(difference: Difference, top: int = 10) -> list[str]:
    """Return the sentence, a table of the `top` largest changes, and what can't be seen; safe for a terminal."""
    shown_changes = [change for change in difference.changes[:top] if change.explained.us or _is_notable(change)]
    return [
        sentence(difference),
        *_table(shown_changes),
        *_rest(difference, len(shown_changes)),
        *_moved(difference),
        *_unseen(difference),
        *(shown(problem) for problem in difference.problems),
    ]
