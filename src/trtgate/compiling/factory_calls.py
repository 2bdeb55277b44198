"""Calls of what a user wrote: a model's factory, and its function of inputs, at sizes of its dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..common.errors import TrtgateError, one_line
from ..suite import model_inputs
from ..suite.cases import Case, Model
from ..suite.dimensions import Sizes
from ..suite.model_inputs import Inputs
from ..timing import run_state
from ..torch_trt import dynamic_inputs
from ..torch_trt.dynamic_inputs import DynamicInputs
from . import made_elsewhere, process_state


def made(case: Case) -> tuple[torch.nn.Module, Inputs]:
    """Return a case's module and inputs as its model makes them.

    Inputs have the shape that is measured. The module is made for the optimum where dimensions are dynamic, so that all
    shapes of one compiled module are of the same. Raises TrtgateError when a function raises, or returns another thing.
    """
    model, settings = case.model, case.settings
    name = _name(model)
    with made_elsewhere.watching(case) as watched:
        value = _called("factory", model.factory, {} if model.inputs is not None else settings.optimum, name)
    value = made_elsewhere.as_modules(value, case, watched)
    if model.inputs is not None:
        module = value
        if not isinstance(module, torch.nn.Module):
            raise TrtgateError(
                f"{name}: with inputs= its factory returns the module alone, not {type(module).__name__}"
            )
        inputs = _inputs_at(case, settings.sizes)
        model_inputs.check_call(module, inputs, name)
        return module, inputs
    module, inputs = model_inputs.of_factory(value, name)
    if settings.optimum != settings.sizes:
        inputs = _inputs_at(case, settings.sizes)
    return module, inputs


def dynamic(case: Case, moved: Callable[[torch.Tensor], torch.Tensor]) -> DynamicInputs | None:
    """Return how the inputs of a case vary, and those to compile with, `moved`; None where nothing is dynamic.

    Random numbers go on afterwards where they were. Raises TrtgateError as `made` and as `dynamic_inputs.find`.
    """
    if not case.settings.dynamic:
        return None
    given, name = case.model.dynamic_shapes, _name(case.model)
    if callable(given):
        given = _called("dynamic_shapes=", given, {}, name)
    try:
        with run_state.seeded():
            found = dynamic_inputs.find(
                lambda sizes: _inputs_at(case, sizes), case.settings.optimum, case.settings.dynamic,
                given, case.settings.sizes,
            )  # fmt: skip
    except TrtgateError as error:
        raise TrtgateError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error
    return found._replace(example=found.example.cloned().mapped(moved))


def _inputs_at(case: Case, sizes: Sizes) -> Inputs:
    return made_at(case, sizes)[1]


def made_at(case: Case, sizes: Sizes) -> tuple[torch.nn.Module | None, Inputs]:
    """Return what a model's function of the dimensions makes at sizes: inputs, and the module where it is a factory.

    Raises TrtgateError as `made`.
    """
    model, name = case.model, _name(case.model)
    if model.inputs is not None:
        return None, model_inputs.of_value(_called("inputs=", model.inputs, sizes, name), name)
    value = made_elsewhere.as_modules(_called("factory", model.factory, sizes, name), case)
    return model_inputs.of_factory(value, name)


def _called(what: str, function: Callable[..., Any], sizes: Sizes, name: str) -> Any:
    try:
        with process_state.of_a_factory():
            return function(**sizes)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except TrtgateError as error:
        raise TrtgateError(f"{name}: {error}") from error
    except BaseException as error:  # pytest.skip, importorskip and xfail are no Exceptions: a case must not hide so
        at = f" at {' '.join(f'{one}={size}' for one, size in sizes.items())}" if set(sizes) - {"batch"} else ""
        raise TrtgateError(f"{name}: its {what} raised {one_line(error)}{at}") from error


def _name(model: Model) -> str:
    return f"model {model.name!r}"
