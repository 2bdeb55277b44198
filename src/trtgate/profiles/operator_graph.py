"""A part's lowered graph as the values that its operators compute: what lies between a layer's inputs and a value."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from ..records.profile_record import Operator, Part
from . import kernel_names

MOST_OPERATORS = 96
"""On the way to one value; a layer from whose inputs more can be computed is left alone."""


class TooManyError(Exception):
    """There are more possibilities than are looked at; dropping some could make a wrong one look certain."""


MOVES = frozenset(
    "view reshape _reshape_copy _unsafe_view unsqueeze squeeze expand clone contiguous permute transpose t alias "
    "detach flatten _to_copy to lift_fresh_copy dropout".split()
)
"""Operators whose result holds the values of their one input, and no fewer or more of them."""


class OperatorGraph:
    """A part's operators by what they compute; what only moves a value along is one with it.

    Values are numbered in the order of the graph, the part's inputs first.
    """

    def __init__(self, part: Part) -> None:
        self.operators: list[Operator | None] = [None] * len(part.inputs)
        self.takes: list[tuple[int, ...]] = [() for _ in part.inputs]
        self.elements: list[int] = [-1] * len(part.inputs)
        self.moved: list[list[Operator]] = [[] for _ in part.inputs]
        self.value_of: dict[str, int] = {name: number for number, name in enumerate(part.inputs)}
        pieces = Counter(op.inputs[0] for op in part.operators if _is_getitem(op) and op.inputs)
        for operator in part.operators:
            takes = tuple(dict.fromkeys(self.value_of[name] for name in operator.inputs if name in self.value_of))
            if len(takes) == 1 and self._moves(operator, takes[0], pieces):
                self.value_of[operator.node] = takes[0]
                self.moved[takes[0]].append(operator)
                continue
            self.value_of[operator.node] = len(self.operators)
            self.operators.append(operator)
            self.takes.append(takes)
            self.elements.append(_elements(operator))
            self.moved.append([])
        self.constant = [False] * len(part.inputs)
        for takes in self.takes[len(part.inputs) :]:
            self.constant.append(all(self.constant[taken] for taken in takes))

    def _moves(self, operator: Operator, taken: int, pieces: Mapping[str, int]) -> bool:
        if _is_getitem(operator):
            return pieces[operator.inputs[0]] == 1
        if kernel_names.short(operator.operator) not in MOVES:
            return False
        had = self.elements[taken]
        return had < 0 or had == _elements(operator)

    @cached_property
    def readers(self) -> list[list[int]]:
        """Value → the values computed of it."""
        found: list[list[int]] = [[] for _ in self.operators]
        for value, takes in enumerate(self.takes):
            for taken in takes:
                found[taken].append(value)
        return found

    @cached_property
    def heavy(self) -> frozenset[int]:
        """The values that convolutions, matrix products and attention compute."""
        return frozenset(
            value
            for value, operator in enumerate(self.operators)
            if operator is not None and kernel_names.is_heavy(operator.operator)
        )

    def shape_fits(self, value: int, elements: int) -> bool:
        """Whether a tensor of so many elements can hold a value; -1 is unknown."""
        had = self.elements[value]
        return had < 0 or elements < 0 or had == elements

    def between(self, cut: frozenset[int], most_heavy: int) -> Iterator[tuple[int, frozenset[int]]]:
        """Yield every value that a cut suffices to compute and that needs all of it, with what is computed on the way.

        At most `most_heavy` convolutions and matrix products are on the way to a value. Raises TooManyError when the
        way to one is longer than MOST_OPERATORS.
        """
        computed: dict[int, frozenset[int]] = dict.fromkeys(cut, frozenset())
        needed: dict[int, frozenset[int]] = {value: frozenset((value,)) for value in cut}
        waiting = sorted({reader for value in cut for reader in self.readers[value]}, reverse=True)
        seen = set(waiting)
        while waiting:
            value = waiting.pop()
            takes = [taken for taken in self.takes[value] if not self.constant[taken]]
            if value in cut or not all(taken in computed for taken in takes):
                continue
            way = frozenset((value,)).union(*(computed[taken] for taken in takes))
            if len(way & self.heavy) > most_heavy:
                continue
            if len(way) > MOST_OPERATORS:
                raise TooManyError
            computed[value] = way
            needed[value] = frozenset().union(*(needed[taken] for taken in takes))
            if needed[value] == cut:
                yield value, way
            fresh = [reader for reader in self.readers[value] if reader not in seen]
            if fresh:
                seen.update(fresh)
                waiting = sorted((*waiting, *fresh), reverse=True)

    def computed(self, nodes: Sequence[str]) -> frozenset[int]:
        """Return the values that nodes compute; those that only move one along compute none."""
        return frozenset(self.value_of[node] for node in nodes if node in self.value_of and not self.only_moves(node))

    def only_moves(self, node: str) -> bool:
        """Whether a node hands on the values of another one."""
        operator = self.operators[self.value_of[node]] if node in self.value_of else None
        return operator is None or operator.node != node

    def has_heavy(self, values: frozenset[int]) -> bool:
        """Whether a convolution, a matrix product or attention is among values."""
        return not self.heavy.isdisjoint(values)

    def nodes(self, values: frozenset[int]) -> list[Operator]:
        """Return the operators of values, in the order of the graph."""
        return [operator for value in sorted(values) if (operator := self.operators[value]) is not None]


def _is_getitem(operator: Operator) -> bool:
    return operator.operator.endswith("getitem")


def _elements(operator: Operator) -> int:
    return size_of(operator.shapes[0]) if operator.shapes else -1


def size_of(shape: Sequence[int]) -> int:
    """Return how many elements a shape has, -1 where a dimension is not known."""
    return math.prod(shape) if all(size >= 0 for size in shape) else -1
