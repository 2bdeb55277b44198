"""Which axes of which inputs belong to a dynamic dimension, and what compilers are told of them.

That is found from shapes: inputs are made at several sizes of a dimension, and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from ..common.errors import TrtgateError
from ..suite.dimensions import TRACED_AT_LEAST, Ranges, Sizes, profiles_of
from ..suite.model_inputs import Inputs

Shape = tuple[int, ...]


class Term(NamedTuple):
    """A size as torch.export has it: `times` times a dimension, `plus` a constant."""

    dimension: str
    times: int = 1
    plus: int = 0


class ProfileShapes(NamedTuple):
    """The shapes of one tensor in one optimization profile."""

    least: Shape
    optimal: Shape
    largest: Shape


class DynamicInputs(NamedTuple):
    """How the inputs of one compiled module vary.

    `bounds` are the smallest and largest value of each `torch.export.Dim`; it has the name of a dimension, and is its
    size, or, where no axis has that size, the size of an axis.
    """

    example: Inputs
    """Those to compile with, at the optimum."""
    shapes: tuple[tuple[ProfileShapes, ...], ...]
    """Of each tensor of the example, in order; the shapes in each optimization profile. Empty: not dynamic."""
    terms: tuple[dict[int, Term], ...]
    """Of each tensor its dynamic axes. Empty where `dynamic_shapes` says it."""
    bounds: dict[str, tuple[int, int]]
    dynamic_shapes: Any = None
    """As torch.export takes it, where the model gives it."""

    def bounds_of(self, number: int) -> dict[int, tuple[int, int]]:
        """Return the dynamic axes of a tensor with their smallest and largest sizes, over all profiles."""
        profiles = self.shapes[number]
        least = [min(sizes) for sizes in zip(*(one.least for one in profiles), strict=True)]
        largest = [max(sizes) for sizes in zip(*(one.largest for one in profiles), strict=True)]
        return {axis: both for axis, both in enumerate(zip(least, largest, strict=True)) if both[0] != both[1]}


class _Axis(NamedTuple):
    tensor: int
    axis: int
    path: str


def find(
    inputs_at: Callable[[Sizes], Inputs], optimum: Mapping[str, int], dynamic: Mapping[str, Ranges],
    dynamic_shapes: Any = None, measured: Mapping[str, int] | None = None,
) -> DynamicInputs:  # fmt: skip
    """Return how inputs vary with the dynamic dimensions.

    `inputs_at` makes inputs at a size for each dimension. It is called at the optimum, at all bounds and
    optima of each dimension, and at the size that is measured. With `dynamic_shapes`, which a model gives, only shapes
    are looked at.
    Raises TrtgateError, naming input, axis and dimension, for what torch.export can't be told: an axis that depends on
    two dimensions or not linearly, another structure or other numbers at another size, and a dimension of no input.
    """
    traced = {**optimum, **{name: max(TRACED_AT_LEAST, optimum[name]) for name in dynamic}}
    made = _Maker(inputs_at, traced)
    if dynamic_shapes is not None:
        return _as_given(made, traced, dynamic, dynamic_shapes)
    values = {name: _values(ranges, traced[name], (measured or traced)[name]) for name, ranges in dynamic.items()}
    sizes = {name: _sizes_over(made, traced, name, values[name]) for name in dynamic}
    terms: list[dict[int, Term]] = [{} for _ in made.tensors]
    bounds = {}
    for name, by_axis in sizes.items():
        _check_one_dimension(name, by_axis, sizes)
        root, found = _expressed(name, values[name], by_axis)
        bounds[name] = (min(root), max(root))
        for axis, term in found.items():
            terms[axis.tensor][axis.axis] = term
    _check_traced(made, sizes, traced)
    shapes = tuple(
        tuple(_profile_shapes(number, shape, sizes, profile) for profile in profiles_of(dynamic))
        for number, shape in enumerate(made.shapes)
    )
    return DynamicInputs(made.example, shapes, tuple(terms), bounds)


class _Maker:
    """Makes inputs, and checks that they have the structure of those that are traced."""

    def __init__(self, inputs_at: Callable[[Sizes], Inputs], traced: Sizes) -> None:
        self._inputs_at = inputs_at
        self._traced = traced
        self.example = inputs_at(traced)
        self._structure = pytree.tree_structure(self.example)
        self._leaves = self.example.named()
        self.tensors = self.example.tensors
        self.paths = [path for path, leaf in self._leaves if isinstance(leaf, torch.Tensor)]
        self.shapes = [tuple(one.shape) for one in self.tensors]

    def shapes_at(self, sizes: Sizes) -> list[Shape]:
        """Return the shapes of the tensors at other sizes. Raises TrtgateError where anything else differs."""
        if sizes == self._traced:
            return self.shapes
        leaves, structure = pytree.tree_flatten(self._inputs_at(sizes))
        here, there = (" ".join(f"{name}={size}" for name, size in one.items()) for one in (self._traced, sizes))
        if structure != self._structure:
            raise TrtgateError(
                f"inputs at {there} are nested in another way than at {here}: one module can't take both"
            )
        for (path, one), other in zip(self._leaves, leaves, strict=True):
            _check_same_kind(path, one, other, here, there)
        return [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _check_same_kind(path: str, one: Any, other: Any, here: str, there: str) -> None:
    tensors = isinstance(one, torch.Tensor), isinstance(other, torch.Tensor)
    if tensors == (True, True):
        if one.ndim != other.ndim or one.dtype != other.dtype:
            raise TrtgateError(
                f"input {path} is {one.dtype} of {one.ndim} axes at {here}, and {other.dtype} of {other.ndim} at "
                f"{there}: one module can't take both"
            )
    elif any(tensors) or repr(one) != repr(other) or type(one) is not type(other):  # NaN is not equal to itself
        raise TrtgateError(
            f"input {path} is {one!r} at {here} and {other!r} at {there}: only sizes of tensors can be dynamic; let it "
            "be a tensor, or use shapes=, which compiles for each"
        )


def _values(ranges: Ranges, *others: int) -> list[int]:
    return sorted({*others, *(size for one in ranges for size in one)})


def _sizes_over(made: _Maker, traced: Sizes, name: str, values: Iterable[int]) -> dict[_Axis, dict[int, int]]:
    """Return the axes that change with a dimension, and the size that each has at each size of the dimension."""
    shapes = {value: made.shapes_at({**traced, name: value}) for value in values}
    found = {}
    for number, shape in enumerate(made.shapes):
        for axis in range(len(shape)):
            by_value = {value: all_shapes[number][axis] for value, all_shapes in shapes.items()}
            if len(set(by_value.values())) > 1:
                found[_Axis(number, axis, made.paths[number])] = by_value
    if not found:
        raise _unused(name, shapes)
    return found


def _unused(name: str, sizes: Iterable[int]) -> TrtgateError:
    return TrtgateError(
        f"dynamic dimension {name!r} changes no input: their shapes are the same at {name} "
        f"{' and '.join(map(str, sizes))}; take it out of dynamic, or let the inputs depend on it"
    )


def _check_one_dimension(name: str, by_axis: Mapping[_Axis, Any], sizes: Mapping[str, Mapping[_Axis, Any]]) -> None:
    for axis in by_axis:
        others = [other for other, axes in sizes.items() if other != name and axis in axes]
        if others:
            raise TrtgateError(
                f"axis {axis.axis} of input {axis.path} changes with {name} and with {others[0]}: torch.export takes "
                "one dimension an axis; give the axes apart and reshape in the module, or say dynamic_shapes="
            )


def _expressed(
    name: str, values: Sequence[int], by_axis: Mapping[_Axis, Mapping[int, int]]
) -> tuple[list[int], dict[_Axis, Term]]:
    """Return the sizes of a `Dim`, and each axis as a multiple of it plus a constant.

    It is the dimension itself where that can be, so that all sizes of an axis are known to be multiples of what they
    are made of; else what all axes agree on, or an axis that the others are multiples of.
    """
    vectors = {axis: [sizes[value] for value in values] for axis, sizes in by_axis.items()}
    own = list(values)
    distinct = [list(one) for one in dict.fromkeys(map(tuple, vectors.values()))]
    for root in (own, *distinct):
        found = {axis: _linear(root, vector) for axis, vector in vectors.items()}
        if all(found.values()):
            return root, {axis: Term(name, *term) for axis, term in found.items() if term}
    unlike = [pair for pair in vectors.items() if _linear(own, pair[1]) is None]
    axis, vector = unlike[0]  # else the dimension itself would have been found
    at = ", ".join(map(str, values))
    raise TrtgateError(
        f"axis {axis.axis} of input {axis.path} is {', '.join(map(str, vector))} at {name} {at}: torch.export takes a "
        "whole multiple of one size plus a constant; say dynamic_shapes=, or use shapes=, which compiles for each"
    )


def _linear(root: Sequence[int], vector: Sequence[int]) -> tuple[int, int] | None:
    """Return (times, plus) with vector = times * root + plus, both whole, times positive; or None."""
    (root_a, a), *_, (root_b, b) = zip(root, vector, strict=True)
    if root_a == root_b or (b - a) % (root_b - root_a):
        return None
    times = (b - a) // (root_b - root_a)
    plus = a - times * root_a
    fits = all(times * one + plus == other for one, other in zip(root, vector, strict=True))
    rises = times > 0 and all(one <= other for one, other in pairwise(vector))
    return (times, plus) if fits and rises else None


def _check_traced(made: _Maker, sizes: Mapping[str, Mapping[_Axis, Any]], traced: Sizes) -> None:
    for name, by_axis in sizes.items():
        for axis in by_axis:
            size = made.shapes[axis.tensor][axis.axis]
            if size < TRACED_AT_LEAST:
                raise TrtgateError(
                    f"axis {axis.axis} of input {axis.path} is {size} at {name}={traced[name]}, and torch.export takes "
                    f"a size of {size} for a constant: take a larger optimum of {name}"
                )


def _profile_shapes(
    number: int, shape: Shape, sizes: Mapping[str, Mapping[_Axis, Mapping[int, int]]], profile: Mapping[str, Any]
) -> ProfileShapes:
    found = []
    for which in range(3):
        at = list(shape)
        for name, by_axis in sizes.items():
            for axis, by_value in by_axis.items():
                if axis.tensor == number:
                    at[axis.axis] = by_value[profile[name][which]]
        found.append(tuple(at))
    return ProfileShapes(*found)


def _as_given(made: _Maker, traced: Sizes, dynamic: Mapping[str, Ranges], dynamic_shapes: Any) -> DynamicInputs:
    for name, ranges in dynamic.items():
        values = _values(ranges, traced[name])
        ends = [made.shapes_at({**traced, name: value}) for value in (values[0], values[-1])]
        if ends[0] == ends[1]:
            raise _unused(name, (values[0], values[-1]))
    by_profile = [
        [made.shapes_at({**traced, **{name: sizes[which] for name, sizes in profile.items()}}) for which in range(3)]
        for profile in profiles_of(dynamic)
    ]
    shapes = tuple(
        tuple(ProfileShapes(*(all_shapes[number] for all_shapes in corners)) for corners in by_profile)
        for number in range(len(made.tensors))
    )
    return DynamicInputs(made.example, shapes, (), {}, dynamic_shapes)
