"""Is the output right of a module that several threads call at once? Compared with what a call alone gives."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch

from ..common.errors import TrtgateError
from ..suite import precisions, samples
from ..suite.cases import Case
from ..suite.model_inputs import Inputs
from ..timing import run_state
from ..timing.load_drivers import all_at_once
from . import output_check, output_leaves
from .building import Inference
from .expected_output import Walked
from .fp32_arithmetic import arithmetic
from .output_check import Comparison

CALLS, SECONDS = 20, 2.0
"""So many outputs of each thread are compared, or as many as come in that time; one in any case."""
COARSEST = "bf16"
"""What a module may round to that is not cast."""
SEED = 3


def check(case: Case, inferences: Sequence[Inference], as_called: Callable[[Inference], Callable[[], object]]) -> None:
    """Call all at once, neighbours with inputs of other values. Raises TrtgateError where an output is wrong.

    `as_called` makes a call that is over when it returns. Raises what a call raises. Nothing is asked of a module whose
    calls change its state, which threads share: no output is the right one then. Nor of one that draws random numbers,
    or gives another output when it is called again alone.
    """
    first = inferences[0]
    if first.changes:
        return
    alone = [*itertools.islice(_alone(case, first, as_called), 2)]
    if alone:
        kinds = itertools.cycle(alone)
        calls = [_compared(case, one, *next(kinds), as_called) for one in inferences]
        all_at_once(calls, times=CALLS, seconds=SECONDS)


def _alone(
    case: Case, first: Inference, as_called: Callable[[Inference], Callable[[], object]]
) -> Iterator[tuple[Inputs, Walked]]:
    """Yield inputs, and the output that a call alone gives of them, twice the same: those of the case first."""
    for inputs in (first.inputs, *_of_other_values(case, first.inputs)):
        call = as_called(Inference(first.compiled, inputs.cloned()))
        with contextlib.suppress(Exception):  # a model need not take other values
            before = run_state.random_numbers()
            wanted = output_leaves.copied(call())
            again = output_check.compare_walked(wanted, call())
            if not _problem(case, again) and not run_state.drawn(before, run_state.random_numbers()):
                yield inputs, wanted


def _of_other_values(case: Case, example: Inputs) -> list[Inputs]:
    with contextlib.suppress(TrtgateError):
        return list(samples.others(case, example, seed=SEED))
    return []


def _compared(
    case: Case, inference: Inference, inputs: Inputs, wanted: Walked,
    as_called: Callable[[Inference], Callable[[], object]],
) -> Callable[[], None]:  # fmt: skip
    call = as_called(Inference(inference.compiled, inputs.cloned()))

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
