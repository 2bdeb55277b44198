"""How latency rises with a size: each step of a sweep along one dimension, and where it is more than in proportion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import msgspec

from .. import verdict
from ..launches.sweep import PointOutcome
from ..records.measurement import CaseMeasurement
from ..suite.dimensions import BATCH
from ..verdict import Verdict


class SizeStep(msgspec.Struct, frozen=True, kw_only=True):
    """Latency at one size of a dimension beside the next smaller one that was measured, all else alike."""

    case_id: str
    """Of the larger size."""
    dimension: str
    smaller: int
    larger: int
    times: float
    """Latency at the larger over latency at the smaller, from `low` to `high`."""
    low: float
    high: float
    jumps: bool
    """Whether it rises by more than the size does, beyond noise."""

    def __str__(self) -> str:
        half, sizes = (self.high - self.low) / 2, f"{self.dimension} {self.smaller} to {self.larger}"
        return (
            f"{sizes}: latency is {self.times:.3g} times as high (± {half:.2g}), and {self.dimension} "
            f"{self.larger / self.smaller:.3g} times: {self.case_id}"
        )


class _Pair(NamedTuple):
    dimension: str
    smaller: PointOutcome
    larger: PointOutcome


def of(outcomes: Sequence[PointOutcome]) -> list[SizeStep]:
    """Return the steps of one model's points, in order of size.

    A step jumps where the sweep believes, as it does of any difference between points, that latency rises by more than
    the size: the ratio of latencies is beyond the ratio of sizes by the interval of the gate, at an error rate shared
    among all steps.
    """
    pairs = [pair for dimension in _dimensions(outcomes) for pair in _pairs(outcomes, dimension)]
    return [_step(pair, len(pairs)) for pair in pairs]


def _dimensions(outcomes: Sequence[PointOutcome]) -> list[str]:
    return list(dict.fromkeys(name for one in outcomes for name in one.case.settings.sizes))


def _pairs(outcomes: Sequence[PointOutcome], dimension: str) -> list[_Pair]:
    """Return neighbours along a dimension that differ in nothing else."""

    def rest(outcome: PointOutcome) -> str:
        settings = outcome.case.settings
        sizes = {name: size for name, size in settings.sizes.items() if name != dimension}
        rest = msgspec.structs.replace(settings.static, **_split(sizes))
        return f"{rest.suffix} {settings.dynamic} {settings.specialization}"

    measured = [one for one in outcomes if one.launches and dimension in one.case.settings.sizes]
    measured.sort(key=lambda one: (rest(one), one.case.settings.sizes[dimension]))
    groups = (list(group) for _, group in groupby(measured, key=rest))
    return [_Pair(dimension, *pair) for group in groups for pair in pairwise(group)]


def _split(sizes: dict[str, int]) -> dict[str, object]:
    return {"batch": sizes.get(BATCH), "shape": {name: size for name, size in sizes.items() if name != BATCH}}


def _step(pair: _Pair, steps: int) -> SizeStep:
    before, after = (CaseMeasurement(case_id=one.case.id, launches=one.launches) for one in (pair.smaller, pair.larger))
    metric = after.primary if after.primary in before.metrics else before.primary
    smaller, larger = (one.case.settings.sizes[pair.dimension] for one in (pair.smaller, pair.larger))
    ratio = larger / smaller
    judged = verdict.judge_stored(  # of latency per size, which a rise in proportion leaves alone
        metric, verdict.log_launch_means(after.samples(metric)) - math.log(ratio),
        [verdict.log_launch_means(before.samples(metric))], verdict.prior(metric, before.clock, after.clock),
        limit=0.0, tests=steps,
    )  # fmt: skip
    return SizeStep(
        case_id=after.case_id, dimension=pair.dimension, smaller=smaller, larger=larger,
        times=ratio * (1 + judged.change), low=ratio * (1 + judged.low), high=ratio * (1 + judged.high),
        jumps=judged.verdict is Verdict.REGRESSED,
    )  # fmt: skip
