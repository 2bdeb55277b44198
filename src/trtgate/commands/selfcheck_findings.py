"""What comparisons of cases with themselves say of a machine: false alarms, power, and the limits that it allows."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from scipy import stats

from ..common.accelerator import Accelerator
from ..common.text_columns import Line, TextTable
from ..gate.sentences import percent
from ..verdict import FAMILY_ALPHA, LOOKS, POWER, quantile

NICE = (1.0, 2.0, 5.0)
CONFIDENCE = 0.95


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
    cases: list[str]
    streams: str
    limits: dict[str, float]
    wanted_delay: float
    comparisons: list[SelfComparison]
    problems: list[str] = []
    """What was left out, and why."""
    too_short: list[str] = []
    """Cases that are too short for the delay: they are compared unchanged alone."""
    failed: bool = False
    """Whether something failed of what was left out; what is too short, or was disturbed or interrupted, did not."""
    tests: int


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
    problems = Counter(found.problems).items()
    return said + [f"left out{f' {times} times' * (times > 1)}: {problem}" for problem, times in problems]


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
