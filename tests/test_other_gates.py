"""The other tools' gates, on examples computed by hand from their published rules."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from studies import other_gates

TEN = np.arange(100.0, 110.0)


def one(gate, before, after) -> bool:
    return bool(gate(np.asarray([before], dtype=float), np.asarray([after], dtype=float))[0])


@pytest.mark.parametrize(("median", "fails"), [(105.0, False), (105.1, True), (90.0, False)])
def test_pytest_benchmark_compares_medians_alone(median: float, fails: bool) -> None:
    assert one(other_gates.pytest_benchmark, [90, 100, 500], [median - 1, median, 900]) is fails


def test_asv_needs_both_the_factor_and_the_test() -> None:
    assert one(other_gates.asv, TEN, TEN * 1.11)
    assert not one(other_gates.asv, TEN, TEN * 1.09)
    # Medians 1 and 1.2, yet 6 of 10 lie among the others: U = 70, far from significant.
    assert not one(other_gates.asv, [0.9] * 2 + [1.0] * 6 + [9.0] * 2, [0.8] * 3 + [1.2] * 7)


def test_asv_p_values_are_mann_and_whitneys() -> None:
    rng = np.random.default_rng(0)
    for m, n in ((10, 10), (7, 12), (30, 25)):
        before, after = rng.normal(size=(20, m)), rng.normal(0.7, size=(20, n))
        found = other_gates._mann_whitney_p(before, after)
        method = "exact" if max(m, n) <= 20 else "asymptotic"
        wanted = stats.mannwhitneyu(before, after, axis=-1, method=method, use_continuity=False).pvalue
        assert found == pytest.approx(wanted)


def test_asv_ties_count_against_a_difference() -> None:
    same = np.ones((1, 10))
    assert other_gates._mann_whitney_p(same, same)[0] == 1.0


def test_asv_with_few_samples_asks_for_disjoint_intervals() -> None:
    # 1/C(10, 5) = 1/252 > 0.002: five samples a side can't reach the p-value however far apart they lie.
    assert one(other_gates.asv, [1.00, 1.01, 1.02, 1.03, 1.04], [2.00, 2.01, 2.02, 2.03, 2.04])
    assert not one(other_gates.asv, [1.0, 1.1, 1.2, 1.3, 1.4], [1.5, 1.6, 1.7, 1.8, 1.9])
    assert one(other_gates.asv, [1.0], [1.2])  # one sample: the factor alone


def test_asv_interval_is_the_laplace_posteriors_quantile() -> None:
    samples = np.asarray([[1.0, 1.2, 1.3, 1.7, 2.4]])
    low, high = other_gates._median_interval(samples)
    grid = np.linspace(-40, 45, 2_000_001)
    density = np.sum(np.abs(grid[:, None] - samples), axis=-1) ** -5.0
    cdf = np.cumsum(density) / np.sum(density)
    assert low[0] == pytest.approx(grid[np.searchsorted(cdf, 0.005)], abs=1e-3)
    assert high[0] == pytest.approx(grid[np.searchsorted(cdf, 0.995)], abs=1e-3)


def test_asv_interval_of_equal_samples_is_a_point() -> None:
    assert not one(other_gates.asv, [1.0, 1.0, 1.0], [1.05, 1.05, 1.05])
    assert one(other_gates.asv, [1.0, 1.0, 1.0], [1.2, 1.2, 1.2])


@pytest.mark.parametrize(("mean", "regressed"), [(1.0, False), (1.012, False), (1.02, True)])
def test_criterion_wants_the_interval_above_one_percent(mean: float, regressed: bool) -> None:
    # Of 100 samples at ±3 % the mean is known to 0.3 %, a difference to 0.42 %: +1.2 % is significant, yet
    # its interval reaches down to 0.37 %; of +2 % it begins at 1.16 %.
    noise = np.tile([0.97, 1.03], 50)
    assert one(other_gates.criterion_rs, noise, noise * mean) is regressed


def test_criterion_approximation_agrees_with_a_bootstrap() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(100, 2, (60, 100))
    after = rng.normal(101.6, 2, (60, 100))
    resampled = rng.integers(0, 100, (2, 1000, 100))
    agree = 0
    for b, a, found in zip(before, after, other_gates.criterion_rs(before, after), strict=True):
        changes = np.mean(a[resampled[0]], axis=-1) / np.mean(b[resampled[1]], axis=-1) - 1
        agree += (np.percentile(changes, 2.5) > 0.01) == found
    assert agree >= 55


@pytest.mark.parametrize(("fastest", "slow"), [(1.0704, False), (1.0755, True), (0.9, False)])
def test_nvbench_wants_a_gap_between_fastest_and_third_quartile(fastest: float, slow: bool) -> None:
    before = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 1.08, 5.0]
    # Rank round(0.75 x 9) = 7: the third quartile is 1.07, and 0.5 % above it 1.07535.
    assert one(other_gates.nvbench, before, [fastest, *[1.2] * 9]) is slow
