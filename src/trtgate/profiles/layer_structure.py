"""What changed in the structure of a compiled module, whatever its times: for baselines that are committed."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from ..common.text_columns import first_few
from ..records.profile_record import Layer, Profile, Tensor
from .layer_names import SHOWN, modules, shown
from .layer_row import LayerRow
from .matching import Computed, match

GENERATED = re.compile(r"_0x[0-9a-f]{16,}$")
NAMED_BY_MODULE = re.compile(r"^(\[\w+\])-\[.*\]$")
"""As `[CONVOLUTION]-[aten_ops.convolution.default]-[layer4.1.conv2/convolution]`; its type alone is kept."""
UNNAMED = frozenset(("", "__myelin_CASK_STUB"))
"""What TensorRT gives for a tactic that it does not name."""


class Structure(msgspec.Struct, frozen=True, kw_only=True):
    """What is not the same in two profiles, in the order of execution; each entry is a phrase that names it."""

    added: list[str]
    removed: list[str]
    fusions: list[str]
    """Layers, and the ones that do their work now."""
    tactics: list[str]
    precisions: list[str]
    fell_back: list[str]
    """Operators that TensorRT computed and PyTorch computes now."""
    taken_up: list[str]
    """The other way round."""
    engines_added: list[str]
    engines_removed: list[str]

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__struct_fields__)


def structural(before: Profile, after: Profile) -> Structure:
    """Compare two profiles without their times; `tactics` knows nothing of layers whose tactic has no name."""
    found = match(before, after)
    old, new = found.before, found.after
    matched = [(old[i], old[i].layer, new[j].layer) for i, j in found.pairs]
    return Structure(
        added=[_phrase([new[index]]) for index in found.added],
        removed=[_phrase([old[index]]) for index in found.removed],
        fusions=[
            f"{_phrase([old[i] for i in group.before])} → {_phrase([new[j] for j in group.after])}"
            for group in found.groups
        ],
        tactics=[f"{_name(row)}: {_tactic(b)} → {_tactic(a)}" for row, b, a in matched if has_other_tactic(b, a)],
        precisions=[f"{_name(row)}: {_types(b)} → {_types(a)}" for row, b, a in matched if has_other_precision(b, a)],
        fell_back=_counted(found.fell_back),
        taken_up=_counted(found.taken_up),
        engines_added=[shown(name) for name in found.engines_added],
        engines_removed=[shown(name) for name in found.engines_removed],
    )


def is_tactic_unseen(before: Layer, after: Layer) -> bool:
    """Whether TensorRT does not name a layer's tactic, so that another one would look the same.

    A generated kernel is named by its layer and a hash, of which nobody says that two builds give the same.
    """
    if before.tactic in UNNAMED or after.tactic in UNNAMED:
        return True
    return GENERATED.sub("", before.tactic) == GENERATED.sub("", after.tactic) and before.tactic != after.tactic


def has_other_tactic(before: Layer, after: Layer) -> bool:
    """Whether a layer is seen to run another tactic, or another type of kernel; what is unknown counts as the same."""
    if before.type and after.type and before.type != after.type:
        return True
    return not is_tactic_unseen(before, after) and before.tactic != after.tactic


def has_other_precision(before: Layer, after: Layer) -> bool:
    """Whether the types or formats of a layer's inputs or outputs, in any order, differ where both are known."""
    return _differ(before.inputs, after.inputs) or _differ(before.outputs, after.outputs)


def _differ(before: Sequence[Tensor], after: Sequence[Tensor]) -> bool:
    old, new = _precisions(before), _precisions(after)
    if len(old) != len(new):  # constants may be listed in one build only
        old, new = sorted(set(old)), sorted(set(new))
    return bool(old and new and old != new)


def _precisions(tensors: Sequence[Tensor]) -> list[tuple[str, str]]:
    return sorted((tensor.dtype, tensor.format) for tensor in tensors if tensor.dtype or tensor.format)


def _types(layer: Layer) -> str:
    sides = (_precisions(layer.inputs), _precisions(layer.outputs))
    return " to ".join(", ".join(shown(format_ or dtype) for dtype, format_ in dict.fromkeys(side)) for side in sides)


def _tactic(layer: Layer) -> str:
    return f"{shown(layer.type)} {shown(layer.tactic)}".strip()


def _phrase(rows: Sequence[LayerRow]) -> str:
    return first_few([_name(row) for row in rows], SHOWN, " + ")


def _name(row: LayerRow) -> str:
    of = modules([row.layer])
    return shown(NAMED_BY_MODULE.sub(r"\1", row.name)) + f" ({of})" if of else shown(row.name)


def _counted(computed: Computed) -> list[str]:
    return [
        f"{count} {shown(operator)}" + f" ({shown(module)})" * bool(module)
        for (operator, module), count in sorted(computed.items())
    ]
