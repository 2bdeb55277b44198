"""Is the output right? Compared with eager, leaf by leaf, before anything is timed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
import torch

from ..common.errors import TrtgateError
from ..common.text_columns import first_few
from . import leaf_comparison, output_leaves
from .leaf_comparison import DECADES, INTEGER, MEASURED, LeafComparison
from .output_leaves import Container, Leaf, shown
from .output_leaves import leaves as leaves

MOST_NAMED = 3


class Tolerance(msgspec.Struct, frozen=True):
    """Largest errors of a leaf whose values are rounded. `LeafComparison` says what each is."""

    relative_l2: float
    cosine: float
    """The smallest; implied by the relative L2, and asked too where that is wide."""
    worst_slice: float
    largest: float
    small_slice: float = math.inf
    """Only fp32 rounds finely enough for one: the furthest of 220 right outputs was 1.6e-4 off, in fp16 1.2e-1."""

    def scaled(self, relative_l2: float) -> Tolerance:
        """Return this with another largest relative L2 and the others in proportion; no cosine is asked then."""
        factor = relative_l2 / self.relative_l2
        slices = self.worst_slice * factor, self.largest * factor, self.small_slice * factor
        return Tolerance(relative_l2, -math.inf, *slices)


TOLERANCES = {
    "fp32": Tolerance(1e-3, 0.9999, 5e-3, 5e-3, 5e-2), "tf32": Tolerance(3e-2, 0.999, 1e-1, 1.5e-1),
    "fp16": Tolerance(3e-2, 0.999, 1e-1, 1.5e-1), "bf16": Tolerance(2.5e-1, 0.965, 5e-1, 6e-1),
    "int8": Tolerance(3e-1, 0.95, 7e-1, 9e-1), "int8_weights": Tolerance(1e-1, 0.99, 3e-1, 4e-1),
    "fp8": Tolerance(3e-1, 0.95, 7e-1, 9e-1),
}  # fmt: skip
"""Arithmetic → what a floating-point or complex leaf may be off against eager at the same dtype. fp16 and TF32 round at
2^-11 = 5e-4 an operation, in another order than eager, through some hundred layers: measured on an H200 4e-3 for
resnet18, 6e-3 for vit_b_16 and 8e-3 for mobilenet_v3_large. bf16 rounds eight times as coarsely. What quantizing costs
depends on the network; beyond these it is broken: resnet18, fake-quantized, is off by 1.7e-2 in int8, 1.4e-2 with int8
weights, 5.7e-2 in fp8. Slices and largest errors: of 660 right outputs on a CPU the furthest were 1.8e-5 and 1.5e-5
off in fp32, 4.4e-2 and 3.6e-2 in fp16, 3.4e-1 and 2.7e-1 in bf16; of 517 on an H100 5.3e-2 and 3.5e-2 in fp16, 4.0e-1
and 2.5e-1 in bf16, where one was 2.2e-1 off as a whole (`studies/wrong_outputs.py`, docs/outputs.md). Quantized
outputs are not among them; theirs are in proportion."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """An output beside eager's."""

    structure: str = ""
    """In what the containers differ, as a sentence that names where; empty where in nothing."""
    leaves: tuple[LeafComparison, ...] = ()
    """Each leaf of eager's; none where the containers differ."""
    call: int = 1
    """Which call in a row this is of."""
    ways: dict[str, str] = {}
    """In which ways it was called beside twice in a row, each compared too → why it was not; empty where it was."""

    @property
    def leaf_error(self) -> float:
        """The largest relative L2 of a leaf; inf where the two can't be compared."""
        if self.structure:
            return math.inf
        errors = [leaf.relative_l2 for leaf in self.leaves]
        return max(errors, default=0.0) if all(error < math.inf for error in errors) else math.inf

    @property
    def counted(self) -> dict[str, int]:
        """How many leaves were compared, by kind."""
        return dict(Counter(leaf.kind for leaf in self.leaves))

    def problem(
        self, arithmetic: str, tolerances: Mapping[str, float] | None = None, apart: Mapping[str, float] | None = None
    ) -> str:
        """Return what is wrong, naming the worst leaf with its figures; empty when the output is right.

        `tolerances` are for single leaves, by path or last name: the largest relative L2, or of integers the largest
        share that is not equal. `apart` is how far two runs of eager differ, path → relative L2: a leaf may be twice
        that further off. Raises TrtgateError for a tolerance that no leaf can have.
        """
        if self.structure:
            return self.structure
        own = self._own_tolerances(tolerances or {})
        table = TOLERANCES[arithmetic].relative_l2
        own |= {path: own.get(path, table) + 2 * error for path, error in (apart or {}).items()}
        judged = [_excess(leaf, TOLERANCES[arithmetic], own.get(leaf.path)) for leaf in self.leaves]
        wrong = [(excess, said) for excess, said in judged if said]
        if not wrong:
            return ""
        more = {1: "", 2: "; another leaf differs too"}.get(len(wrong), f"; {len(wrong) - 1} other leaves differ too")
        return max(wrong, key=lambda one: one[0])[1] + more

    def _own_tolerances(self, tolerances: Mapping[str, float]) -> dict[str, float]:
        """Return path → tolerance of leaves that have one of their own; a path goes before a name."""
        able = [leaf for leaf in self.leaves if leaf.kind in (*MEASURED, INTEGER)]
        found: dict[str, float] = {}
        for key, value in tolerances.items():
            meant = [leaf for leaf in able if leaf.path == key] or [leaf for leaf in able if leaf.name == key]
            if not meant:
                there = ", ".join(leaf.path for leaf in able) or "none that a tolerance could be for"
                raise TrtgateError(f"tolerances: no leaf of the output is {key!r}; there are: {there}")
            for leaf in meant:
                if leaf.kind == INTEGER and value > 1:
                    raise TrtgateError(
                        f"tolerances: {key}={value}: {leaf.path} has integers; write the share that may differ, "
                        "from 0 to 1"
                    )
                if leaf.path == key or leaf.path not in tolerances:
                    found[leaf.path] = value
        return found


def tensors(output: Any) -> list[torch.Tensor]:
    """Return all tensors of an output in order."""
    return [value for _, value in leaves(output) if isinstance(value, torch.Tensor)]


def check_reference(output: Any, where: str) -> None:
    """Raise TrtgateError, which begins with `where`, for an output of eager that nothing can be compared with.

    Infinite values are what masks give, and allowed. A tensor with NaN, or without a finite value, proves nothing.
    Raises for what can't be taken apart, too.
    """
    try:
        found = leaves(output)
    except TrtgateError as error:
        raise TrtgateError(f"{where}: {error}") from error
    for path, value in found:
        has_nan, all_infinite = leaf_comparison.non_finite(value)
        if has_nan or all_infinite:
            what = "NaN values" if has_nan else "infinite values only"
            raise TrtgateError(f"{where} has {what} in {shown(path)}; seed its weights and inputs")


def holds_nothing(nodes: list[Leaf | Container]) -> str:
    """Return a sentence where an output that was taken apart has no value to be compared; empty where it has one.

    None and tensors without elements have none: whatever a backbone computed, boxes that do not exist are right.
    """
    found = [node for node in nodes if isinstance(node, Leaf)]
    if any(
        one.value is not None and not (isinstance(one.value, torch.Tensor) and not one.value.numel()) for one in found
    ):
        return ""
    tensors = [shown(one.path) for one in found if one.value is not None]
    what = f": no element is in {first_few(tensors, MOST_NAMED)}" if tensors else ""
    return f"its output holds no value{what}, so that only its structure was compared: take inputs that give some"


def compare(eager: Any, output: Any) -> Comparison:
    """Compare an output with eager's: containers, then each leaf.

    Integers, booleans, texts and None are to be equal; a Python float or complex number is compared as a tensor of one
    value. Raises TrtgateError for what can't be taken apart.
    """
    return compare_walked(output_leaves.walk(eager), output)


def compare_walked(wanted: list[Leaf | Container], output: Any) -> Comparison:
    """Compare an output with eager's that was taken apart before. Raises as `compare`."""
    return compare_nodes(wanted, output_leaves.walk(output))


def compare_nodes(wanted: list[Leaf | Container], got: list[Leaf | Container]) -> Comparison:
    """Compare two outputs that were taken apart before."""
    structure = _structure(wanted, got)
    if structure:
        return Comparison(structure=structure)
    values = {node.path: node.value for node in got if isinstance(node, Leaf)}
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        found = [
            leaf_comparison.compare(node.path, node.name, node.value, values[node.path])
            for node in wanted
            if isinstance(node, Leaf) and node.value is not output_leaves.ANY
        ]
    return Comparison(leaves=tuple(found))


def _structure(wanted: list[Leaf | Container], got: list[Leaf | Container]) -> str:
    """Return the first difference between the containers of two outputs."""
    others = {node.path: node for node in got}
    for node in wanted:
        other = others[node.path]  # parents have the same keys
        if isinstance(node, Leaf) and isinstance(other, Leaf):
            continue
        if isinstance(node, Leaf) or isinstance(other, Leaf) or node.kind != other.kind:
            return f"{shown(node.path)} differs from eager: it is {_what(other)}, eager's {_what(node)}"
        said = _keys(node, other)
        if said:
            return said
    return ""


def _keys(eager: Container, output: Container) -> str:
    missing = [key for key in eager.keys if key not in output.keys]
    more = [key for key in output.keys if key not in eager.keys]
    if missing:
        instead = f"; {shown(eager.path + more[0])} is, and is not in eager's" if more else ""
        return f"{shown(eager.path + missing[0])} differs from eager: it is not in the output{instead}"
    if more:
        return f"{shown(output.path + more[0])} differs from eager: eager's output has none"
    if eager.ordered and eager.keys != output.keys:
        place = next(place for place, key in enumerate(eager.keys) if key != output.keys[place])
        key = eager.keys[place]
        return (
            f"{shown(eager.path + key)} differs from eager: it is item {output.keys.index(key)} of its "
            f"{shown(output.kind)}, eager's is item {place}"
        )
    return ""


def _what(node: Leaf | Container) -> str:
    if isinstance(node, Leaf) and node.value is None:
        return "None"
    if isinstance(node, Container):
        kind = shown(node.kind)
    else:
        kind = "tensor" if isinstance(node.value, torch.Tensor) else type(node.value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _excess(leaf: LeafComparison, table: Tolerance, own: float | None) -> tuple[float, str]:
    """Return how many times a leaf is beyond its tolerance, and the sentence that says so; empty where it is right."""
    if leaf.difference:
        return math.inf, f"{shown(leaf.path)} differs from eager: {leaf.difference}"
    if leaf.kind not in MEASURED:
        return _unequal(leaf, own or 0.0)
    tolerance = table if own is None else table.scaled(own)
    figures = [
        (leaf.relative_l2, tolerance.relative_l2, "relative L2 {:.2e}"),
        (leaf.worst_slice, tolerance.worst_slice, f"slice {leaf.slice_at} {{:.2e}}"),
        (leaf.small_slice, tolerance.small_slice, f"slice {leaf.small_at} {{:.2e}} of itself"),
        (leaf.largest, tolerance.largest, "one value {:.2e} of the largest"),
    ]
    times = [_times(value, most) for value, most, _ in figures]
    if max(times) <= 1.0 and leaf.cosine >= tolerance.cosine:
        return 0.0, ""
    said = [
        f"{text.format(value)} (at most {_limit(most)})"
        for number, (value, most, text) in enumerate(figures)
        if number == 0 or times[number] > 1.0
    ]
    if not leaf.cosine >= tolerance.cosine:
        said.append(f"cosine {leaf.cosine:.6f} (at least {tolerance.cosine})")
    place = max(index for index, decade in enumerate(DECADES) if decade <= tolerance.relative_l2)
    count = f"{leaf.beyond[place]} of {leaf.values} values are off by more than {100 * DECADES[place]:g} %"
    return max(times), f"{shown(leaf.path)} differs from eager: {count}, {', '.join(said)}"


def _limit(most: float) -> str:
    short = f"{most:.0e}"
    return short if float(short) == most else f"{most:.4g}"


def _times(value: float, most: float) -> float:
    """Return how many times the tolerance a figure is; inf for what is no number."""
    if value == 0.0:
        return 0.0
    return value / most if most and value < math.inf else math.inf


def _unequal(leaf: LeafComparison, most: float) -> tuple[float, str]:
    if leaf.mismatches <= most * leaf.values:
        return 0.0, ""
    allowed = f" (at most {most:.2%})" if most else ""
    said = leaf.shown or f"{leaf.mismatches} of {leaf.values} values differ{allowed}"
    return leaf.mismatches / max(1, leaf.values) / max(most, 1e-3), f"{shown(leaf.path)} differs from eager: {said}"
