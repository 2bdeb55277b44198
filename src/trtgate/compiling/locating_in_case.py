"""The first wrong submodule of a case, compiled as the case says, within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import torch

from .. import frontends
from ..common.errors import TrtgateError, one_line
from ..common.steps import OnStep
from ..frontends import CompiledModule
from ..suite.cases import Case
from ..suite.model_inputs import Inputs
from ..suite.settings import OWN
from ..torch_trt import exporting
from . import building, left_in_pytorch
from .fp32_arithmetic import arithmetic_of
from .leaf_comparison import MEASURED
from .locating import Locator
from .location import Checked, Location
from .output_check import Comparison
from .reference import Reference

LIMIT_S = 60.0
"""How long an accuracy check that failed may search; a build that has begun is not cut short."""
TRACED = ("aot_eager", "inductor", "torch_compile")
"""Frontends of torch.compile: `torch.compiler.disable` leaves a module in PyTorch."""


def locate(
    case: Case, reference: Reference, known: Checked, judge: Callable[[Comparison], str], limit_s: float | None,
    step: OnStep = lambda _text: None,
) -> Location:  # fmt: skip
    """Return what of a case's module is wrong first; `known` is what was found of the whole.

    Raises TrtgateError where the module's arguments can't be copied.
    """
    end = None if limit_s is None else time.monotonic() + limit_s
    frontend = case.settings.frontend

    def compile_(module: torch.nn.Module, inputs: Inputs, left: Sequence[str]) -> Callable[..., Any]:
        return _compiled(case, module, inputs, left).run

    def operators(module: torch.nn.Module, inputs: Inputs) -> dict[str, list[str]]:
        return left_in_pytorch.operators_of(_compiled(case, module, inputs).parts)

    locator = Locator(
        compile_,
        judge,
        keep=left_in_pytorch.disabled if frontend in TRACED else None,
        operators=operators if frontend in exporting.FRONTENDS else None,  # torch_executed_ops leaves them
        out_of_time=lambda: end is not None and time.monotonic() > end,
        step=step,
    )
    return locator.locate(reference.module, reference.inputs, known)


def _compiled(case: Case, module: torch.nn.Module, inputs: Inputs, left: Sequence[str] = ()) -> CompiledModule:
    """Compile a submodule as the case says, operators in `left` excepted. Raises TrtgateError without the case's name.

    Of a quantized case the submodule is quantized already, with the whole. What runs inside may have no batch: it is
    compiled for the one shape that it has.
    """
    settings, ops = case.settings, case.settings.torch_executed_ops + left_in_pytorch.executed_names(left)
    own = Case(case.model, msgspec.structs.replace(settings.static, torch_executed_ops=ops))
    frontend = frontends.get(settings.frontend)
    try:
        with building.named(own), torch.no_grad(), arithmetic_of(case), building.quiet_upstream():
            prepared = frontend.prepare(module, inputs, own.settings, lambda _step: None)
        return building.build_prepared(own, prepared, 0.0, inputs, lambda _step: None).compiled
    except TrtgateError as error:
        raise TrtgateError(str(error).removeprefix(f"case {own.id}: ")) from error


def judge_of(reference: Reference, tolerance: float | None = None) -> Callable[[Comparison], str]:
    """Return what says in what a comparison is wrong: by the case's precision, or by a largest relative L2."""

    def judge(compared: Comparison) -> str:
        paths = [leaf.path for leaf in compared.leaves if leaf.kind in MEASURED]
        own = {} if tolerance is None else dict.fromkeys(paths, tolerance)
        return compared.problem(reference.arithmetic, own)

    return judge


def whole(reference: Reference, compared: Comparison, problem: str) -> Checked:
    """Return what is known of a case's compiled module as a whole."""
    kind = type(reference.module).__name__
    return Checked(path="", kind=kind, at=compared.call, relative_l2=compared.leaf_error, problem=problem)


def clause(case: Case, reference: Reference, known: Checked, build_s: float, step: OnStep) -> str:
    """Return what an accuracy check adds to its message: the sentence, or that it was not located, and how to.

    Never raises: the message that it is added to is to be seen. Empty for eager, for what the user compiled, for a case
    that is known to fail, and for a module without submodules.
    """
    command = f"trtgate locate {case.id}"
    if case.settings.frontend in ("eager", OWN) or case.settings.expected_failure is not None:
        return ""
    if build_s > LIMIT_S:
        return f"not located, as it was built in {build_s:.0f} s: {command}"
    try:
        found = locate(case, reference, known, judge_of(reference), LIMIT_S, step)
    except Exception as error:
        said = str(error) if isinstance(error, TrtgateError) else one_line(error)
        return f"not located ({said}): {command}"
    if found.kind == "unfinished":
        lies = f": {found.sentence()}" if found.wrong.path else ""
        return f"not located within {LIMIT_S:g} s{lies}: {command}"
    has_parts = found.wrong.path or found.checked
    return found.sentence() if has_parts else ""
