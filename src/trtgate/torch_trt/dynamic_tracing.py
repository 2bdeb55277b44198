"""Dynamic inputs as torch.export and torch.compile take them, and what they refuse of them, in one line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..common.errors import TrtgateError, one_line
from ..suite.dimensions import TRACED_AT_LEAST
from ..suite.model_inputs import Inputs
from . import given_dynamic_shapes
from .dynamic_inputs import DynamicInputs, Term

INSTEAD = "or use shapes=, which compiles for each"


def dynamic_shapes(dynamic: DynamicInputs) -> Any:
    """Return torch.export's `dynamic_shapes`: the model's own, or a `Dim` for each dimension and what depends on it."""
    if dynamic.dynamic_shapes is not None:
        return dynamic.dynamic_shapes
    dims = {name: torch.export.Dim(name, min=least, max=largest) for name, (least, largest) in dynamic.bounds.items()}
    found = torch.export.ShapesCollection()
    for value, terms in zip(dynamic.example.tensors, dynamic.terms, strict=True):
        if terms:
            found[value] = {axis: _derived(dims[term.dimension], term) for axis, term in terms.items()}
    return found


def _derived(dim: Any, term: Term) -> Any:
    size = dim if term.times == 1 else term.times * dim
    return size + term.plus if term.plus else size


def first_call(compiled: Callable[..., Any], dynamic: DynamicInputs, inputs: Inputs) -> None:
    """Call what torch.compile returned at the optimum, its dynamic axes marked, and then with inputs of another shape.

    Raises TrtgateError where it would have to compile again for these, or can't take all sizes, and for what the
    model's own `dynamic_shapes` leaves out.
    """
    given_dynamic_shapes.check(getattr(compiled, "_orig_mod", compiled), dynamic)
    _check_no_constant(inputs, dynamic)
    for number, value in enumerate(dynamic.example.tensors):
        for axis, (least, largest) in dynamic.bounds_of(number).items():
            torch._dynamo.mark_dynamic(value, axis, min=max(TRACED_AT_LEAST, least), max=largest)
    with readable_refusals(dynamic, "torch.compile"):
        dynamic.example.call(compiled)
    try:
        with torch._dynamo.config.patch(error_on_recompile=True):
            inputs.call(compiled)
    except torch._dynamo.exc.RecompileError as error:
        raise TrtgateError(
            f"torch.compile would compile again for inputs of shape {inputs.shapes} ({one_line(error)}): "
            f"change what the model does for that size, {INSTEAD}"
        ) from error


def _check_no_constant(inputs: Inputs, dynamic: DynamicInputs) -> None:
    for number, value in enumerate(inputs.tensors):
        for axis in dynamic.bounds_of(number):
            if value.shape[axis] < TRACED_AT_LEAST:
                raise TrtgateError(
                    f"torch.compile takes a size of {value.shape[axis]} for a constant, and compiles for it alone: "
                    f"measure from {TRACED_AT_LEAST} on, {INSTEAD}"
                )


@contextlib.contextmanager
def readable_refusals(dynamic: DynamicInputs | None, what: str) -> Iterator[None]:
    """Within: what torch says of a dimension that can't vary is a TrtgateError of one line, which says what to do."""
    try:
        yield
    except Exception as error:
        said = str(error)
        if dynamic is None or "Constraints violated" not in said:
            raise
        raise TrtgateError(_refusal(said, dynamic, what)) from error


def _refusal(said: str, dynamic: DynamicInputs, what: str) -> str:
    named = re.findall(r"Constraints violated \((.*?)\)!", said)
    names = " and ".join(name for name in dynamic.bounds if name in named[:1]) or " and ".join(dynamic.bounds)
    names = names or "its dimensions"
    constant = re.search(r"specialized it to be a constant \((\d+)\)", said)
    if constant:
        return (
            f"{what} can't let {names} vary: the model is made for the size {constant[1]} alone; change what fixes it "
            f"(TORCH_LOGS=+dynamic says where), {INSTEAD}"
        )
    guard = re.search(r"satisfy the generated guard (.*)", said)
    suggested = re.search(r"Suggested fixes:\s*\n\s*(.*)", said)
    needs = f": the model needs {guard[1].strip().rstrip('.')}" if guard else ""
    fix = f"; torch suggests {suggested[1].strip()}" if suggested else ""
    bounds = ", ".join(f"{name} {least} to {largest}" for name, (least, largest) in dynamic.bounds.items())
    return f"{what} can't let {names} vary over {bounds}{needs}{fix}; take other bounds, say dynamic_shapes=, {INSTEAD}"
