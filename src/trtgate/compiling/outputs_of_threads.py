"""Is the output right of a module that several threads call at once? Compared with what a call alone gives."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence

import torch

from ..common.errors import TrtgateError
from ..suite import precisions, samples
from ..suite.cases import Case
from ..suite.model_inputs import Inputs
from ..timing import run_state
from ..timing.load_drivers import all_at_once
from . import output_check, output_leaves
from .expected_output import Walked
from .fp32_arithmetic import arithmetic
from .inference import Inference
from .output_check import Comparison

CALLS, SECONDS = 20, 2.0
"""So many outputs of each thread are compared, or as many as come in that time; one in any case."""
COARSEST = "bf16"
"""What a module may round to that is not cast."""
SEED, KINDS = 3, 2
AsCalled = Callable[[Inference], Callable[[], object]]


def check(case: Case, inferences: Sequence[Inference], as_called: AsCalled) -> None:
    """Call all at once, neighbours with inputs of other values. Raises TrtgateError where an output is wrong.

    `as_called` makes a call that is over when it returns. Raises what a call raises. Nothing is asked of a module that
    draws random numbers, or whose output depends on the calls before: no output is the right one then.
    """
    alone = _alone(case, inferences[0], as_called)
    if alone:
        kinds = itertools.cycle(alone)
        calls = [_compared(case, one, *next(kinds), as_called) for one in inferences]
        all_at_once(calls, times=CALLS, seconds=SECONDS)


def _alone(case: Case, first: Inference, as_called: AsCalled) -> list[tuple[Inputs, Walked]]:
    """Return inputs of up to two kinds, the case's own first, each with the output that calls alone give of them.

    Nothing where calls with both in turn do not repeat themselves.
    """
    found: list[tuple[Inputs, Walked]] = []
    candidates = (first.inputs, *_of_other_values(case, first.inputs))
    before = run_state.random_numbers()
    for inputs in candidates:
        with contextlib.suppress(Exception):  # a model need not take other values
            wanted = output_leaves.copied(as_called(first.with_inputs(inputs.cloned()))())
            if not found or _problem(case, output_check.compare_nodes(found[0][1], wanted)):
                found.append((inputs, wanted))
        if len(found) == KINDS:
            break
    again = [_compared(case, first, inputs, wanted, as_called) for inputs, wanted in found]
    try:
        for call in again:
            call()
    except WrongOfThreadsError:
        return []
    return [] if run_state.drawn(before, run_state.random_numbers()) else found


def _of_other_values(case: Case, example: Inputs) -> list[Inputs]:
    with contextlib.suppress(TrtgateError):
        found = list(samples.others(case, example, seed=SEED))
        on_cpu = all(value.device.type == "cpu" for value in example.tensors)
        return found if on_cpu or case.model.samples is not None else of_other_floats(found, example)
    return []


def of_other_floats(found: Sequence[Inputs], example: Inputs) -> list[Inputs]:
    """Return those whose integers and booleans are the example's: on a GPU an index out of range ends the process."""

    def alike(one: Inputs) -> bool:
        pairs = zip(one.tensors, example.tensors, strict=True)
        return all(
            torch.equal(now, before) for now, before in pairs if not (now.is_floating_point() or now.is_complex())
        )

    return [one for one in found if alike(one)]


def _compared(
    case: Case, inference: Inference, inputs: Inputs, wanted: Walked, as_called: AsCalled
) -> Callable[[], None]:  # fmt: skip
    call = as_called(inference.with_inputs(inputs.cloned()))

    def compared() -> None:
        problem = _problem(case, output_check.compare_walked(wanted, call()))
        if problem:
            raise WrongOfThreadsError(problem)

    return compared


class WrongOfThreadsError(TrtgateError):
    """An output of a thread is not that of a call alone."""


def _problem(case: Case, found: Comparison) -> str:
    """Return how far an output is from that of a call alone; empty where it is the same, but for rounding."""
    coarsest = COARSEST if case.settings.precision == precisions.AS_IS else "fp32"
    with torch.no_grad():
        if not found.problem(arithmetic(case, coarsest), case.settings.tolerances):
            return ""
    if found.structure:
        return "it is made of other parts"
    worst = max(found.leaves, key=lambda leaf: (bool(leaf.difference), leaf.relative_l2, leaf.mismatches))
    off = f"is {worst.relative_l2:.2g} off (relative L2)"
    return f"{worst.path} {f'has {worst.mismatches} of {worst.values} other values' if worst.mismatches else off}"
