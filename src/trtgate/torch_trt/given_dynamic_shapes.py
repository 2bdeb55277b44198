"""Whether `dynamic_shapes=`, as a model gives it to torch.export, lets every axis vary that its inputs vary in."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..common.errors import TrtgateError
from ..suite.dimensions import TRACED_AT_LEAST
from .dynamic_inputs import DynamicInputs

Bounds = tuple[float, float]
WRITE = (
    'write what torch.export takes: {"x": {0: torch.export.Dim("seq", min=16, max=512)}}, by the arguments of forward'
)


def check(module: Any, dynamic: DynamicInputs) -> None:
    """Raise TrtgateError, naming axis and input, for an axis that stays constant or has other bounds than its sizes.

    torch.export makes a constant of an axis that is left out, and torch.compile does not read `dynamic_shapes`. What
    is written in another way than by arguments, as a ShapesCollection, is not looked into.
    """
    given = dynamic.dynamic_shapes
    if given is None or hasattr(given, "dynamic_shapes"):
        return
    if not isinstance(given, Mapping | tuple | list):
        raise TrtgateError(f"dynamic_shapes={given!r}: {WRITE}")
    try:
        arguments = inspect.signature(module.forward).bind(*dynamic.example.args, **dynamic.example.kwargs).arguments
    except (AttributeError, TypeError, ValueError):
        return
    whole = given if isinstance(given, Mapping) else dict(zip(arguments, given, strict=False))
    said = {id(value): (path, axes) for path, value, axes in _tensors(dict(arguments), whole, "")}
    for number, value in enumerate(dynamic.example.tensors):
        path, axes = said.get(id(value), ("", None))
        if axes is None:
            continue
        for axis, (least, largest) in dynamic.bounds_of(number).items():
            _check_axis(path, axis, axes.get(axis), (least, largest))


def _check_axis(path: str, axis: int, given: Bounds | None, sizes: Bounds) -> None:
    where = f"axis {axis} of input {path}, which the inputs make {sizes[0]} to {sizes[1]}"
    if given is None:
        raise TrtgateError(
            f"dynamic_shapes= leaves out {where}: torch.export would compile it for one size; add it, or let the "
            "inputs keep it at one size"
        )
    if max(sizes[0], TRACED_AT_LEAST) < given[0] or sizes[1] > given[1]:
        raise TrtgateError(f"dynamic_shapes= lets {given[0]} to {given[1]} be {where}: give both the same bounds")


def _tensors(value: Any, given: Any, path: str) -> Iterator[tuple[str, torch.Tensor, dict[int, Bounds] | None]]:
    """Yield path, tensor and dynamic axes of all tensors; None for axes that are written in a way not known here."""
    if isinstance(value, torch.Tensor):
        yield path, value, _axes(given, path)
        return
    cls = type(value)
    if cls not in pytree.SUPPORTED_NODES:
        return
    children = pytree.SUPPORTED_NODES[cls].flatten_fn(value)[0]
    if isinstance(value, Mapping):
        names, parts = list(value), [_of(given, key) for key in value]
    else:
        names, parts = list(range(len(children))), [_of(given, at) for at in range(len(children))]
    for name, child, part in zip(names, children, parts, strict=True):
        yield from _tensors(child, part, f"{path}[{name!r}]" if path else str(name))


UNKNOWN = object()
"""Stands for what is written in a way not known here."""


def _of(given: Any, key: Any) -> Any:
    """Return what is given for a part of a value; None, as nothing may vary, where the whole is None."""
    if given is None or given is UNKNOWN:
        return given
    if isinstance(given, Mapping):
        return UNKNOWN if isinstance(key, int) else given.get(key)
    if isinstance(given, tuple | list) and isinstance(key, int):
        return given[key] if key < len(given) else None
    return UNKNOWN


def _axes(given: Any, path: str) -> dict[int, Bounds] | None:
    if given is None:
        return {}
    if given is UNKNOWN:
        return None
    if not isinstance(given, Mapping | tuple | list):
        raise TrtgateError(f"dynamic_shapes= has {given!r} for the input {path}: {WRITE}")
    by_axis = dict(given) if isinstance(given, Mapping) else dict(enumerate(given))
    return {axis: bounds for axis, one in by_axis.items() if (bounds := _bounds(one)) is not None}


def _bounds(dim: Any) -> Bounds | None:
    """Return the least and largest size that a Dim allows; None for what is constant."""
    if dim is None or isinstance(dim, int) or dim == torch.export.Dim.STATIC:
        return None
    least, largest = (getattr(dim, name, None) for name in ("min", "max"))
    return least if isinstance(least, int) else 0, largest if isinstance(largest, int) else float("inf")
