"""Layers that were fused anew: groups of removed and added layers that do the same work."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .alignment import Alignment

if TYPE_CHECKING:
    from .matching import Row

TensorKey = tuple[int, str]
"""Part, name: names of tensors mean something within a part only."""
Shapes = list[tuple[int, ...]]


class Group(NamedTuple):
    """Indices of the layers that were removed, and of those that now do their work; neither is empty."""

    before: list[int]
    after: list[int]


def regrouped(
    before: Sequence[Row], after: Sequence[Row], alignment: Alignment
) -> tuple[list[Group], list[int], list[int]]:
    """Return the groups, and what is in none: indices of layers that were removed, and that were added.

    Layers belong together that are connected by operators which both compute. Where operators are unknown, those do
    that stand between the same two neighbours, if what they take from outside and give to it has the same shapes.
    """
    removed = _rest(len(before), (i for i, _ in alignment.pairs))
    added = _rest(len(after), (j for _, j in alignment.pairs))
    groups = _connected(before, after, removed, added)
    groups = _Positions(before, after, alignment).joined(groups, removed, added)
    return (
        groups,
        _without(removed, (i for group in groups for i in group.before)),
        _without(added, (j for group in groups for j in group.after)),
    )


def _rest(count: int, taken: Iterable[int]) -> list[int]:
    return _without(range(count), taken)


def _without(indices: Iterable[int], taken: Iterable[int]) -> list[int]:
    gone = set(taken)
    return [index for index in indices if index not in gone]


def _connected(before: Sequence[Row], after: Sequence[Row], removed: list[int], added: list[int]) -> list[Group]:
    """Return the connected components that have both removed and added layers; an edge is an operator in common."""
    of_operator: defaultdict[int, list[tuple[bool, int]]] = defaultdict(list)
    for is_new, rows, indices in ((False, before, removed), (True, after, added)):
        for index in indices:
            for operator in rows[index].operators:
                of_operator[operator].append((is_new, index))
    seen: set[tuple[bool, int]] = set()
    groups = []
    for start in removed:
        waiting, group = [(False, start)], Group([], [])
        while waiting:
            is_new, index = layer = waiting.pop()
            if layer in seen:
                continue
            seen.add(layer)
            (group.after if is_new else group.before).append(index)
            for operator in (after if is_new else before)[index].operators:
                waiting += of_operator.pop(operator, ())
        if group.before and group.after:
            groups.append(Group(sorted(group.before), sorted(group.after)))
    return groups


class _Positions:
    """What stands between the same two neighbours before and after."""

    def __init__(self, before: Sequence[Row], after: Sequence[Row], alignment: Alignment) -> None:
        self._rows = before, after
        self._ends = [i for i, _ in alignment.ordered], [j for _, j in alignment.ordered]
        self._readers = _readers(before), _readers(after)

    def joined(self, groups: list[Group], removed: list[int], added: list[int]) -> list[Group]:
        """Return `groups`, and those that position and shapes show; a group may take up what stands around it."""
        grouped = {(side, index) for group in groups for side in (0, 1) for index in group[side]}
        loose: defaultdict[int, Group] = defaultdict(lambda: Group([], []))
        for side, indices in enumerate((removed, added)):
            for index in indices:
                if (side, index) not in grouped:
                    loose[self._gap(side, index)][side].append(index)
        found, inside = [], defaultdict(list)
        for group in groups:
            around = {self._gap(side, index) for side in (0, 1) for index in group[side]}
            if len(around) == 1 and min(around) in loose:
                inside[min(around)].append(group)
            else:
                found.append(group)
        for gap, rest in loose.items():
            whole = Group(*(sorted(sum((g[side] for g in inside[gap]), rest[side])) for side in (0, 1)))
            if self._does_the_same(rest):
                found += [rest, *inside[gap]]
            elif inside[gap] and self._does_the_same(whole):
                found.append(whole)
            else:
                found += inside[gap]
        return sorted(found)

    def _gap(self, side: int, index: int) -> int:
        return bisect_left(self._ends[side], index)

    def _does_the_same(self, group: Group) -> bool:
        """Whether layers may do the same work by what they take and give; not where all their operators are known."""
        known = all(self._rows[side][index].operators for side in (0, 1) for index in group[side])
        if not group.before or not group.after or known:
            return False
        outer = self._outer(0, group.before)
        return bool(outer[1]) and outer == self._outer(1, group.after)

    def _outer(self, side: int, indices: list[int]) -> tuple[Shapes, Shapes]:
        """Return the shapes of tensors that a group takes from outside, and of those that it gives to it, sorted."""
        rows, readers, members = self._rows[side], self._readers[side], set(indices)
        taken = {(rows[i].part, t.name): _extent(t.shape) for i in indices for t in rows[i].layer.inputs}
        given = {(rows[i].part, t.name): _extent(t.shape) for i in indices for t in rows[i].layer.outputs}
        outside = (
            shape for tensor, shape in given.items() if not readers[tensor] or not readers[tensor].issubset(members)
        )
        return sorted(shape for tensor, shape in taken.items() if tensor not in given), sorted(outside)


def _readers(rows: Sequence[Row]) -> defaultdict[TensorKey, set[int]]:
    """Return tensor → indices of the layers that take it."""
    found: defaultdict[TensorKey, set[int]] = defaultdict(set)
    for index, row in enumerate(rows):
        for tensor in row.layer.inputs:
            found[row.part, tensor.name].add(index)
    return found


def _extent(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without its ones: the same tensor is seen as [1,512,1,1] by one layer, as [1,512] by the next."""
    return tuple(size for size in shape if size != 1)
