"""Inputs beside a factory's example: what quantization is calibrated on, and what accuracy is asked of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..common.errors import TrtgateError, one_line
from . import dimensions, model_inputs
from .cases import Case, Model
from .model_inputs import Inputs

CALIBRATION, ACCURACY = 1, 2
"""Seeds, so that what is calibrated on and what is asked are drawn apart."""


def of(case: Case, example: Inputs, count: int, *, seed: int) -> Iterator[Inputs]:
    """Yield `count` inputs with the structure, constants, shapes, dtypes and device of the example.

    Of the model's own `samples` where it has them, as many together as the case's batch; with another seed, others of
    them. Else floating-point and complex values are drawn from the normal distribution; others are the example's.
    Raises TrtgateError for samples of another structure or of other shapes, or too few.
    """
    if case.model.samples is None:
        yield from _drawn(example, count, seed)
    else:
        yield from _own(case, example, count, seed)


def others(case: Case, example: Inputs, *, seed: int) -> Iterator[Inputs]:
    """Yield inputs of other values than the example's that a model may take, those first that differ the most.

    The model's own samples, where it has them. Else each tensor has the example's values in another order, so that ids
    and masks remain valid; then floating-point tensors that are no masks alone; then all inputs have their rows in
    another order; then floating-point values are a quarter smaller. A tensor of one value has another between half and
    all of it. Raises TrtgateError as `of`.
    """
    if case.model.samples is not None:
        yield from _own(case, example, 1, seed)
    generator = torch.Generator().manual_seed(seed)
    yield example.mapped(lambda value: _reordered(value, generator))
    yield example.mapped(lambda value: value.clone() if _is_mask(value) else _reordered(value, generator))
    rows = {len(value) for value in example.tensors if value.ndim}
    if len(rows) == 1:
        yield example.mapped(lambda value: value.roll(1, 0) if value.ndim else value.clone())
    yield example.mapped(lambda value: value * 0.75 if value.is_floating_point() else value.clone())


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


def _drawn(example: Inputs, count: int, seed: int) -> Iterator[Inputs]:
    generator = torch.Generator().manual_seed(seed)

    def drawn(value: torch.Tensor) -> torch.Tensor:
        dense = value.layout is torch.strided and not value.is_nested
        if not dense or not (value.is_floating_point() or value.is_complex()):
            return value
        kind = torch.complex64 if value.is_complex() else torch.float32
        return torch.randn(value.shape, generator=generator, device="cpu", dtype=kind).to(value)

    for _ in range(count):
        yield example.mapped(drawn)


def _own(case: Case, example: Inputs, count: int, seed: int) -> Iterator[Inputs]:
    model, batch = case.model, case.settings.batch or 1
    name = f"model {model.name!r}"
    assert model.samples is not None
    named = dimensions.of(model.samples).names
    sizes = {one: size for one, size in case.settings.shape.items() if one in named}
    try:
        given = [
            _like(example, sample, f"{name}, samples")
            for sample in itertools.islice(model.samples(count * batch, seed, **sizes), count * batch)
        ]
        if len(given) < count * batch:
            raise TrtgateError(f"{name}: {count * batch} samples were asked for, and {len(given)} came")
        for number in range(count):
            rows = given[number * batch : (number + 1) * batch]
            joined = [
                _joined(parts, like) for parts, like in zip(zip(*rows, strict=True), example.tensors, strict=True)
            ]
            if [value.shape for value in joined] != [value.shape for value in example.tensors]:
                shapes = ", ".join(str(tuple(value.shape)) for value in joined)
                raise TrtgateError(f"{name}: its samples have shapes {shapes}, its example another")
            yield example.filled(joined)
    except TrtgateError:
        raise
    except Exception as error:
        raise TrtgateError(f"{name}: its samples raised {one_line(error)}") from error


def _like(example: Inputs, sample: Any, name: str) -> list[torch.Tensor]:
    """Return the tensors of a sample: what a factory returns behind its module. Raises TrtgateError if unlike."""
    wanted = example.constants
    found = model_inputs.of_value(sample, name)
    if found.constants != wanted and isinstance(sample, tuple) and len(sample) == 2 and isinstance(sample[1], Mapping):
        found = model_inputs.of_arguments(*sample, name)  # (args, kwargs)
    if found.constants != wanted:
        raise TrtgateError(f"{name}: one differs from the example's inputs in its structure or constants")
    return found.tensors


def _joined(parts: tuple[torch.Tensor, ...], like: torch.Tensor) -> torch.Tensor:
    """Return the tensors of as many samples as a batch has in one; what does not depend on the batch is the first's."""
    return (parts[0] if parts[0].shape == like.shape else torch.cat(parts)).to(like)
