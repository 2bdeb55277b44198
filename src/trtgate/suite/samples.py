"""Inputs beside a factory's example: what quantization is calibrated on, and what accuracy is asked of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from ..common.errors import TrtgateError, one_line
from .cases import Model

CALIBRATION, ACCURACY = 1, 2
"""Seeds, so that what is calibrated on and what is asked are drawn apart."""


def of(model: Model, example: tuple[torch.Tensor, ...], count: int, *, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield `count` inputs with the shapes, dtypes and device of the example.

    Of a model's own `samples` where it has them, as many together as the example's batch; with another seed, others of
    them. Else floating-point values are drawn from the normal distribution; integers are the example's. Raises
    TrtgateError for samples of other shapes, or too few.
    """
    if model.samples is None:
        yield from _drawn(example, count, seed)
    else:
        yield from _own(model, example, count, seed)


def described(model: Model) -> str:
    """Return in a few words where inputs come from."""
    return "the model's own samples" if model.samples is not None else "seeded normal noise"


def _drawn(example: tuple[torch.Tensor, ...], count: int, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield tuple(
            torch.randn(value.shape, generator=generator).to(value) if value.is_floating_point() else value
            for value in example
        )


def _own(model: Model, example: tuple[torch.Tensor, ...], count: int, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    batch = example[0].shape[0] if example[0].ndim and model.takes_batch else 1
    assert model.samples is not None
    try:
        given = [_as_tuple(inputs) for inputs in itertools.islice(model.samples(count * batch, seed), count * batch)]
        if len(given) < count * batch:
            raise TrtgateError(f"model {model.name!r}: {count * batch} samples were asked for, and {len(given)} came")
        for number in range(count):
            rows = given[number * batch : (number + 1) * batch]
            joined = [torch.cat(parts).to(like) for parts, like in zip(zip(*rows, strict=True), example, strict=True)]
            if [value.shape for value in joined] != [value.shape for value in example]:
                shapes = ", ".join(str(tuple(value.shape)) for value in joined)
                raise TrtgateError(f"model {model.name!r}: its samples have shapes {shapes}, its example another")
            yield tuple(joined)
    except TrtgateError:
        raise
    except Exception as error:
        raise TrtgateError(f"model {model.name!r}: its samples raised {one_line(error)}") from error


def _as_tuple(inputs: Any) -> tuple[torch.Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)
