"""From a module to an exported program, as settings want it."""

from __future__ import annotations

import contextlib

import torch

from ..suite import precisions
from ..suite.model_inputs import Inputs
from ..suite.settings import Settings
from . import dynamic_tracing
from .dynamic_inputs import DynamicInputs


def export(
    module: torch.nn.Module, inputs: Inputs, settings: Settings, dynamic: DynamicInputs | None = None
) -> torch.export.ExportedProgram:
    """Export a module with its example inputs, or, where shapes are dynamic, with those at the optimum.

    A module that nvidia-modelopt quantized is exported with its quantizers as operators, which only the non-strict way
    can. Raises TrtgateError, with its name, for a dimension that can't vary as is asked; whatever torch.export raises.
    """
    quantized = settings.precision in precisions.QUANTIZED
    example, shapes = (inputs, None) if dynamic is None else (dynamic.example, dynamic_tracing.dynamic_shapes(dynamic))
    strict = {"strict": False} if quantized else {}
    with (
        _as_operators() if quantized else contextlib.nullcontext(),
        dynamic_tracing.readable_refusals(dynamic, "torch.export"),
    ):
        return torch.export.export(module, example.args, example.kwargs, dynamic_shapes=shapes, **strict)


def _as_operators() -> contextlib.AbstractContextManager[None]:
    from . import quantization

    return quantization.exporting()
