"""From a module to an exported program, as settings want it."""

from __future__ import annotations

import contextlib
import functools
import re
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..common.errors import TrtgateError, explaining
from ..common.explanations import Explanation
from ..suite import precisions, pytree_classes
from ..suite.model_inputs import CONSTANTS, Inputs
from ..suite.settings import Settings
from ..timing import run_state
from . import dynamic_tracing, export_refusals, given_dynamic_shapes
from .dynamic_inputs import DynamicInputs

FRONTENDS = ("dynamo",)
"""Those that compile an exported program."""
UNKNOWN = r"Found <class '(.*?)'> in output, which is not a known type"
"""What torch.export says of an output that it can't take apart."""


@explaining(Explanation.EXPORT_REFUSED)
def export(
    module: torch.nn.Module, inputs: Inputs, settings: Settings, dynamic: DynamicInputs | None = None
) -> torch.export.ExportedProgram:
    """Export a module with its example inputs, or, where shapes are dynamic, with those at the optimum.

    A module that nvidia-modelopt quantized is exported with its quantizers as operators, which only the non-strict way
    can. Dataclasses and mappings in its output that nobody registered are, as those in its inputs are.
    Raises TrtgateError, which says what to do, for what torch.export refuses or would take for a constant: with its
    name for a dimension that can't vary as is asked, an input, and an output of other classes.
    """
    example = inputs if dynamic is None else dynamic.example
    if dynamic is not None:
        given_dynamic_shapes.check(module, dynamic)
    export_refusals.check_inputs(example)
    export_refusals.check_aliases(module, example)
    try:
        program = _exported(module, example, settings, dynamic)
    except (TrtgateError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        raise TrtgateError(export_refusals.explained(error, module, example)) from error
    export_refusals.check_program(program)
    return program


def _exported(
    module: torch.nn.Module, example: Inputs, settings: Settings, dynamic: DynamicInputs | None
) -> torch.export.ExportedProgram:
    quantized = settings.precision in precisions.QUANTIZED
    shapes = None if dynamic is None else dynamic_tracing.dynamic_shapes(dynamic)
    strict = {"strict": False} if quantized else {}
    call = functools.partial(torch.export.export, module, dynamic_shapes=shapes, **strict)
    with (
        _as_operators() if quantized else contextlib.nullcontext(),
        dynamic_tracing.readable_refusals(dynamic, "torch.export"),
    ):
        try:
            return call(example.args, example.kwargs)
        except RuntimeError as error:
            unknown = re.search(UNKNOWN, str(error))
            if unknown is None:
                raise
            _register_output_of(module, example, unknown[1])
            return call(example.args, example.kwargs)


def register_output(output: Any) -> None:
    """Register the classes of what a module returned.

    Raises TrtgateError for a class that can't be made anew of its parts, RecursionError for what is inside itself.
    """
    pytree_classes.register_all(output, CONSTANTS, "its output holds")


def _register_output_of(module: torch.nn.Module, example: Inputs, unknown: str) -> None:
    """Register the classes of what a module returns. Raises TrtgateError, naming the class, where that can't be."""
    known = len(pytree.SUPPORTED_NODES)
    with run_state.unchanged((module,), example), torch.no_grad():
        output = example.call(module)
    register_output(output)
    if len(pytree.SUPPORTED_NODES) == known:
        raise TrtgateError(
            f"its output holds a {unknown}, which torch.export takes only if it is registered with "
            "torch.utils._pytree.register_pytree_node; or return tensors, tuples, dicts or dataclasses"
        )


def _as_operators() -> contextlib.AbstractContextManager[None]:
    from . import quantization

    return quantization.exporting()
