"""Asks Torch-TensorRT's own partitioner for the coverage of a case, without a GPU and without building anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from ..common import garbage
from ..common.errors import TrtgateError, explaining, one_line
from ..common.explanations import Explanation, explained
from ..common.steps import OnStep
from ..compiling import building, process_state
from ..records import coverage_record
from ..suite import precisions
from ..suite.cases import Case
from ..suite.model_inputs import Inputs
from ..suite.settings import Settings
from ..torch_trt import (
    compile_calls,
    compile_options,
    disabled_converters,
    export_refusals,
    exporting,
    gpu_stand_in,
    import_hook,
    lean_tracing,
    modelopt_package,
    partitioner,
    releases,
)
from ..torch_trt.dynamic_inputs import DynamicInputs
from ..torch_trt.dynamo_frames import LeftOut

FRONTENDS = ("dynamo", "torch_compile")
"""The ways into the partitioner that can be asked without a GPU."""

RANDOM = (
    "uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
    "kaiming_normal_", "orthogonal_", "sparse_",
)  # fmt: skip
"""Functions of `torch.nn.init` that fill a tensor with random numbers."""


def ask(case: Case, step: OnStep = lambda _text: None) -> coverage_record.Coverage:
    """Return the coverage of a case. Raises TrtgateError when it can't be made or exported, or a name is unknown."""
    reason = releases.unavailable()
    if reason:
        raise TrtgateError(explained(f"coverage of {case.id}: {reason}", Explanation.UNAVAILABLE))
    modelopt_package.expect([case.settings.precision])
    compile_options.check_options(case.id, case.settings)
    step("making the model")
    who, case = case.id, Case(case.model, case.settings.at_optimum)  # whichever shape of it is measured
    with torch.random.fork_rng(devices=[]), contextlib.ExitStack() as stack:
        stack.callback(process_state.put_back)
        stack.enter_context(garbage.later())  # a factory imports libraries
        stack.enter_context(import_hook.installed())  # by a factory
        with _weights_of(case.settings):
            with explaining(Explanation.MODEL_UNUSABLE):
                module, inputs = building.make(case, "cpu", copied=False)
            if case.settings.precision in precisions.QUANTIZED:
                step(f"calibrating to {case.settings.precision}")
                module = building.quantized(case, module, inputs, batches=1)
            dynamic = building.dynamic_inputs(case, "cpu")
        return ask_module(module, inputs, case.settings, step, who=who, dynamic=dynamic)


def ask_module(
    module: torch.nn.Module,
    inputs: Inputs,
    settings: Settings,
    step: OnStep = lambda _text: None,
    *,
    who: str,
    dynamic: DynamicInputs | None = None,
) -> coverage_record.Coverage:
    """Return the coverage of a module that has its precision, on the CPU. Raises TrtgateError, naming `who`."""
    if settings.frontend not in FRONTENDS:
        known = ", ".join(FRONTENDS)
        raise TrtgateError(f"coverage of {who}: frontend {settings.frontend!r} can't be asked; there are {known}")
    compile_options.options_of(settings)  # what is unknown is said before anything is imported
    step("importing torch_tensorrt")
    try:
        export_refusals.check_inputs(inputs)
        return _observed(module, inputs, settings, step, dynamic)
    except TrtgateError as error:
        raise TrtgateError(f"coverage of {who}: {error}") from error
    except Exception as error:
        cause = getattr(
            error, "inner_exception", error
        )  # of torch's BackendCompilerFailed, which says no more than that
        casting = "dtype" in str(cause) and settings.precision != precisions.AS_IS
        hint = f"; {precisions.CASTS_NOTHING}" * casting
        raise TrtgateError(f"coverage of {who}: {one_line(cause)}{hint}") from error


def _observed(
    module: torch.nn.Module, inputs: Inputs, settings: Settings, step: OnStep, dynamic: DynamicInputs | None
) -> coverage_record.Coverage:
    with (
        gpu_stand_in.stand_in(),
        disabled_converters.withheld() as withheld,
        partitioner.observing(withheld) as seen,
        lean_tracing.lean(),
        torch.no_grad(),
        building.quiet_upstream(),
    ):
        try:
            left_out = _ask(module, inputs, settings, step, dynamic)
        except Exception as error:
            if seen.problem:  # which came first, and says whose error it is
                raise TrtgateError(seen.problem) from error
            raise
    return seen.counted(settings, left_out)


def _ask(
    module: torch.nn.Module, inputs: Inputs, settings: Settings, step: OnStep, dynamic: DynamicInputs | None = None
) -> LeftOut | None:
    if settings.frontend == "torch_compile":
        step("torch.compile")
        return gpu_stand_in.torch_compile(module, inputs, settings, dynamic)
    step("torch.export")
    program = exporting.export(module, inputs, settings, dynamic)
    export_refusals.check_dtypes(program, settings.precision)
    step("lowering and partitioning")
    with building.quantized_weights(settings):
        compile_calls.compile_exported(program, inputs, settings, dynamic, dryrun=True)
    return None


def _weights_of(settings: Settings) -> contextlib.AbstractContextManager[None]:
    """Weights are only looked at, not computed with, unless torch.compile runs the model or it is calibrated."""
    computed = settings.frontend == "torch_compile" or settings.precision in precisions.QUANTIZED
    return contextlib.nullcontext() if computed else unfilled()


@contextlib.contextmanager
def unfilled() -> Iterator[None]:
    """Within: initialisers leave weights as they were allocated; memory that nobody wrote takes no room.

    The graph stays that of ordinary weights, since shapes, strides and buffers are real: on the meta device
    constants would not be folded.
    """
    before = {name: getattr(torch.nn.init, name) for name in RANDOM}
    for name in RANDOM:
        setattr(torch.nn.init, name, _unchanged)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(torch.nn.init, name, function)


def _unchanged(tensor: torch.Tensor, *_args: Any, **_keywords: Any) -> torch.Tensor:
    return tensor
