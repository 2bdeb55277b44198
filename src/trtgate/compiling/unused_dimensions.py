"""Dimensions that change nothing of what a model makes: cases that differ in their sizes alone would be the same."""

from __future__ import annotations

from typing import Any

import torch

from ..common.errors import TrtgateError
from ..suite.cases import Case
from ..suite.dimensions import BATCH
from ..suite.model_inputs import Inputs
from ..suite.settings import OWN
from ..timing import kept_values, run_state
from . import factory_calls

PLAIN = (bool, int, float, str, tuple)
"""Classes of attributes that tell one module from another."""


def check(case: Case, module: torch.nn.Module, inputs: Inputs, name: str) -> None:
    """Raise TrtgateError, which begins with `name`, for a dimension at whose other sizes the same is made.

    Of a batch the shapes of the inputs must change; of another dimension anything of the inputs or of the module.
    A function that raises at other sizes is believed. Random numbers go on afterwards where they were.
    """
    for dimension, size in case.settings.sizes.items():
        if not _is_asked(case, dimension, inputs):
            continue
        same = _sizes_of_the_same(case, dimension, module, inputs)
        if same and dimension == BATCH:
            raise TrtgateError(
                f"{name}: batch {size} was asked for, and its factory gave inputs of shape {inputs.shapes}, and the "
                f"same at another batch: let it make them of `{BATCH}`"
            )
        if same:
            at = " and ".join(map(str, sorted((size, same[0]))))
            raise TrtgateError(
                f"{name}: dimension {dimension!r} changes no input: they are the same at {dimension} {at}; take it out "
                "of shapes, or let the inputs depend on it"
            )


def _is_asked(case: Case, dimension: str, inputs: Inputs) -> bool:
    """Whether making inputs again is worth it: a factory makes the module too, and a part need not have all.

    Of a factory that is asked for a batch that inputs may lead with by chance, and for a size that none of them has.
    """
    model, batch = case.model, case.settings.batch
    if dimension in case.settings.dynamic:
        return False
    if dimension == BATCH and not any(batch in value.shape for value in inputs.tensors):
        return True  # it may be part of a size, as that of all tokens of a batch
    if model.whole != model.name:
        return False
    if model.inputs is not None:
        return True
    if dimension != BATCH:
        seen = any(case.settings.shape[dimension] in value.shape for value in inputs.tensors)
        return not seen and case.settings.frontend != OWN
    if batch == 1:
        return False
    leading = any(value.ndim > 0 and value.shape[0] == batch for value in inputs.tensors)
    several = {one.batch for one in model.settings} - {batch}  # at which inputs without it are refused
    return not leading or not (several or case.settings.frontend == OWN)


def _sizes_of_the_same(case: Case, dimension: str, module: torch.nn.Module, inputs: Inputs) -> list[int]:
    """Return other sizes of a dimension at which the same is made; none where something else is made at one of them.

    Some are larger and some are smaller: a model may cut what is longer than it takes.
    """
    sizes = case.settings.sizes
    size = sizes[dimension]
    declared = [one.sizes.get(dimension, size) for one in case.model.settings]
    found = []
    for other in dict.fromkeys([*declared, size + 1, 2 * size, size - 1, size // 2]):
        if other in (0, size):
            continue
        try:
            with run_state.seeded():
                there = factory_calls.made_at(case, {**sizes, dimension: other})
            if _differ((module, inputs), there, shapes_alone=True):
                return []
            if dimension != BATCH:
                with run_state.seeded():
                    here = factory_calls.made_at(case, sizes)
                if _differ(here, there):
                    return []
        except TrtgateError:
            continue
        found.append(other)
    return found


Made = tuple[torch.nn.Module | None, Inputs]


def _differ(here: Made, there: Made, *, shapes_alone: bool = False) -> bool:
    """Whether two makings differ: in a shape, a module, a number or text, and, unless `shapes_alone`, in values."""
    both = list(zip(here[1].tensors, there[1].tensors, strict=False))
    if len(here[1].tensors) != len(there[1].tensors) or any(one.shape != other.shape for one, other in both):
        return True
    if here[1].constants != there[1].constants:
        return True
    if None not in (here[0], there[0]) and _described(here[0]) != _described(there[0]):
        return True
    return not shapes_alone and not all(_equal(*pair) for pair in both)


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return not (kept_values.is_plain(one) and kept_values.is_plain(other)) or kept_values.same(one, other)


def _described(module: Any) -> list[Any]:
    """Return what tells a module from one that was made of other sizes: its parts, their numbers, its shapes."""
    parts = [
        (path, type(one), {name: value for name, value in vars(one).items() if isinstance(value, PLAIN)})
        for path, one in module.named_modules()
    ]
    return [parts, [(path, value.shape) for path, value in module.state_dict().items()]]
