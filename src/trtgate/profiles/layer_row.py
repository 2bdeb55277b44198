"""A layer, and what it is recognised by in another profile."""

from __future__ import annotations

from typing import NamedTuple

from ..records.profile_record import Layer


class LayerRow(NamedTuple):
    """A layer, and what it is recognised by."""

    part: int
    kind: str
    layer: Layer
    name: str
    """Without what differs from build to build."""
    operators: frozenset[int]
    """Those it computes; an operator has the same number in both profiles. Empty where unknown."""
    shapes: tuple[tuple[tuple[int, ...], ...], ...]
    """Of its inputs, and of its outputs."""
