"""Other weights in the engines of a compiled module, without building them anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..suite import precisions
from . import engine_sizes, exporting
from .dynamic_inputs import DynamicInputs
from .releases import imported, without_modelopt

if TYPE_CHECKING:
    import torch

    from ..suite.model_inputs import Inputs
    from ..suite.settings import Settings

REFITTABLE = "dynamo"
"""The frontend whose modules upstream's function takes."""


def unable(settings: Settings) -> str:
    """Return why what settings make can't be refitted; empty where its engines are made to be.

    Engines are not, from 2.11 to 2.14, unless `immutable_weights` is off.
    """
    if settings.frontend != REFITTABLE:
        return f"not refittable: {settings.frontend} makes no engines that can be"
    if settings.options.get("immutable_weights", True):
        return "not refittable: its engines are built with immutable_weights"
    if settings.precision in precisions.QUANTIZED:
        return "not refittable: its weights are quantized"
    return ""


def refitted(
    compiled: Any, module: torch.nn.Module, inputs: Inputs, settings: Settings, dynamic: DynamicInputs | None = None
) -> torch.nn.Module:
    """Return a copy of a compiled module whose engines have the weights of a module of the same graph.

    Raises whatever upstream raises, and RuntimeError where it gives a module without engines back.
    """
    torch_tensorrt = imported()
    program = exporting.export(module, inputs, settings, dynamic)
    with without_modelopt():
        found: torch.nn.Module = torch_tensorrt.dynamo.refit_module_weights(compiled, program)
    if engine_sizes.of(compiled) and not engine_sizes.of(found):
        raise RuntimeError("refit_module_weights returned a module without engines")
    return found
