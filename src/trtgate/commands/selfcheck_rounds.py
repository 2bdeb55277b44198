"""What the gate is worth on this machine: the same module against itself, and against itself made slower on purpose."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from ..common.accelerator import Accelerator
from ..common.errors import PROBLEMS, TrtgateError, sentence_of
from ..common.explanations import Explanation, continued, explained
from ..common.metrics import SAMPLED
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..common.text_columns import number_of
from ..compiling import availability
from ..compiling.artifact_cache import CacheRequest
from ..gate import judging
from ..gate.judging import LimitOf
from ..gate.paired_gate import PairedGate, Screened, Suspicion
from ..gate.sentences import percent
from ..launches.comparison_side import Side
from ..launches.pair import BASE, CANDIDATE, Artifacts, DelayRefusedError, DisturbedError, Pair
from ..launches.pair_session import PairSession
from ..launches.prebuild import Prebuilt
from ..launches.worker_handle import LaunchError
from ..suite.cases import Case
from ..suite.suite_source import SuiteSource
from ..torch_trt import modelopt_package, releases
from ..verdict import LOOKS, Judgement, Verdict
from . import selfcheck_builds
from .selfcheck_findings import Selfcheck, SelfComparison

DELAYED = "delayed comparisons of"
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
    rounds: int, delay: float, folder: Path, cache: CacheRequest | None, timeout_s: float, streams: str, step: OnStep,
    save: Callable[[Selfcheck], object], begin: Callable[[Selfcheck], Selfcheck] = lambda new: new,
) -> Selfcheck:  # fmt: skip
    """Compare each case with itself, unchanged and slower by `delay`, in `rounds` pairs of processes.

    Each is built once, or taken from the cache. The rounds of the check that `begin` returns count too. `save` is given
    everything measured so far after each round; Ctrl-C ends the check, and what was measured is kept. What fails, is
    disturbed or is too short for the delay is left out and named, and the rest goes on. Raises TrtgateError when no
    case can be built or compared, when all are too short for the delay, and what `begin` raises.
    """
    tests = sum(len(judging.statistical_metrics(case, gpu=accelerator.kind == "gpu")) for case in cases)
    new = Selfcheck(
        accelerator=accelerator, cases=[case.id for case in cases], streams=streams,
        limits={metric: limit_of(metric) for metric in SAMPLED}, wanted_delay=delay, comparisons=[], tests=tests,
    )  # fmt: skip
    found = begin(new)
    if found.comparisons:
        step(f"{number_of(len(found.comparisons), 'comparison')} of earlier rounds")
    run_folder = RunFolder(folder)
    base, candidate = (Side(name=name, source=source, streams=streams) for name in (BASE, CANDIDATE))
    pairs = PairSession(base, candidate, accelerator, run_folder.logs, timeout_s=timeout_s)
    try:
        waiting: list[Pair] = []
        built = selfcheck_builds.built(
            candidate, cases, accelerator, run_folder, cache=cache, timeout_s=timeout_s,
            imported=lambda: waiting.extend(pairs.start(1)), step=step,
        )  # fmt: skip
        artifacts = _artifacts(built, found)
        for number in range(rounds):
            ahead = PAIRS_AHEAD if accelerator.kind == "gpu" else 1  # a CPU must not import while it measures
            if not waiting:
                waiting = pairs.start(min(ahead, rounds - number))
            pairs.replace_resident(waiting.pop(0))
            at = f"round {number + 1} of {rounds}"
            say = lambda text, at=at: step(f"{at}: {text}")  # noqa: E731
            found.comparisons += _round(pairs, artifacts, limit_of, found, say)  # whole, or not at all
            save(found)
            _check_delay(found, artifacts)
    except KeyboardInterrupt:
        found.problems.append("the round that Ctrl-C ended, and those that would have followed")
    except PROBLEMS as error:
        if not found.comparisons or isinstance(error, _AllTooShortError):
            raise
        found.failed = True
        problem = f"the round that failed, and those that would have followed: {sentence_of(error)}"
        found.problems.append(explained(problem, Explanation.WORKER_FAILED))
    else:
        if not found.comparisons:
            raise TrtgateError(f"nothing could be compared: {_said(found.problems)}")
    finally:
        pairs.close()
        run_folder.close()
    return found


class _AllTooShortError(TrtgateError):
    """No case takes the delay."""


def _check_delay(found: Selfcheck, artifacts: Collection[str]) -> None:
    """Raise _AllTooShortError where no case is left that might take the delay, and none did."""
    if set(artifacts) <= set(found.too_short) and not any(one.delay for one in found.comparisons):
        raise _AllTooShortError(_said(one for one in found.problems if one.startswith(DELAYED)))


def _said(problems: Iterable[str]) -> str:
    """Return what an error says of problems: the first, and how many more there are."""
    first, *others = dict.fromkeys(problems)
    return continued(first, f"; and {number_of(len(others), 'more problem')}" * bool(others))


def _leave_out(found: Selfcheck, case_id: str, error: LaunchError) -> None:
    """Name what an error leaves out of a case."""
    if isinstance(error, DelayRefusedError):
        found.too_short.append(case_id)
        problem = explained(f"{DELAYED} {case_id}: {error}", Explanation.COMMAND_REFUSED)
    elif isinstance(error, DisturbedError):
        problem = explained(f"{case_id}: {error}", Explanation.VOID_BLOCKS)
    else:
        found.failed = True
        problem = explained(f"{case_id}: {error}", Explanation.BUILD_FAILED)
    found.problems.append(problem)


def _artifacts(built: Mapping[str, Prebuilt], found: Selfcheck) -> dict[str, Artifacts]:
    """Return what both sides load of each case: a gate on latency compares code, not two builds of the same.

    A case that could not be built is left out. Raises TrtgateError where none could.
    """
    problems = [problem for one in built.values() if (problem := selfcheck_builds.problem_of(one))]
    found.problems += problems
    found.failed |= bool(problems)
    if len(problems) == len(built):
        raise TrtgateError(f"nothing could be built: {_said(problems)}")
    return {
        case_id: Artifacts(base=one.artifact, candidate=one.artifact)
        for case_id, one in built.items() if not one.problem
    }  # fmt: skip


def _round(
    pairs: PairSession, artifacts: dict[str, Artifacts], limit_of: LimitOf, found: Selfcheck, step: OnStep
) -> list[SelfComparison]:
    """Compare every case in one pair of processes, unchanged and slower, and confirm what is suspected."""
    comparisons: list[SelfComparison] = []
    gate = PairedGate(pairs)
    expected = found.wanted_delay and found.accelerator.kind == "gpu"  # a CPU must not import while it measures
    fresh = pairs.start(LOOKS[0]) if expected else []
    for case_id, both in artifacts.items():
        try:
            comparisons.extend(_screened(gate, case_id, both, limit_of, found, step))
        except LaunchError as error:
            _leave_out(found, case_id, error)
    suspicions = {
        number: Suspicion(
            case_id=one.case_id, artifacts=artifacts[one.case_id], metrics=tuple(one.suspected),
            delay=found.wanted_delay if one.delay else 0.0,
        )
        for number, one in enumerate(comparisons) if one.suspected
    }  # fmt: skip
    confirmed = _confirmed(gate, suspicions, limit_of, found, step, fresh) if suspicions else {}
    for pair in fresh:
        pairs.end(pair)
    told = (number for number in range(len(comparisons)) if number in confirmed or number not in suspicions)
    return [_judged(comparisons[number], confirmed.get(number, [])) for number in told]


def _screened(
    gate: PairedGate, case_id: str, both: Artifacts, limit_of: LimitOf, found: Selfcheck, step: OnStep
) -> Iterator[SelfComparison]:
    """Compare a case by the first stage, unchanged and, unless it is too short for that, slower. Raises LaunchError."""
    step(f"{case_id}: loading")
    pair = gate.pairs.load_resident(case_id, both)
    for delay in dict.fromkeys((0.0, 0.0 if case_id in found.too_short else found.wanted_delay)):
        step(f"{case_id}: {f'{percent(delay)} slower' if delay else 'unchanged'}")
        start = time.monotonic()
        try:
            screened = gate.screen(pair, case_id, limit_of, found.tests, lambda _text: None, delay=delay)
        except DelayRefusedError as error:
            _leave_out(found, case_id, error)
        else:
            yield _comparison(case_id, screened, time.monotonic() - start)
    gate.pairs.unload(pair)


def _confirmed(
    gate: PairedGate, suspicions: dict[int, Suspicion], limit_of: LimitOf, found: Selfcheck, step: OnStep,
    fresh: Sequence[Pair],
) -> dict[int, list[Judgement]]:  # fmt: skip
    """Return what fresh pairs say of suspicions, all measured in the same pairs, those `fresh` first.

    Where that fails each is measured in pairs of its own, and what fails then is left out.
    """
    try:
        judged = gate.confirm(list(suspicions.values()), limit_of, found.tests, step, fresh)
        return dict(zip(suspicions, judged, strict=True))
    except LaunchError as error:
        step(f"confirming one by one: {error}")
    confirmed = {}
    for number, suspicion in suspicions.items():
        try:
            (confirmed[number],) = gate.confirm([suspicion], limit_of, found.tests, step)
        except LaunchError as error:
            _leave_out(found, suspicion.case_id, error)
    return confirmed


def _judged(one: SelfComparison, judgements: Sequence[Judgement]) -> SelfComparison:
    return msgspec.structs.replace(
        one,
        regressed=[j.metric for j in judgements if j.verdict is Verdict.REGRESSED],
        confirmation=[f"{j.metric} {j.change:+.3%}, {j.evidence}, p={j.p:.1e}" for j in judgements],
    )


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
