"""Asks the policy what a case needs next, and lets a measurer do it, until the policy concludes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import msgspec

from ..common.errors import TrtgateError, is_fault
from ..common.spent_time import Work, during
from ..common.steps import OnStep
from ..launches.pair import BASE, DisturbedError, SideError
from ..launches.worker_handle import LaunchError
from ..records.measurement import CaseMeasurement, Quadruple
from .case_result import CaseResult
from .policy import (
    Conclude,
    Evidence,
    Measure,
    Measured,
    MeasureFresh,
    MeasureHost,
    Pair,
    Problem,
    Rebuild,
    Rebuilt,
    Reload,
    Reloaded,
    Situation,
    Step,
    next_step,
)

FURTHER = "too noisy to tell: measuring further launches"
SUSPECTED = "slower than the baseline: measuring again in fresh launches"


class NoneKeptError(TrtgateError):
    """No compiled module of the baseline can be used here."""


class Measurer(Protocol):
    """Whoever can measure one case: launches on one device, pairs of them, a script.

    What the candidate can't do raises LaunchError; beside a base or a kept module, SideError or DisturbedError.
    """

    def measure(self, step: OnStep) -> Measured:
        """Measure in what is resident."""

    def measure_fresh(self, step: OnStep) -> CaseMeasurement:
        """Measure in fresh launches."""

    def measure_host(self, step: OnStep) -> CaseMeasurement:
        """Measure what the host sees in what is resident, and no device latency."""

    def rebuild(self, wanted: Rebuild, step: OnStep) -> Rebuilt:
        """Build in a fresh process, and the base in another where there is one."""

    def reload(self, step: OnStep) -> Reloaded:
        """Load case and base in processes that have not had it; returns the GPU memory that each takes."""

    def pairs(self, wanted: Pair, step: OnStep) -> list[list[Quadruple]]:
        """Measure in fresh pairs; returns the quadruples of each. Raises NoneKeptError where there is no module."""


def drive(situation: Situation, measurer: Measurer, step: OnStep) -> CaseResult:
    """Measure one case until it is judged. Raises LaunchError for what it can't do, TrtgateError as the policy does."""
    _, concluded = gather(situation, measurer, step)
    assert isinstance(concluded, Conclude)
    return concluded.result


def gather(
    situation: Situation, measurer: Measurer, step: OnStep, *, does: Callable[[Step], bool] = lambda _step: True
) -> tuple[Situation, Step]:
    """Measure one case until the policy concludes, or asks for a step that is not done here.

    Returns what is known then, and that step. Raises as `drive`.
    """
    while not isinstance(wanted := next_step(situation), Conclude) and does(wanted):
        try:
            with _counted(wanted):
                evidence = _done(wanted, situation, measurer, step)
        except SideError as error:
            if not situation.beside_base:
                raise
            whose = "the base failed: " * (error.side == BASE)
            raise LaunchError(f"{situation.case.id}: {whose}{error}") from error
        situation = msgspec.structs.replace(situation, evidence=evidence)
    return situation, wanted


def _counted(wanted: Step) -> AbstractContextManager[None]:
    """Within: the seconds are counted as confirming where a suspicion asks for the step."""
    if wanted == MeasureFresh(further=False) or isinstance(wanted, (Rebuild, Reload, Pair)):
        return during(Work.CONFIRMING)
    return nullcontext()


def _done(wanted: Step, situation: Situation, measurer: Measurer, step: OnStep) -> Evidence:
    """Return the evidence with what a step adds to it: a base that fails is evidence, a candidate that fails is not.

    Nor is a fault of the machine, such as a full disk, evidence beside a base: nothing else tells what changed.
    """
    so_far, replace = situation.evidence, msgspec.structs.replace
    try:
        match wanted:
            case Measure():
                return replace(so_far, first=measurer.measure(step))
            case MeasureFresh(further):
                step(FURTHER if further else SUSPECTED)
                measured = measurer.measure_fresh(step)
                return (
                    replace(so_far, further=measured) if further else replace(so_far, fresh=(*so_far.fresh, measured))
                )
            case MeasureHost():
                return replace(so_far, host=measurer.measure_host(step))
            case Rebuild():
                return replace(so_far, rebuilt=measurer.rebuild(wanted, step))
            case Reload():
                return replace(so_far, reloaded=measurer.reload(step))
            case Pair():
                return replace(so_far, pairs=(*so_far.pairs, *measurer.pairs(wanted, step)), problem=None)
    except (DisturbedError, NoneKeptError) as error:
        times = 1 if so_far.problem is None else so_far.problem.times + 1
        return replace(so_far, problem=Problem(str(error), times=times))
    except SideError as error:
        if error.side != BASE or (situation.beside_base and is_fault(error)):
            raise
        return replace(so_far, problem=Problem(str(error), failed=True))
    raise AssertionError(f"no such step: {wanted}")
