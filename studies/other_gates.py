"""The gates of four other tools, as published, on arrays: samples of many cases in, who is called slower out.

Every function takes `before` and `after`, arrays (..., samples) of times in any one unit, one row a case, and returns
an array (...) of bools: the tool would say that the case got slower. Written from the published rules, for comparison
in `simulate.py`; none of this is the tools' own code. What they do besides (improvements, plots) is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import stats


def pytest_benchmark(before: np.ndarray, after: np.ndarray, percent: float = 5.0) -> np.ndarray:
    """Return where `--benchmark-compare-fail=median:5%` fails: the median of rounds is more than 5 % above the other.

    Source: pytest-benchmark 5.3.1, documentation "Usage" (`--benchmark-compare-fail`) and `utils.py`
    (`PercentageRegressionCheck`). One run's median against another's; the spread of the rounds plays no part.
    """
    return np.asarray(np.median(after, axis=-1) / np.median(before, axis=-1) * 100 - 100 > percent)


ASV_FACTOR = 1.1
ASV_P = 0.002


def asv(before: np.ndarray, after: np.ndarray, factor: float = ASV_FACTOR, p_threshold: float = ASV_P) -> np.ndarray:
    """Return where `asv compare` and `asv continuous` mark a benchmark as worse.

    The median must exceed the other by more than `factor` (1.1, the default of `--factor`), and the samples must
    differ: two-sided Mann-Whitney U test, p < 0.002, exact up to 20 samples and by the normal approximation above;
    where so few samples could never reach that p, the two 99 % intervals of the medians must not overlap; where there
    is but one sample, the factor alone decides. Ties count against a difference.

    Source: airspeed velocity, `asv/_stats.py` (`is_different`, `mann_whitney_u`), `asv/commands/compare.py`
    (`_is_result_better`) and `asv/commands/common_args.py`, asv 0.6; the interval, `asv_runner/statistics.py`.
    """
    worse = np.asarray(np.median(before, axis=-1) < np.median(after, axis=-1) / factor)
    m, n = before.shape[-1], after.shape[-1]
    if min(m, n) > 1 and worse.any():
        if 1 / math.comb(m + n, m) < p_threshold:
            worse[worse] = _mann_whitney_p(before[worse], after[worse]) < p_threshold
        else:
            (_, high), (low, _) = _median_interval(before[worse]), _median_interval(after[worse])
            worse[worse] = low > high
    return worse


def _mann_whitney_p(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return two-sided p-values (Mann and Whitney 1947); ties are broken in favour of no difference."""
    m, n = before.shape[-1], after.shape[-1]
    above = after[..., None, :] - before[..., :, None]
    u = np.count_nonzero(above > 0, axis=(-2, -1))
    with_ties = u + np.count_nonzero(above == 0, axis=(-2, -1))
    nearest = np.clip(m * n // 2, u, with_ties)
    extreme = np.minimum(nearest, m * n - nearest)
    if max(m, n) > 20:
        deviation = (extreme - m * n / 2) / math.sqrt(m * n * (m + n + 1) / 12)
        return np.asarray(2 * stats.norm.cdf(deviation))
    return np.minimum(2 * _u_distribution(m, n)[extreme], 1.0)


@lru_cache
def _u_distribution(m: int, n: int) -> np.ndarray:
    """Return P(U ≤ u) for u = 0 … m·n: U counts as Gaussian binomial coefficients (Mann and Whitney 1947, eq. 4)."""
    orderings = np.zeros(m * n + 1)
    orderings[0] = 1
    for i in range(1, m + 1):
        for u in range(m * n, n + i - 1, -1):  # times (1 - q^(n + i))
            orderings[u] -= orderings[u - n - i]
        for u in range(i, m * n + 1):  # divided by (1 - q^i)
            orderings[u] += orderings[u - i]
    return np.cumsum(orderings) / math.comb(m + n, m)


def _median_interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return 99 % bounds of the median of fewer than 8 samples, for which no pair of order statistics reaches 99 %.

    asv then takes the posterior of the location under Laplace noise of unknown scale, p(b) ∝ (Σ|y - b|)^-n, and never
    less than the samples' own range. Σ|y - b| is linear between samples, so its integral is a sum of closed forms.
    """
    y = np.sort(samples, axis=-1)
    n = y.shape[-1]
    if n >= 8:
        raise ValueError("with 8 samples or more order statistics bound the median")
    scale = np.ptp(y, axis=-1)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        y = (y - y[..., :1]) / scale  # powers of -n of raw times would overflow
    distance = np.sum(np.abs(y[..., None, :] - y[..., :, None]), axis=-1)
    left, right, width = distance[..., :-1], distance[..., 1:], np.diff(y, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (right - left) / width
        sloped = (left ** (1 - n) - right ** (1 - n)) / ((n - 1) * slope)
    between = np.where(np.isclose(left, right), width * left**-n, sloped)
    tails = distance[..., [0, -1]] ** (1 - n) / (n * (n - 1))
    total = np.sum(np.nan_to_num(between), axis=-1) + np.sum(tails, axis=-1)
    reach = (0.005 * total * n * (n - 1)) ** (-1 / (n - 1))  # Σ|y - b| at the quantile, if it lies beyond the samples
    beyond_low, beyond_high = (reach - distance[..., 0]) / n, (reach - distance[..., -1]) / n
    first = np.min(samples, axis=-1)
    last = np.max(samples, axis=-1)
    spread = scale[..., 0]
    low = first - np.nan_to_num(np.maximum(beyond_low, 0)) * spread
    return low, last + np.nan_to_num(np.maximum(beyond_high, 0)) * spread


def criterion_rs(
    before: np.ndarray, after: np.ndarray, significance: float = 0.05, noise_threshold: float = 0.01
) -> np.ndarray:
    """Return where criterion.rs says "Performance has regressed".

    The means must differ by a two-sided t test (Welch's statistic against its bootstrap distribution in the pooled
    samples) at p < 0.05, and the 95 % percentile interval of the bootstrapped mean(after) / mean(before) - 1 must lie
    above the noise threshold of 1 %. Here both bootstraps (100,000 resamples of 100 samples each by default) are
    replaced by the normal approximation of the same two distributions; `tests/test_other_gates.py` holds it against a
    real bootstrap.

    Source: criterion.rs 0.5, the book's "Analysis Process" and "Command-Line Output"; the defaults,
    `Criterion::default` and the documentation of `noise_threshold`, which says 1 % (a page of the book still says 2 %).
    """
    m, n = before.shape[-1], after.shape[-1]
    mean_before, mean_after = np.mean(before, axis=-1), np.mean(after, axis=-1)
    t = (mean_after - mean_before) / np.sqrt(np.var(before, axis=-1, ddof=1) / m + np.var(after, axis=-1, ddof=1) / n)
    ratio = mean_after / mean_before
    # A resampled mean has the variance of the sample itself (ddof 0) over n; of a ratio, by the delta method.
    relative = np.var(before, axis=-1) / (m * mean_before**2) + np.var(after, axis=-1) / (n * mean_after**2)
    low = ratio - 1 - stats.norm.isf(0.025) * ratio * np.sqrt(relative)
    return np.asarray((np.abs(t) > stats.norm.isf(significance / 2)) & (low > noise_threshold))


def nvbench(before: np.ndarray, after: np.ndarray, clear_gap: float = 0.005) -> np.ndarray:
    """Return where `nvbench_compare_robust.py` says SLOW, with its default preset.

    Each side is an interval from its fastest sample to its third quartile (nearest rank, halves rounded up). SLOW
    when `after`'s begins above the end of `before`'s by 0.5 % or more of the latter. The script asks the same of
    cycles, time x SM clock; here the clock stands still, so both say the same. It exits with 0 whatever it finds: a
    caller must read its table.

    Source: NVIDIA/nvbench, `python/scripts/nvbench_compare_robust.py` at commit 0a2f954 (2026):
    `compute_robust_timing_input_from_samples`, `compare_intervals_for_clear_gap`, preset "default".
    """
    third_quartile = np.sort(before, axis=-1)[..., (75 * (before.shape[-1] - 1) + 50) // 100]
    return np.asarray(np.min(after, axis=-1) >= third_quartile * (1 + clear_gap))


GATES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "pytest-benchmark": pytest_benchmark,
    "asv": asv,
    "criterion.rs": criterion_rs,
    "nvbench": nvbench,
}
