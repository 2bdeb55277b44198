"""From a module to an exported program, as settings want it."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from ..suite import precisions
from ..suite.model_inputs import Inputs
from ..suite.settings import Settings
from .compile_options import is_batched


def export(module: torch.nn.Module, inputs: Inputs, settings: Settings) -> torch.export.ExportedProgram:
    """Export a module with its example inputs.

    A dynamic batch is traced at its optimal size, since torch.export takes a size of 1 for a constant. A module that
    nvidia-modelopt quantized is exported with its quantizers as operators, which only the non-strict way can.
    """
    quantized = settings.precision in precisions.QUANTIZED
    shapes: Any = None
    if settings.dynamic_batch is not None:
        least, _, largest = settings.dynamic_batch
        batch = torch.export.Dim("batch", min=least, max=largest)
        inputs, dynamic = at_optimum(inputs, settings)
        shapes = torch.export.ShapesCollection()
        for value in dynamic:
            shapes[value] = {0: batch}
    with _as_operators() if quantized else contextlib.nullcontext():
        if not quantized:
            return torch.export.export(module, inputs.args, inputs.kwargs, dynamic_shapes=shapes)
        return torch.export.export(module, inputs.args, inputs.kwargs, dynamic_shapes=shapes, strict=False)


def first(inputs: Inputs, settings: Settings) -> Inputs:
    """Return what torch.compile is first called with: where the batch is dynamic, its optimal size, marked so."""
    if settings.dynamic_batch is None:
        return inputs
    least, _, largest = settings.dynamic_batch
    marked, dynamic = at_optimum(inputs, settings)
    for value in dynamic:
        torch._dynamo.mark_dynamic(value, 0, min=least, max=largest)
    return marked


def at_optimum(inputs: Inputs, settings: Settings) -> tuple[Inputs, list[torch.Tensor]]:
    """Return inputs of the optimal batch of a dynamic one, of 2 at least, and those tensors of them that have it."""
    assert settings.dynamic_batch is not None
    optimum = max(2, settings.dynamic_batch[1])
    dynamic: list[torch.Tensor] = []

    def at_its_optimum(value: torch.Tensor) -> torch.Tensor:
        if not is_batched(value, settings):
            return value
        dynamic.append(resized(value, optimum))
        return dynamic[-1]

    return inputs.mapped(at_its_optimum), dynamic


def resized(value: torch.Tensor, batch: int) -> torch.Tensor:
    """Return a tensor with another leading dimension, its rows repeated as need be."""
    repeats = -(-batch // value.shape[0])
    return value.repeat(repeats, *(1,) * (value.ndim - 1))[:batch]


def _as_operators() -> contextlib.AbstractContextManager[None]:
    from . import quantization

    return quantization.exporting()
