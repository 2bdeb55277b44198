"""Two values of one leaf compared: class, device, dtype, shape, non-finite positions, then values."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import torch

FLOATING, COMPLEX, INTEGER, OTHER = "floating-point", "complex", "integer", "other"
MEASURED = (FLOATING, COMPLEX)
"""Kinds whose values differ by rounding."""
DECADES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Thresholds of `LeafComparison.beyond`."""
PACKED = {getattr(torch, name) for name in ("float4_e2m1fn_x2",) if hasattr(torch, name)}
"""Two numbers a byte, which torch can't convert: their bits are compared."""
LEAST_FILL, FILL_TO_OTHERS = 1e3, 100.0
"""What the constants of masks are at least, and how many times as large as all other values. The 1.0 of a softmax that
is sure is none: the values beside it are rounded more coarsely than their size allows."""
SMALL = 1e-2
"""How small a slice is beside the average one at most, for errors that are relative to its own size."""
PLAIN_KINDS = {bool: INTEGER, int: INTEGER, float: FLOATING, complex: COMPLEX}


class LeafComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one leaf. Errors are ratios, computed in float64; inf where the two can't be compared."""

    path: str
    name: str
    kind: str
    """FLOATING, COMPLEX, INTEGER (booleans too), or OTHER."""
    values: int = 1
    """How many it has."""
    difference: str = ""
    """In what the two differ beside their values; empty where in nothing."""
    relative_l2: float = 0.0
    """‖output - eager‖ / ‖eager‖; 0 where both are zero, inf where eager's alone is."""
    cosine: float = 1.0
    worst_slice: float = 0.0
    """The largest relative L2 of a slice, relative to the average slice where that is larger; see `_slices`."""
    slice_at: str = ""
    """Which slice that is, as an index; empty where the leaf has one slice only."""
    small_slice: float = 0.0
    """The same, relative to the slice itself, or to SMALL of the average slice where that is larger."""
    small_at: str = ""
    largest: float = 0.0
    """The largest error of a value, relative to the largest value of eager's."""
    max_error: float = 0.0
    """The largest error of a value, in units of the output."""
    beyond: tuple[int, ...] = ()
    """How many values are off by more than each of DECADES: of themselves, or of the leaf's root mean square where that
    is larger."""
    mismatches: int = 0
    """Values that are not equal, of an integer or another leaf."""
    shown: str = ""
    """Both values, where they are no tensors and not equal."""


def compare(path: str, name: str, eager: Any, output: Any) -> LeafComparison:
    """Compare a leaf of an output with eager's."""
    kind = kind_of(eager)
    difference = _difference(eager, output)
    if difference:
        return _unlike(path, name, kind, eager, difference)
    if not isinstance(eager, torch.Tensor) and kind not in MEASURED:
        unequal = not bool(eager == output)
        shown = f"it is {_short(output)}, eager's {_short(eager)}" if unequal else ""
        return LeafComparison(path=path, name=name, kind=kind, mismatches=int(unequal), shown=shown)
    wanted, got = _plain_tensor(eager), _plain_tensor(output)
    got = got.to(wanted.device)
    if kind == INTEGER:
        wrong = int((wanted != got).sum())
        return LeafComparison(path=path, name=name, kind=kind, values=wanted.numel(), mismatches=wrong)
    difference = _non_finite_difference(wanted, got)
    if difference:
        return _unlike(path, name, kind, eager, difference)
    whole = _measured(path, name, kind, wanted, got)
    filled = _filled(wanted, _rounding(eager))
    if filled is None:
        return whole
    rest = _measured(path, name, kind, wanted.where(~filled, 0.0), got.where(~filled, 0.0))
    return _worse(whole, rest)


def kind_of(value: Any) -> str:
    """Return FLOATING, COMPLEX, INTEGER or OTHER."""
    if isinstance(value, torch.Tensor):
        if value.is_complex():
            return COMPLEX
        measured = value.is_quantized or (value.is_floating_point() and value.dtype not in PACKED)
        return FLOATING if measured else INTEGER
    return next((kind for plain, kind in PLAIN_KINDS.items() if isinstance(value, plain)), OTHER)


def non_finite(value: Any) -> tuple[bool, bool]:
    """Return whether a tensor has a NaN, and whether it has values and none of them is finite."""
    if not isinstance(value, torch.Tensor) or kind_of(value) == INTEGER or not value.numel():
        return False, False
    values = _plain_tensor(value)
    return bool(torch.isnan(values).any()), not bool(torch.isfinite(values).any())


def as_reals(value: torch.Tensor) -> torch.Tensor:
    """Return a floating-point or complex tensor in float64; complex numbers as pairs along a last axis of their own."""
    values = _plain_tensor(value)
    return torch.view_as_real(values) if values.is_complex() else values


def _unlike(path: str, name: str, kind: str, eager: Any, difference: str) -> LeafComparison:
    size = eager.numel() if isinstance(eager, torch.Tensor) else 1
    return LeafComparison(
        path=path, name=name, kind=kind, values=size, difference=difference, relative_l2=math.inf, cosine=0.0,
        worst_slice=math.inf, largest=math.inf, mismatches=size,
    )  # fmt: skip


def _difference(eager: Any, output: Any) -> str:
    """Return in what two leaves differ beside values: class, shape, dtype, device, layout; empty where in nothing."""
    classes = _class_name(output), _class_name(eager)
    if classes[0] != classes[1]:
        return f"it is {classes[0]}, eager's {classes[1]}"
    if not isinstance(eager, torch.Tensor):
        return ""
    for what, of_output, of_eager in (
        ("shape", tuple(output.shape), tuple(eager.shape)), ("dtype", output.dtype, eager.dtype),
        ("device", output.device, eager.device), ("layout", output.layout, eager.layout),
    ):  # fmt: skip
        if of_output != of_eager:
            return f"its {what} is {_text(of_output)}, eager's {_text(of_eager)}"
    return "it has no values: it is on the meta device" if eager.is_meta else ""


def _class_name(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "a tensor"
    plain = next((plain for plain in PLAIN_KINDS if isinstance(value, plain)), type(value))
    return "None" if value is None else f"of class {plain.__name__}"


def _text(value: Any) -> str:
    return str(value).removeprefix("torch.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _plain_tensor(value: Any) -> torch.Tensor:
    """Return a leaf as a dense tensor: float64 or complex128 of what is measured, integers that compare exactly."""
    if not isinstance(value, torch.Tensor):
        return torch.tensor(
            value, dtype=torch.float64 if kind_of(value) == FLOATING else torch.complex128, device="cpu"
        )
    with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        value = value.detach()
        if value.is_quantized:
            value = value.dequantize()
        if value.layout != torch.strided:
            value = value.to_dense()
        value = value.resolve_conj().resolve_neg()
        if value.is_complex():
            return value.to(torch.complex128)
        return value.to(torch.float64) if kind_of(value) == FLOATING else _comparable(value)


def _rounding(value: Any) -> float:
    """Return the relative distance of two neighbours of a value's dtype."""
    return torch.finfo(value.dtype).eps if isinstance(value, torch.Tensor) and value.is_floating_point() else 0.0


def _comparable(value: torch.Tensor) -> torch.Tensor:
    """Return integers as int64: as their bits where torch can't convert them."""
    try:
        return value.view(torch.int64) if value.dtype == torch.uint64 else value.to(torch.int64)
    except (NotImplementedError, RuntimeError):
        return value.contiguous().view(torch.uint8).to(torch.int64)


def _non_finite_difference(eager: torch.Tensor, output: torch.Tensor) -> str:
    """Return where NaN, inf and -inf stand in one alone."""
    if eager.is_complex():
        eager, output = torch.view_as_real(eager), torch.view_as_real(output)
    unlike = torch.zeros_like(eager, dtype=torch.bool)
    for of in (torch.isnan, torch.isposinf, torch.isneginf):
        unlike |= of(eager) != of(output)
    count = int(unlike.sum())
    if not count:
        return ""
    where = "where eager's are not" if bool(torch.isfinite(eager[unlike]).all()) else "in one of the two alone"
    return f"{count} of {eager.numel()} values are NaN or infinite {where}"


def _measured(path: str, name: str, kind: str, eager: torch.Tensor, output: torch.Tensor) -> LeafComparison:
    size, shape = eager.numel(), eager.shape
    a, b = as_reals(eager), as_reals(output)
    finite = torch.isfinite(a)
    a, b = a.where(finite, 0.0), b.where(finite, 0.0)  # what is not finite stands at the same places
    top = max(float(a.abs().max()), float(b.abs().max())) if size else 0.0
    if top == 0.0:  # so too where no value is finite
        return LeafComparison(path=path, name=name, kind=kind, values=size, beyond=(0,) * len(DECADES))
    a, b = a / top, b / top  # so that no square overflows
    norm_a, norm_b, error = float(a.norm()), float(b.norm()), (a - b)
    off, total = error.abs(), float(error.norm())
    scale = a.abs().clamp(min=norm_a / math.sqrt(int(finite.sum())))
    relative = torch.where(off == 0.0, 0.0, off / scale)
    return LeafComparison(
        path=path, name=name, kind=kind, values=size,
        relative_l2=_ratio(total, norm_a),
        cosine=float((a * b).sum()) / (norm_a * norm_b) if norm_a and norm_b else 0.0,
        largest=_ratio(float(off.max()), float(a.abs().max())),
        max_error=float(off.max()) * top,
        beyond=tuple(_count(relative > threshold, kind) for threshold in DECADES), **_slices(a, error, shape),
    )  # fmt: skip


def _filled(eager: torch.Tensor, rounding: float) -> torch.Tensor | None:
    """Return where a mask put its constant, such as -1e4 or the smallest float; None where it put none.

    Those are the values that are at least LEAST_FILL, and at least FILL_TO_OTHERS times as large as all others, if
    half of them or more stand near another of them: no farther than a constant takes them to which the others are
    added, in a dtype of relative `rounding`. Beside such values nothing that the others are would show.
    """
    if eager.is_complex() or not eager.numel():
        return None
    sizes = eager.abs().where(torch.isfinite(eager), 0.0)
    largest, least = float(sizes.max()), LEAST_FILL
    while least <= largest:
        filled = sizes >= least
        others, smallest = float(sizes.where(~filled, 0.0).max()), float(sizes[filled].min())
        if 0.0 < FILL_TO_OTHERS * others <= smallest:
            near = _near(eager[filled], 2.0 * others + 2.0 * rounding * largest)
            return filled if near >= 0.5 else None
        least = FILL_TO_OTHERS * smallest  # a gap that wide begins below, and ends above
    return None


def _near(values: torch.Tensor, distance: float) -> float:
    """Return the share of values that have another one within a distance."""
    gaps = values.sort().values.diff() <= distance
    no = gaps.new_zeros(1)
    return float((torch.cat([no, gaps]) | torch.cat([gaps, no])).double().mean())


def _worse(whole: LeafComparison, rest: LeafComparison) -> LeafComparison:
    """Return the larger errors of a leaf as a whole and without the constant of a mask."""
    sliced = max(whole, rest, key=lambda one: one.worst_slice)
    small = max(whole, rest, key=lambda one: one.small_slice)
    return msgspec.structs.replace(
        max(whole, rest, key=lambda one: one.relative_l2),
        cosine=min(whole.cosine, rest.cosine), worst_slice=sliced.worst_slice, slice_at=sliced.slice_at,
        small_slice=small.small_slice, small_at=small.small_at,
        largest=max(whole.largest, rest.largest), max_error=max(whole.max_error, rest.max_error),
        beyond=tuple(map(max, whole.beyond, rest.beyond)),
    )  # fmt: skip


def _count(wrong: torch.Tensor, kind: str) -> int:
    return int((wrong.any(-1) if kind == COMPLEX else wrong).sum())


def _ratio(error: float, norm: float) -> float:
    if error == 0.0:
        return 0.0
    return error / norm if norm else math.inf


def _slices(eager: torch.Tensor, error: torch.Tensor, shape: torch.Size) -> dict[str, Any]:
    """Return the fields of a leaf for its worst slices.

    `worst_slice` is along the first axis that is longer than 1, relative to the norm of eager's slice, or to the root
    mean square of the norms of all slices where that is larger: a slice that is nearly zero beside the others may be
    rounded as coarsely as they are. One unrelated row of 64 is off by about 1.4 here, and by 0.18 in the relative L2 of
    the whole, which bfloat16's tolerance of 0.25 lets pass. `small_slice` is along all axes, and takes SMALL of that
    root mean square: scores beside boxes in pixels.
    """
    axes = [axis for axis, length in enumerate(shape) if length > 1]
    if axes and axes[0] + 1 == len(shape):
        return {}
    found: dict[str, Any] = {}
    for axis in axes:
        beside = [dim for dim in range(eager.ndim) if dim != axis]
        norms, errors = (torch.linalg.vector_norm(values, dim=beside) for values in (eager, error))
        average = float(norms.norm()) / math.sqrt(shape[axis])
        figures = [("small_slice", "small_at", SMALL * average)]
        if axis == axes[0]:
            figures.append(("worst_slice", "slice_at", average))
        for figure, at, least in figures:
            relative = torch.where(errors == 0.0, 0.0, errors / norms.clamp(min=least))
            worst = int(relative.argmax())
            if float(relative[worst]) > found.get(figure, -1.0):
                found |= {figure: float(relative[worst]), at: f"[{', '.join([':'] * axis + [str(worst)])}]"}
    return found
