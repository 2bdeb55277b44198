"""Which layers of two profiles are the same, which were fused anew, and which operators changed sides. Ignores times.

Layers are held against each other by what they compute (the operators of the lowered graph, where these are known), by
name without what differs from build to build, by shapes, and by order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ..records.profile_record import PYTORCH, TENSORRT, Layer, Operator, Part, Profile
from .alignment import Key, Pair, aligned
from .layer_names import normalised, synchronizes
from .layer_row import LayerRow
from .regrouping import LayerGroup, regrouped

Computed = Counter[tuple[str, str]]
"""(operator, module) → count."""


class Match(NamedTuple):
    """What became of the layers: every row is in just one of `pairs`, `groups`, `removed`, `added`."""

    before: list[LayerRow]
    after: list[LayerRow]
    pairs: list[Pair]
    groups: list[LayerGroup]
    removed: list[int]
    added: list[int]
    fell_back: Computed
    """In a TensorRT part before, in a PyTorch part after."""
    taken_up: Computed
    """The other way round."""
    falling: frozenset[int]
    """Numbers of the operators that fell back."""
    rising: frozenset[int]
    """Numbers of those that were taken up."""
    engines_removed: list[str]
    engines_added: list[str]


class _Operators(NamedTuple):
    """The operators of both profiles: which is which."""

    pairs: list[tuple[tuple[int, Operator], tuple[int, Operator]]]
    """(part, operator) before and after."""
    before: dict[tuple[int, str], int]
    """(part, node) → number."""
    after: dict[tuple[int, str], int]


_OPERATOR_KEYS: list[Key[tuple[int, Operator]]] = [
    Key(lambda item: (item[1].operator, item[1].module), anywhere=True),
    Key(lambda item: item[1].operator, anywhere=False),  # modules were renamed; baselines keep no shapes
]
_LAYER_KEYS: list[Key[LayerRow]] = [
    Key(lambda row: (row.kind, row.name, row.shapes, row.operators) if row.operators else None, anywhere=True),
    Key(lambda row: (row.kind, row.name, row.operators) if row.operators else None, anywhere=True),
    Key(lambda row: (row.kind, row.name, row.shapes, *row.layer.modules) if row.layer.modules else None, anywhere=True),
    Key(lambda row: (row.kind, row.name, row.shapes), anywhere=True),
    Key(lambda row: (row.kind, row.name), anywhere=False),
]
"""What is certain first; the last is for shapes that changed with nothing else known."""


def match(before: Profile, after: Profile) -> Match:
    """Match the layers of two profiles; layers that only synchronise streams are left out."""
    operators = _operators(before, after)
    old, new = _rows(before, operators.before), _rows(after, operators.after)
    found = aligned(old, new, _LAYER_KEYS, _agree)
    pairs = found.pairs
    groups, removed, added = regrouped(old, new, found)
    fell_back, taken_up = moved(before, after, TENSORRT, PYTORCH), moved(before, after, PYTORCH, TENSORRT)
    removed_engines, added_engines = _engines(before, after, [(old[i].part, new[j].part) for i, j in pairs], operators)
    return Match(
        before=old,
        after=new,
        pairs=pairs,
        groups=groups,
        removed=removed,
        added=added,
        fell_back=fell_back,
        taken_up=taken_up,
        falling=_numbers_of(fell_back, PYTORCH, before, after, operators),
        rising=_numbers_of(taken_up, TENSORRT, before, after, operators),
        engines_removed=removed_engines,
        engines_added=added_engines,
    )


def moved(before: Profile, after: Profile, source: str, target: str) -> Computed:
    """Return what parts of kind `source` computed before and parts of kind `target` compute after.

    Counted by operator and module, so that it does not matter how the nodes of the graph are numbered.
    """
    lost = _computed(before, source) - _computed(after, source)
    return lost and lost & (_computed(after, target) - _computed(before, target))


def _computed(profile: Profile, kind: str) -> Computed:
    parts = (part for part in profile.parts if part.kind == kind)
    return Counter((operator.operator, operator.module) for part in parts for operator in part.operators)


def _operators(before: Profile, after: Profile) -> _Operators:
    old, new = _listed(before), _listed(after)
    pairs = aligned(old, new, _OPERATOR_KEYS).pairs
    numbers = {(part, operator.node): number for number, (part, operator) in enumerate(old)}
    others = {(part, operator.node): len(old) + number for number, (part, operator) in enumerate(new)}
    for i, j in pairs:
        others[new[j][0], new[j][1].node] = i
    return _Operators([(old[i], new[j]) for i, j in pairs], numbers, others)


def _listed(profile: Profile) -> list[tuple[int, Operator]]:
    return [(number, operator) for number, part in enumerate(profile.parts) for operator in part.operators]


def _rows(profile: Profile, numbers: dict[tuple[int, str], int]) -> list[LayerRow]:
    return [
        _row(number, part, layer, numbers)
        for number, part in enumerate(profile.parts)
        for layer in part.layers
        if not synchronizes(layer)
    ]


def _row(number: int, part: Part, layer: Layer, numbers: dict[tuple[int, str], int]) -> LayerRow:
    known = (numbers.get((number, node)) for node in layer.sources)
    return LayerRow(
        part=number,
        kind=part.kind,
        layer=layer,
        name=normalised(layer.name, part.kind),
        operators=frozenset(operator for operator in known if operator is not None),
        shapes=tuple(tuple(tuple(tensor.shape) for tensor in side) for side in (layer.inputs, layer.outputs)),
    )


def _agree(before: LayerRow, after: LayerRow) -> bool:
    """Whether two layers may compute the same: of one, only a part of what the other computes may be known."""
    return before.operators <= after.operators or after.operators <= before.operators


def _numbers_of(
    computed: Computed, kind: str, before: Profile, after: Profile, operators: _Operators
) -> frozenset[int]:
    """Return the numbers of those operators of `computed` that are in a part of `kind` after, and were not before."""
    if not computed:
        return frozenset()
    return frozenset(
        operators.before[part, operator.node]
        for (part, operator), (part_after, _) in operators.pairs
        if (operator.operator, operator.module) in computed
        and after.parts[part_after].kind == kind != before.parts[part].kind
    )


def _engines(
    before: Profile, after: Profile, rows: Iterable[Pair], operators: _Operators
) -> tuple[list[str], list[str]]:
    """Return the engines that are only before, and only after: the others have the most layers and operators in common.

    Engines that have nothing in common with any other are the same where they have the same name.
    """
    common = Counter(rows)
    common.update((part, part_after) for (part, _), (part_after, _) in operators.pairs)
    old = {number: part.name for number, part in enumerate(before.parts) if part.kind == TENSORRT}
    new = {number: part.name for number, part in enumerate(after.parts) if part.kind == TENSORRT}
    for i, j in sorted(common, key=lambda pair: (-common[pair], pair)):
        if i in old and j in new:
            del old[i], new[j]
    same_name = Counter(old.values()) & Counter(new.values())
    return _less(old.values(), same_name), _less(new.values(), same_name)


def _less(names: Iterable[str], taken: Counter[str]) -> list[str]:
    left = Counter(taken)
    found = []
    for name in names:
        if left[name]:
            left[name] -= 1
        else:
            found.append(name)
    return found
