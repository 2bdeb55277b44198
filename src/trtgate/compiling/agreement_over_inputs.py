"""How far a compiled module's outputs lie from eager's in fp32, over many inputs: accuracy beyond a tolerance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from ..common.errors import TrtgateError
from ..common.explanations import Explanation, explained
from ..records.agreement_record import Agreement
from ..suite import precisions, samples
from ..suite.cases import Case
from . import building, fp32_arithmetic, leaf_comparison, output_check

if TYPE_CHECKING:
    from .inference import Inference

INPUTS = 64
TOP = 5


def ask(case: Case, inference: Inference, device: str, count: int = INPUTS) -> Agreement:
    """Feed a compiled module and eager at fp32 with `count` inputs at least, in batches as large as the case's.

    Leaves the inputs of the compiled module as they were. Raises TrtgateError for outputs of other shapes, or NaN.
    """
    as_is = case.settings.precision == precisions.AS_IS
    settings = case.settings if as_is else msgspec.structs.replace(case.settings, precision="fp32")
    reference, _ = building.make(Case(case.model, settings), device)
    example = inference.inputs
    batch = case.settings.batch or 1
    batches = max(1, math.ceil(count / batch))
    wanted, got = [], []
    for inputs in samples.of(case, example, batches, seed=samples.ACCURACY):
        as_fp32 = inputs.mapped(
            lambda value: value.clone() if as_is or not value.is_floating_point() else value.float().clone()
        )
        with torch.no_grad(), fp32_arithmetic.strict_fp32():
            wanted.append(_measured_tensors(as_fp32.call(reference)))
        inference.inputs = inputs
        got.append(_measured_tensors(inference()))
    inference.inputs = example
    if [[one.shape for one in outputs] for outputs in wanted] != [[one.shape for one in outputs] for outputs in got]:
        said = f"case {case.id}: its outputs have other shapes than eager's"
        raise TrtgateError(explained(said, Explanation.WRONG_OUTPUT))
    return _compared(case, batch * batches, wanted, got)


def _measured_tensors(output: Any) -> list[torch.Tensor]:
    """Return copies of the floating-point and complex tensors of an output, of all where it has none, in float64."""
    tensors = output_check.tensors(output)
    measured = [one for one in tensors if leaf_comparison.kind_of(one) in leaf_comparison.MEASURED]
    return [leaf_comparison.as_reals(one).double().clone() for one in measured or tensors]


def _compared(case: Case, count: int, wanted: list[list[torch.Tensor]], got: list[list[torch.Tensor]]) -> Agreement:
    """Return how far the worst tensor is off, over all inputs."""
    a, b = ([torch.cat([one.flatten() for one in of_tensor]) for of_tensor in zip(*each, strict=True)]
            for each in (wanted, got))  # fmt: skip
    tensors = [leaf_comparison.compare("output", "", *both) for both in zip(a, b, strict=True)]
    if any(one.difference for one in tensors) or any(bool(torch.isnan(one).any()) for one in a):
        said = f"case {case.id}: of {count} inputs some give NaN or infinite values"
        raise TrtgateError(explained(said, Explanation.WRONG_OUTPUT))
    top1, top5 = _agreeing(wanted, got)
    return Agreement(
        inputs=count,
        source=samples.described(case.model),
        weights=case.model.weights or case.model.weights_said,
        relative_l2=max((one.relative_l2 for one in tensors), default=0.0),
        cosine=min([1.0, *(one.cosine for one in tensors)]),
        max_error=max((one.max_error for one in tensors), default=0.0),
        top1=top1,
        top5=top5,
    )


def _agreeing(wanted: list[list[torch.Tensor]], got: list[list[torch.Tensor]]) -> tuple[float | None, float | None]:
    if any(len(outputs) != 1 or outputs[0].ndim != 2 or outputs[0].shape[1] < TOP + 1 for outputs in wanted):
        return None, None
    a, b = (torch.cat([outputs[0] for outputs in each]) for each in (wanted, got))
    best = a.argmax(1)
    top1 = float((b.argmax(1) == best).double().mean())
    top5 = float((b.topk(TOP).indices == best[:, None]).any(1).double().mean())
    return top1, top5
