"""What the gate is worth on this machine: the same module against itself, and against itself made slower on purpose."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError
from ..common.explanations import Explanation, explained
from ..common.metrics import SAMPLED
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..compiling import availability
from ..gate import judging
from ..gate.judging import LimitOf
from ..gate.paired_gate import PairedGate, Screened, Suspicion
from ..gate.sentences import percent
from ..launches.comparison_side import Side
from ..launches.pair import BASE, CANDIDATE, Artifacts, DisturbedError, Pair
from ..launches.pair_session import PairSession
from ..suite.cases import Case
from ..suite.suite_source import SuiteSource
from ..torch_trt import modelopt_package, releases
from ..verdict import LOOKS, Verdict
from .selfcheck_findings import Selfcheck, SelfComparison

PAIRS_AHEAD = 4
"""Pairs of processes that start together on a GPU's host: their imports overlap."""


def cases_of(source: SuiteSource, names: Sequence[str], accelerator: Accelerator) -> list[Case]:
    """Return the named cases, or all that this machine can run. Raises TrtgateError for unknown ones, or if none is."""
    suite = source.load().cases
    modelopt_package.expect(case.settings.precision for case in suite.values())
    unknown = [name for name in names if name not in suite]
    if unknown:
        raise TrtgateError(f"the suite has no case {unknown[0]!r}; its cases: {', '.join(suite)}")
    found = []
    for case in suite.values():
        expected = case.settings.expected_failure
        reason = availability.unavailable(case.settings, accelerator)
        if not reason and expected is not None and expected.applies(releases.flavour(), releases.version()):
            reason = str(expected)
        if case.id in names and reason:
            raise TrtgateError(f"case {case.id}: {reason}")
        if not reason and (not names or case.id in names):
            found.append(case)
    if not found:
        raise TrtgateError("this machine can run none of the suite's cases: `trtgate doctor` says why")
    return found


def run(
    source: SuiteSource, cases: Sequence[Case], accelerator: Accelerator, limit_of: LimitOf, *,
    rounds: int, delay: float, folder: Path, timeout_s: float, streams: str, step: OnStep,
    save: Callable[[Selfcheck], None],
) -> Selfcheck:  # fmt: skip
    """Compare each case with itself, unchanged and slower by `delay`, in `rounds` pairs of processes.

    `save` is given everything measured so far after each round; Ctrl-C ends the check, and what was measured is kept.
    Raises SideError when a case can't be built. A comparison that is disturbed is left out, and named.
    """
    run_folder = RunFolder(folder)
    base, candidate = (Side(name=name, source=source, streams=streams) for name in (BASE, CANDIDATE))
    pairs = PairSession(base, candidate, accelerator, run_folder.logs, timeout_s=timeout_s)
    tests = sum(len(judging.statistical_metrics(case, gpu=accelerator.kind == "gpu")) for case in cases)
    limits = {metric: limit_of(metric) for metric in SAMPLED}
    found = Selfcheck(accelerator=accelerator, limits=limits, wanted_delay=delay, comparisons=[], tests=tests)
    try:
        artifacts = _build(pairs, cases, run_folder, step)
        waiting: list[Pair] = []
        for number in range(rounds):
            ahead = PAIRS_AHEAD if accelerator.kind == "gpu" else 1  # a CPU must not import while it measures
            if not waiting:
                waiting = pairs.start(min(ahead, rounds - number))
            pairs.replace_resident(waiting.pop(0))
            at = f"round {number + 1} of {rounds}"
            say = lambda text, at=at: step(f"{at}: {text}")  # noqa: E731
            found.comparisons += _round(pairs, artifacts, limit_of, found, say)  # whole, or not at all
            save(found)
    except KeyboardInterrupt:
        found.problems.append("the round that Ctrl-C ended, and those that would have followed")
    finally:
        pairs.close()
        run_folder.close()
    return found


def _build(pairs: PairSession, cases: Sequence[Case], folder: RunFolder, step: OnStep) -> dict[str, Artifacts]:
    """Build each case once: a gate on latency compares code, not two builds of the same."""
    artifacts = {}
    for case in cases:
        step(f"building {case.id}")
        place = folder.private(case.model.name)
        built = pairs.build(pairs.resident(), case.id, {CANDIDATE: place})
        stored = place if built[CANDIDATE].stored else None
        artifacts[case.id] = Artifacts(base=stored, candidate=stored)
    return artifacts


def _round(
    pairs: PairSession, artifacts: dict[str, Artifacts], limit_of: LimitOf, found: Selfcheck, step: OnStep
) -> list[SelfComparison]:
    """Compare every case in one pair of processes, unchanged and slower, and confirm what is suspected."""
    comparisons: list[SelfComparison] = []
    gate = PairedGate(pairs)
    expected = found.wanted_delay and found.accelerator.kind == "gpu"  # a CPU must not import while it measures
    fresh = pairs.start(LOOKS[0]) if expected else []
    suspicions: dict[int, Suspicion] = {}
    """Number of a comparison → what it suspects."""
    for case_id, both in artifacts.items():
        step(f"{case_id}: loading")
        pair = pairs.load_resident(case_id, both)
        try:
            for delay in dict.fromkeys((0.0, found.wanted_delay)):
                step(f"{case_id}: {f'{percent(delay)} slower' if delay else 'unchanged'}")
                start = time.monotonic()
                screened = gate.screen(pair, case_id, limit_of, found.tests, lambda _text: None, delay=delay)
                comparison = _comparison(case_id, screened, time.monotonic() - start)
                comparisons.append(comparison)
                if comparison.suspected:
                    suspected = tuple(comparison.suspected)
                    suspicion = Suspicion(case_id=case_id, artifacts=both, metrics=suspected, delay=delay)
                    suspicions[len(comparisons) - 1] = suspicion
            pairs.unload(pair)
        except DisturbedError as error:
            found.problems.append(explained(f"{case_id}: {error}", Explanation.VOID_BLOCKS))
    if suspicions:
        confirmed = gate.confirm(list(suspicions.values()), limit_of, found.tests, step, fresh)
        for number, judgements in zip(suspicions, confirmed, strict=True):
            comparisons[number] = msgspec.structs.replace(
                comparisons[number],
                regressed=[j.metric for j in judgements if j.verdict is Verdict.REGRESSED],
                confirmation=[f"{j.metric} {j.change:+.3%}, {j.evidence}, p={j.p:.1e}" for j in judgements],
            )
    for pair in fresh:
        pairs.end(pair)
    return comparisons


def _comparison(case_id: str, screened: Screened, seconds: float) -> SelfComparison:
    primary = screened.candidate.primary
    differences = {
        judgement.metric: judging.pair_differences(screened.quadruples, judgement.metric, primary)
        for judgement in screened.judgements
    }
    return SelfComparison(
        case_id=case_id,
        delay=screened.delay,
        seconds=seconds,
        primary=primary,
        suspected=[j.metric for j in screened.judgements if j.verdict is Verdict.REGRESSED],
        change=screened.judgements[0].change,
        d_mean={metric: float(np.mean(d)) for metric, d in differences.items()},
        d_sd={metric: float(np.std(d, ddof=1)) for metric, d in differences.items()},
    )
