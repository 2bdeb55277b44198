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


def others(model: Model, example: tuple[torch.Tensor, ...], *, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield inputs of other values than the example's that a model may take, those first that differ the most.

    The model's own samples, where it has them. Else each tensor has the example's values in another order, so that ids
    and masks remain valid; then floating-point tensors that are no masks alone; then all inputs have their rows in
    another order; then floating-point values are a quarter smaller. A tensor of one value has another between half and
    all of it. Raises TrtgateError as `of`.
    """
    if model.samples is not None:
        yield from _own(model, example, 1, seed)
    generator = torch.Generator().manual_seed(seed)
    yield tuple(_reordered(value, generator) for value in example)
    yield tuple(value.clone() if _is_mask(value) else _reordered(value, generator) for value in example)
    rows = {len(value) for value in example if value.ndim}
    if len(rows) == 1:
        yield tuple(value.roll(1, 0) if value.ndim else value.clone() for value in example)
    yield tuple(value * 0.75 if value.is_floating_point() else value.clone() for value in example)


def _reordered(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a tensor's values in another order; where that changes nothing, floating-point values of its size."""
    if value.layout is not torch.strided:
        return value.clone()
    flat = value.flatten()
    places = torch.randperm(flat.numel(), generator=generator, device="cpu").to(value.device)
    for found in (flat[places], flat.roll(1)):
        if not torch.equal(found, flat):
            return found.view(value.shape)
    if not (value.is_floating_point() or value.is_complex()):
        return value.clone()
    shares = torch.rand(flat.shape, generator=generator, device="cpu").to(value.device)
    zero = not bool(value.any())
    return (shares if zero else flat * (1 + shares) / 2).to(value.dtype).view(value.shape)


def _is_mask(value: torch.Tensor) -> bool:
    """Whether it can't be told from a mask: it has integers, infinite values, or two values."""
    if not value.is_floating_point() or value.layout is not torch.strided:
        return not value.is_complex()
    return not bool(torch.isfinite(value).all()) or (value.numel() > 2 and len(value.unique()) <= 2)


def described(model: Model) -> str:
    """Return in a few words where inputs come from."""
    return "the model's own samples" if model.samples is not None else "seeded normal noise"


def _drawn(example: tuple[torch.Tensor, ...], count: int, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield tuple(
            torch.randn(value.shape, generator=generator, device="cpu").to(value)
            if value.is_floating_point()
            else value
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
