"""What the gate is worth on this machine: the same module against itself, and against itself made slower on purpose."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from scipy import stats

from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError
from ..common.explanations import Explanation, explained
from ..common.metrics import SAMPLED
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..common.text_columns import Line, TextTable
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
from ..verdict import FAMILY_ALPHA, LOOKS, POWER, Verdict, quantile

NICE = (1.0, 2.0, 5.0)
CONFIDENCE = 0.95
PAIRS_AHEAD = 4
"""Pairs of processes that start together on a GPU's host: their imports overlap."""


class SelfComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of a case with itself, by the whole procedure."""

    case_id: str
    delay: float
    """By which share the candidate was slower on purpose, as measured; 0 for an unchanged one."""
    seconds: float
    """Of the first stage: loading and building apart."""
    primary: str
    suspected: list[str]
    """Metrics that the first stage suspected."""
    regressed: list[str] = []
    """Metrics that fresh pairs confirmed."""
    confirmation: list[str] = []
    """What fresh pairs said of each suspected metric."""
    change: float
    """What the first stage measured of the primary metric, a fraction."""
    d_mean: dict[str, float] = {}
    """Metric → mean difference of logs in this pair of launches."""
    d_sd: dict[str, float] = {}
    """Metric → standard deviation between its quadruples."""


class Selfcheck(msgspec.Struct, kw_only=True):
    """Everything that was measured, and how it was asked for."""

    accelerator: Accelerator
    limits: dict[str, float]
    wanted_delay: float
    comparisons: list[SelfComparison]
    problems: list[str] = []
    tests: int


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


# What follows from it


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """How often something happened, with its Clopper-Pearson interval (scipy.stats.binomtest)."""

    happened: int
    of: int

    def __str__(self) -> str:
        if not self.of:
            return "0 of 0"
        interval = stats.binomtest(self.happened, self.of).proportion_ci(CONFIDENCE)
        share = f"{self.happened / self.of:.3g}" if self.of else "?"
        return f"{self.happened} of {self.of} ({share}; {interval.low:.3g} to {interval.high:.3g})"


def detectable(found: Selfcheck, case_id: str, metric: str, limit: float) -> float | None:
    """Return the change that confirmation would find with probability POWER, a fraction; None with fewer than 3 pairs.

    From the spread of the means of this check's own pairs of launches, which holds the noise between launches.
    """
    means = [c.d_mean[metric] for c in found.comparisons if c.case_id == case_id and not c.delay and metric in c.d_mean]
    if len(means) < 3:
        return None
    error = statistics.stdev(means) / math.sqrt(LOOKS[-1])
    dof = LOOKS[-1] - 1
    alpha = FAMILY_ALPHA / found.tests / len(LOOKS)
    return math.expm1(math.log1p(limit) + error * (quantile(alpha, dof) + quantile(1 - POWER, dof)))


def proposed_limit(found: Selfcheck, metric: str) -> float | None:
    """Return the tightest limit of the series 1, 2, 5 at which every case's noise takes at most as much again."""
    slack = [
        seen for case_id in {c.case_id for c in found.comparisons}
        if (seen := detectable(found, case_id, metric, 0.0)) is not None
    ]  # fmt: skip
    if not slack:
        return None
    needed = max(*slack, 1e-4)
    power = math.floor(math.log10(needed))
    steps = (nice * 10.0**exponent for exponent in (power, power + 1) for nice in NICE)
    return next(step for step in steps if step >= needed * (1 - 1e-9))


def lines(found: Selfcheck) -> list[Line]:
    """Return what was found, as text: rates with intervals, what can be seen, and limits to copy."""
    unchanged = [c for c in found.comparisons if not c.delay]
    delayed = [c for c in found.comparisons if c.delay]
    rows: list[Sequence[str]] = [
        ("case", "metric", "unchanged", "slower by", "first stage", "between pairs", "in a pair", "detects")
    ]
    for case_id in dict.fromkeys(c.case_id for c in found.comparisons):
        rows += _rows(found, case_id)
    said: list[Line] = [
        TextTable(rows),
        f"false alarms: {_rate(bool(c.regressed) for c in unchanged)}",
        f"suspected by the first stage alone: {_rate(bool(c.suspected) for c in unchanged)}",
    ]
    if delayed:
        true = statistics.median(c.delay for c in delayed)
        hit = _rate(c.primary in c.regressed for c in delayed)
        said.append(f"found when {percent(true)} slower: {hit}")
    proposals = {metric: proposed_limit(found, metric) for metric in found.limits}
    copied = " ".join(f"{metric}={limit * 100:g}%" for metric, limit in proposals.items() if limit is not None)
    if copied:
        said.append(f"limits that this machine's noise allows: trtgate_limits = {copied}")
    return said + [f"left out: {problem}" for problem in found.problems]


def _rate(outcomes: Iterable[bool]) -> Rate:
    happened = list(outcomes)
    return Rate(happened=sum(happened), of=len(happened))


def _rows(found: Selfcheck, case_id: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    mine = [c for c in found.comparisons if c.case_id == case_id]
    for metric, limit in found.limits.items():
        same = [c for c in mine if not c.delay and metric in c.d_mean]
        slower = [c for c in mine if c.delay and metric in c.d_mean]
        if not same:
            continue
        means = [c.d_mean[metric] for c in same]
        seen = detectable(found, case_id, metric, limit)
        rows.append(
            (
                case_id,
                metric,
                f"{math.expm1(statistics.mean(means)):+.3%}",
                f"{math.expm1(statistics.mean(c.d_mean[metric] for c in slower)):+.3%}" if slower else "",
                f"{statistics.median(c.seconds for c in same):.1f} s",
                f"{statistics.stdev(means):.3%}" if len(means) > 1 else "",
                f"{statistics.median(c.d_sd[metric] for c in same):.3%}",
                percent(seen) if seen is not None else "",
            )
        )
    return rows
