"""Where a series of latencies changed, and whether it drifts: steps by Apache Otava, drift by trend and slope.

Three things are looked for in the logarithms of a series' latencies, where noise is a share of the latency:

* **Change points** by Apache Otava's `compute_change_points`: E-divisive means (Matteson and James, "A Nonparametric
  Approach for Multiple Change Point Analysis of Multivariate Data", JASA 109, 2014) with Student's t-test in place of
  permutations (Fleming et al., "Hunter: Using Change Point Detection to Hunt for Performance Regressions", ICPE 2023),
  in windows of WINDOW runs, at STEP_P.
* **A trend** up to the newest run by the Mann-Kendall test (Mann, Econometrica 13, 1945; scipy.stats.kendalltau of
  latency and order) over all runs and over the last of TREND_WINDOWS each, at TREND_P. A step is a trend too, so it is
  called drift only where a level that turns into a straight line fits better than Otava's steps (Schwarz's criterion).
  A drift has ended, and is told by Otava's steps, where the slope of the last ten runs is below half of its own.
* **How much it drifted** by the slope of Theil and Sen with its 95 % interval (scipy.stats.theilslopes), from the
  run where least squares let it begin.

Assumes that noise from run to run is independent and about normal. Of 12,000 flat series of 30 runs with such noise of
0.1 to 0.3 %, 0.5 % were called changed (tests/test_history.py has 1,000 of them); with noise that depends on the run
before it are more: 4.7 % at a correlation of 0.3, 26 % at 0.6; with outliers (Student's t of 3 degrees of freedom)
2.6 %. At noise of 0.2 % a step of 0.8 % ten runs ago was found within a run in 98 % of 500 series; a drift of 0.1 % a
run over the last ten was called one in 84 %, and nearly all others steps (`python studies/history.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from ..common.errors import TrtgateError

LEAST_RUNS = 5
"""Below, no change is looked for."""
WINDOW = 50
STEP_P = 1e-4
TREND_WINDOWS = (40, 20, 10)
TREND_P = 1e-3
LEAST_DRIFTING = 6
"""Runs that a drift must have taken: below, a line can't be told from a step."""
RESOLUTION = 1e-5
"""Relative; stored latencies are rounded, so a fit that is better than this is no better."""


class LevelShift(msgspec.Struct, frozen=True, kw_only=True):
    """A change between two runs; latencies are geometric means of the level before and after."""

    first: int
    """The first point of the new level."""
    before_us: float
    after_us: float


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A change little by little up to the newest run, as a fraction with its 95 % interval."""

    first: int
    """The point from where it drifted."""
    runs: int
    change: float
    low: float
    high: float
    p: float = 1.0
    """Of the trend, times how many windows are looked at: how often a flat series has one as clear."""


def found(logs: np.ndarray) -> tuple[list[LevelShift], Drift | None]:
    """Return the steps and the drift of logarithms of latencies, the oldest first.

    Raises TrtgateError when Apache Otava is not installed.
    """
    changes = change_points(logs)
    drift = drift_of(logs, changes)
    return steps_of(logs, changes, len(logs) if drift is None else drift.first + 1), drift


def change_points(logs: np.ndarray) -> list[int]:
    """Return where a new level begins, by Apache Otava; raises TrtgateError when it is not installed."""
    if len(logs) < LEAST_RUNS:
        return []
    try:
        from otava.analysis import compute_change_points
    except ImportError as error:
        raise TrtgateError(
            "trtgate history needs Apache Otava: pip install 'trtgate[history]', or, to keep NumPy as it is: "
            "pip install --no-deps apache-otava"
        ) from error
    # A list, since Otava 0.8.0 does not cut windows out of an array; levels without any noise divide by zero.
    with np.errstate(divide="ignore", invalid="ignore"):
        found, _ = compute_change_points(logs.tolist(), window_len=WINDOW, max_pvalue=STEP_P)
    return [int(change.index) for change in found]


def steps_of(logs: np.ndarray, changes: Sequence[int], end: int) -> list[LevelShift]:
    """Return the changes before `end`, from where on a drift explains them, with the levels on either side."""
    bounds = [0, *(change for change in changes if change < end), end]
    levels = [math.exp(float(np.mean(logs[start:stop]))) for start, stop in pairwise(bounds)]
    return [
        LevelShift(first=first, before_us=before, after_us=after)
        for first, (before, after) in zip(bounds[1:-1], pairwise(levels), strict=True)
    ]


def drift_of(logs: np.ndarray, changes: Sequence[int]) -> Drift | None:
    """Return the drift up to the newest run: over all runs, or the longest of TREND_WINDOWS that has one, or None."""
    for length in [len(logs), *(window for window in TREND_WINDOWS if window < len(logs))]:
        start = len(logs) - length
        if length < min(TREND_WINDOWS) or (p := _trend_p(logs[start:])) > TREND_P:
            continue
        began, error = _best_bend(logs[start:])
        levels = [0, *(change - start for change in changes if change > start), length]
        if _bic(error, length, 3) < _bic(_step_error(logs[start:], levels), length, 2 * len(levels) - 3):
            drift = _drift(logs, start + began, min(1.0, p * (1 + len(TREND_WINDOWS))))
            if not _ended(logs, drift):
                return drift
    return None


def _stats() -> Any:
    """Return scipy.stats, which takes a second to import; a run reports without it."""
    from scipy import stats

    return stats


def _ended(logs: np.ndarray, drift: Drift) -> bool:
    """Return whether the newest runs rise or fall by less than half of the drift's slope, by their slope's interval."""
    newest = min(TREND_WINDOWS)
    if drift.runs <= newest:
        return False
    half = math.log1p(drift.change) / (drift.runs - 1) / 2
    _, _, low, high = _stats().theilslopes(logs[-newest:], alpha=0.95)
    return bool(high < half) if half > 0 else bool(low > half)


def _trend_p(logs: np.ndarray) -> float:
    if np.ptp(logs) < RESOLUTION:
        return 1.0
    return float(_stats().kendalltau(np.arange(len(logs)), logs).pvalue)


def _best_bend(logs: np.ndarray) -> tuple[int, float]:
    """Return where a level that turns into a straight line should turn, and its squared error.

    The regression of each bend in closed form: sums of what follows it are differences of running sums.
    """
    count, y = len(logs), logs - np.mean(logs)
    began = np.arange(count - LEAST_DRIFTING + 1)
    after = count - 1.0 - began
    sum_x, sum_xx = after * (after + 1) / 2, after * (after + 1) * (2 * after + 1) / 6
    later, times_run = (np.cumsum(values[::-1])[::-1][began] for values in (y, y * np.arange(count)))
    of_line = (times_run - began * later) ** 2 / (sum_xx - sum_x**2 / count)
    errors = np.sum(y**2) - of_line
    best = int(np.argmin(errors))
    return best, max(0.0, float(errors[best]))


def _step_error(logs: np.ndarray, bounds: Sequence[int]) -> float:
    return sum(float(np.var(logs[start:stop]) * (stop - start)) for start, stop in pairwise(bounds))


def _bic(squared_error: float, runs: int, parameters: int) -> float:
    """Return Schwarz's criterion for normal errors (Annals of Statistics 6, 1978), less a constant."""
    return runs * math.log(squared_error / runs + RESOLUTION**2) + parameters * math.log(runs)


def _drift(logs: np.ndarray, first: int, p: float) -> Drift:
    slope, _, low, high = _stats().theilslopes(logs[first:], alpha=0.95)
    runs = len(logs) - first
    change, low, high = (math.expm1(float(value) * (runs - 1)) for value in (slope, low, high))
    return Drift(first=first, runs=runs, change=change, low=low, high=high, p=p)
