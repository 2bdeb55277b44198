"""Layers that were fused anew: groups of removed and added layers that do the same work."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .alignment import Alignment

if TYPE_CHECKING:
    from .layer_row import LayerRow

Shape = tuple[int, ...]


class LayerGroup(NamedTuple):
    """Indices of the layers that were removed, and of those that now do their work; neither is empty."""

    before: list[int]
    after: list[int]


def regrouped(
    before: Sequence[LayerRow], after: Sequence[LayerRow], alignment: Alignment
) -> tuple[list[LayerGroup], list[int], list[int]]:
    """Return the groups, and what is in none: indices of layers that were removed, and that were added.

    Layers belong together that are connected by operators which both compute. Where operators are unknown, those do
    that stand between the same two neighbours, if the first ones take a tensor of the same shape, and the last ones
    give tensors of the same shapes.
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


def _connected(
    before: Sequence[LayerRow], after: Sequence[LayerRow], removed: list[int], added: list[int]
) -> list[LayerGroup]:
    """Return the connected components that have both removed and added layers; an edge is an operator in common."""
    of_operator: defaultdict[int, list[tuple[bool, int]]] = defaultdict(list)
    for is_new, rows, indices in ((False, before, removed), (True, after, added)):
        for index in indices:
            for operator in rows[index].operators:
                of_operator[operator].append((is_new, index))
    seen: set[tuple[bool, int]] = set()
    groups = []
    for start in removed:
        waiting, group = [(False, start)], LayerGroup([], [])
        while waiting:
            is_new, index = layer = waiting.pop()
            if layer in seen:
                continue
            seen.add(layer)
            (group.after if is_new else group.before).append(index)
            for operator in (after if is_new else before)[index].operators:
                waiting += of_operator.pop(operator, ())
        if group.before and group.after:
            groups.append(LayerGroup(sorted(group.before), sorted(group.after)))
    return groups


class _Positions:
    """What stands between the same two neighbours before and after."""

    def __init__(self, before: Sequence[LayerRow], after: Sequence[LayerRow], alignment: Alignment) -> None:
        self._rows = before, after
        self._ends = [i for i, _ in alignment.ordered], [j for _, j in alignment.ordered]

    def joined(self, groups: list[LayerGroup], removed: list[int], added: list[int]) -> list[LayerGroup]:
        """Return `groups`, and those that position and shapes show; a group may take up what stands around it."""
        grouped = {(side, index) for group in groups for side in (0, 1) for index in group[side]}
        loose: defaultdict[int, LayerGroup] = defaultdict(lambda: LayerGroup([], []))
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
            whole = LayerGroup(*(sorted(sum((g[side] for g in inside[gap]), rest[side])) for side in (0, 1)))
            if self._does_the_same(rest):
                found += [rest, *inside[gap]]
            elif inside[gap] and self._does_the_same(whole):
                found.append(whole)
            else:
                found += inside[gap]
        return sorted(found)

    def _gap(self, side: int, index: int) -> int:
        return bisect_left(self._ends[side], index)

    def _does_the_same(self, group: LayerGroup) -> bool:
        """Whether layers may do the same work by what they take and give; not where all their operators are known.

        Names of tensors would say more, and differ from build to build.
        """
        known = all(self._rows[side][index].operators for side in (0, 1) for index in group[side])
        if not group.before or not group.after or known:
            return False
        (taken, given), (taken_after, given_after) = self._ends_of(0, group.before), self._ends_of(1, group.after)
        return given == given_after != [] and not taken.isdisjoint(taken_after)

    def _ends_of(self, side: int, indices: list[int]) -> tuple[set[Shape], list[Shape]]:
        """Return the shapes of what the first layer takes, and of what the last one gives."""
        inputs, _ = self._rows[side][indices[0]].shapes
        _, outputs = self._rows[side][indices[-1]].shapes
        return set(map(_extent, inputs)), sorted(map(_extent, outputs))


def _extent(shape: Shape) -> Shape:
    """Return a shape without its ones: the same tensor is seen as [1,512,1,1] by one layer, as [1,512] by the next."""
    return tuple(size for size in shape if size != 1)
