"""From a module to an exported program, as settings want it."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from ..suite import precisions
from ..suite.settings import Settings


def export(module: torch.nn.Module, inputs: tuple[Any, ...], settings: Settings) -> torch.export.ExportedProgram:
    """Export a module with its example inputs.

    A dynamic batch is traced at its optimal size, since torch.export takes a size of 1 for a constant. A module that
    nvidia-modelopt quantized is exported with its quantizers as operators, which only the non-strict way can.
    """
    quantized = settings.precision in precisions.QUANTIZED
    dimensions = None
    if settings.dynamic_batch is not None:
        least, optimal, largest = settings.dynamic_batch
        batch = torch.export.Dim("batch", min=least, max=largest)
        dimensions = tuple({0: batch} for _ in inputs)
        inputs = tuple(resized(value, max(2, optimal)) for value in inputs)
    with _as_operators() if quantized else contextlib.nullcontext():
        if not quantized:
            return torch.export.export(module, inputs, dynamic_shapes=dimensions)
        return torch.export.export(module, inputs, dynamic_shapes=dimensions, strict=False)


def first(inputs: tuple[Any, ...], settings: Settings) -> tuple[Any, ...]:
    """Return what torch.compile is first called with: where the batch is dynamic, its optimal size, marked so."""
    if settings.dynamic_batch is None:
        return inputs
    least, optimal, largest = settings.dynamic_batch
    marked = tuple(resized(value, max(2, optimal)) for value in inputs)
    for value in marked:
        torch._dynamo.mark_dynamic(value, 0, min=least, max=largest)
    return marked


def resized(value: torch.Tensor, batch: int) -> torch.Tensor:
    """Return a tensor with another leading dimension, its rows repeated as need be."""
    repeats = -(-batch // value.shape[0])
    return value.repeat(repeats, *(1,) * (value.ndim - 1))[:batch]


def _as_operators() -> contextlib.AbstractContextManager[None]:
    from . import quantization

    return quantization.exporting()
