"""Pairs as functions of data: what is cleared, suspected, confirmed, refuted; and every regression can fail."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtgate import verdict
from trtgate.common.metrics import COLD_L2, COLD_START, COLD_START_CACHED, EXACT, METRICS, OF_GROWTH, OF_LOAD, SAMPLED
from trtgate.verdict import LOOKS, Verdict

DEFAULTS = {name: metric.limit for name, metric in METRICS.items()}
MANY_TESTS = 10_000
"""More judgements than any run makes: what is reachable here is reachable."""


def spread(mean: float, sd: float, n: int) -> np.ndarray:
    """Return n values with exactly this mean and standard deviation."""
    values = np.linspace(-1.0, 1.0, n)
    return mean + sd * (values - values.mean()) / values.std(ddof=1)


def test_a_quadruple_is_free_of_linear_drift() -> None:
    drift = np.array([1.0, 1.01, 1.02, 1.03])  # A B B A
    base, candidate = 100 * drift[[0, 3]], 105 * drift[[1, 2]]
    (d,) = verdict.differences(base[None], candidate[None])
    assert d == pytest.approx(math.log(1.05), abs=1e-4)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_latency_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        verdict.differences(np.array([[1.0, bad]]), np.array([[1.0, 1.0]]))


@pytest.mark.parametrize("n", LOOKS)
def test_the_same_is_cleared_the_slower_flagged_and_between_them_it_goes_on(n: int) -> None:
    limit = 0.01
    same, slower = verdict.screen(spread(0.0, 1e-3, n), limit), verdict.screen(spread(0.03, 1e-3, n), limit)
    assert (bool(same.cleared), bool(same.flagged)) == (True, False)
    assert (bool(slower.cleared), bool(slower.flagged)) == (False, True)
    edge = verdict.screen(spread(math.log1p(limit) - 1e-5, 1e-3, n), limit)
    assert not edge.cleared
    assert not edge.flagged


def test_at_the_first_look_a_case_may_be_cleared_and_none_is_suspected() -> None:
    """Three quadruples prove a quiet case unchanged; a suspicion costs fresh pairs, and waits for the next look."""
    same, slower = (verdict.screen(spread(mean, 1e-4, verdict.FIRST_LOOK), 0.01) for mean in (0.0, 1.0))
    assert (bool(same.cleared), bool(same.flagged)) == (True, False)
    assert (bool(slower.cleared), bool(slower.flagged)) == (False, False)
    judgement, more = verdict.judge_screened("device", spread(1.0, 1e-4, 3), 100.0, limit=0.01, tests=10)
    assert (judgement.verdict, more) == (Verdict.UNDERPOWERED, True)


@given(st.floats(-0.05, 0.05), st.floats(1e-5, 0.02), st.sampled_from(verdict.SCREENING_LOOKS))
def test_what_is_cleared_is_not_suspected_and_an_estimate_above_the_limit_is_never_cleared(
    mean: float, sd: float, n: int
) -> None:
    found = verdict.screen(spread(mean, sd, n), 0.01)
    assert not (found.cleared and found.flagged)
    assert not (found.cleared and found.mean > math.log1p(0.01))


def test_at_the_last_look_what_is_estimated_above_the_limit_is_suspected() -> None:
    just_above = spread(math.log1p(0.01) + 1e-5, 5e-3, LOOKS[-1])
    assert verdict.screen(just_above, 0.01).flagged
    assert not verdict.screen(just_above[: LOOKS[0]] * 0 + spread(0.011, 5e-3, LOOKS[0]), 0.01).flagged


def test_host_latency_is_taken_as_it_is_measured() -> None:
    """It was once screened with a spread that launches have on CPUs of their own: 40 % slower went unsuspected."""
    d = spread(math.log(1.4), 0.01, LOOKS[0])
    assert verdict.judge_screened("host", d, 1.0, limit=0.1, tests=10)[0].verdict is Verdict.REGRESSED


def test_screening_is_vectorised_over_cases() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(0.0, 0.01, (50, LOOKS[0]))
    together = verdict.screen(d, 0.01)
    alone = [bool(verdict.screen(row, 0.01).cleared) for row in d]
    assert list(together.cleared) == alone


def test_a_judgement_says_what_it_rests_on_and_what_it_could_see() -> None:
    judgement, more = verdict.judge_screened("device", spread(0.0, 1e-3, 6), 100.0, limit=0.01, tests=100)
    assert (judgement.verdict, more) == (Verdict.UNCHANGED, False)
    assert judgement.evidence == "6 quadruples in one pair of launches"
    assert judgement.limit < judgement.threshold < judgement.detectable
    assert judgement.baseline == judgement.now == pytest.approx(100.0)


def test_one_pair_proves_nothing_where_launches_are_known_to_lie_apart() -> None:
    d = spread(0.0, 1e-3, LOOKS[-1])
    judgement, more = verdict.judge_screened("device", d, 100.0, limit=0.01, tests=100, unseen_sd=verdict.QUEUED_SD)
    assert (judgement.verdict, more) == (Verdict.UNDERPOWERED, False)
    assert judgement.low < -0.05 < 0.05 < judgement.high
    suspected = verdict.screen(spread(0.03, 1e-3, 6), 0.01, unseen_sd=verdict.QUEUED_SD)
    assert suspected.flagged  # fresh pairs decide


def test_faster_beyond_the_limit_is_improved() -> None:
    judgement, _ = verdict.judge_screened("device", spread(-0.05, 1e-3, 6), 100.0, limit=0.01, tests=100)
    assert judgement.verdict is Verdict.IMPROVED


def test_too_noisy_to_tell_asks_for_more_until_the_last_look() -> None:
    for n, asks in zip(LOOKS, (True, True, False), strict=True):
        judgement, more = verdict.judge_screened("device", spread(0.0, 0.05, n), 100.0, limit=0.01, tests=100)
        assert (judgement.verdict, more) == (Verdict.UNDERPOWERED, asks)


def test_confirmation_decides_by_fresh_pairs() -> None:
    confirmed, more = verdict.judge_confirmed("device", spread(0.05, 1e-3, 6), 100.0, limit=0.01, tests=300)
    assert (confirmed.verdict, more) == (Verdict.REGRESSED, False)
    assert confirmed.p < 0.01 / 300
    refuted, more = verdict.judge_confirmed("device", spread(0.005, 1e-3, 6), 100.0, limit=0.01, tests=300)
    assert (refuted.verdict, more) == (Verdict.UNCONFIRMED, False)
    some = np.array([0.0, 0.7, 0.7, 0.69, 0.7, 0.01])
    modes, more = verdict.judge_confirmed("device", some, 100.0, limit=0.01, tests=300)
    assert (modes.verdict, more, modes.groups) == (
        Verdict.UNDERPOWERED, True, "4 of 6 pairs of processes are 2.0 times slower",
    )  # fmt: skip
    noisy, more = verdict.judge_confirmed("device", spread(0.02, 0.02, 6), 100.0, limit=0.01, tests=300)
    assert (noisy.verdict, more) == (Verdict.UNDERPOWERED, True)


def test_a_confirming_pair_stops_as_soon_as_its_own_spread_is_negligible_whatever_its_mean() -> None:
    for mean in (-0.5, 0.0, 0.5):
        steady, noisy = mean + np.array([1e-4, -1e-4, 1e-4, -1e-4]), mean + np.array([5e-3, -5e-3, 5e-3, -5e-3])
        assert [bool(verdict.pair_tells(steady[:n], 0.01)) for n in (1, 2, 3, 4)] == [False, True, True, True]
        assert [bool(verdict.pair_tells(noisy[:n], 0.01)) for n in (1, 2, 3, 4)] == [False, False, False, True]
        assert not verdict.pair_tells(steady[:2], 0.001)


def test_a_confirming_pair_that_knows_its_mean_to_half_the_limit_alone_goes_on_to_twelve_quadruples() -> None:
    d = 0.05 * np.resize([1.0, -1.0], 12)
    told = [bool(verdict.pair_tells(d[:n], 0.02)) for n in range(1, 13)]
    assert told == [False] * 11 + [True]
    assert [bool(verdict.pair_tells(d[:n], 0.13)) for n in (3, 4)] == [False, True]
    several = verdict.pair_tells(np.stack([d, d / 10]), 0.02)  # at twelve whatever their spread
    assert several.tolist() == [True, True]
    assert verdict.pair_tells(np.stack([d, d / 10])[:, :4], 0.02).tolist() == [False, True]


@given(st.floats(-0.2, 0.2), st.floats(1e-5, 0.1), st.floats(1e-3, 0.2), st.sampled_from(LOOKS))
def test_confirmed_and_refuted_exclude_each_other(mean: float, sd: float, limit: float, n: int) -> None:
    found = verdict.confirm(spread(mean, sd, n), limit, 100)
    assert not (found.confirmed and found.refuted)
    assert found.low <= found.mean <= found.high
    if found.confirmed:
        assert found.p <= 0.01 / 100


def test_holm_is_as_in_a_worked_example() -> None:
    assert verdict.adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert verdict.adjusted([]) == []
    assert verdict.adjusted([0.9, 0.8]) == [1.0, 1.0]


class TestCounts:
    def test_one_engine_more_is_a_regression_and_one_less_an_improvement(self) -> None:
        assert verdict.judge_exact("engines", 2, 1, limit=0.0).verdict is Verdict.REGRESSED
        assert verdict.judge_exact("engines", 1, 2, limit=0.0).verdict is Verdict.IMPROVED
        assert verdict.judge_exact("engines", 1, 1, limit=0.0).verdict is Verdict.UNCHANGED

    def test_of_a_baseline_of_zero_anything_is_more(self) -> None:
        found = verdict.judge_exact("pytorch_operators", 3, 0, limit=0.0)
        assert (found.verdict, found.change) == (Verdict.REGRESSED, 3)

    def test_what_the_count_cannot_tell_is_no_change(self) -> None:
        metric = METRICS["gpu_memory"]
        base = 100 << 20
        for more, wanted in ((32 << 20, Verdict.UNCHANGED), (128 << 20, Verdict.REGRESSED)):
            found = verdict.judge_exact(
                "gpu_memory", base + more, base, limit=metric.limit, resolution=metric.resolution
            )
            assert found.verdict is wanted


class TestReachability:
    """For every default a large enough regression does fail, and the smallest p is below its alpha."""

    @pytest.mark.parametrize("metric", SAMPLED)
    def test_screening_suspects_and_confirmation_fails_what_is_ten_times_slower(self, metric: str) -> None:
        for n in LOOKS:
            d = spread(math.log(10), 0.1, n)
            suspected, _ = verdict.judge_screened(metric, d, 1.0, limit=DEFAULTS[metric], tests=MANY_TESTS)
            failed, _ = verdict.judge_confirmed(metric, d, 1.0, limit=DEFAULTS[metric], tests=MANY_TESTS)
            assert (suspected.verdict, failed.verdict) == (Verdict.REGRESSED, Verdict.REGRESSED)
            assert failed.p < verdict.FAMILY_ALPHA / MANY_TESTS / len(LOOKS)

    @pytest.mark.parametrize(("kind", "same_card"), sorted(verdict.PRIORS))
    @pytest.mark.parametrize("sessions", [1, 3, 8, 20])
    def test_stored_baselines_fail_what_is_a_hundred_times_slower(
        self, kind: str, same_card: bool, sessions: int
    ) -> None:
        metric = {"cpu": "host", "queued": "device"}.get(kind, kind)
        stored = [np.log([100.0, 101.0, 99.0]) + 0.01 * n / sessions for n in range(sessions)]
        found = verdict.judge_stored(
            metric, np.log([1e4, 1.01e4]), stored, verdict.PRIORS[kind, same_card],
            limit=DEFAULTS[metric], tests=MANY_TESTS,
        )  # fmt: skip
        assert found.verdict is Verdict.REGRESSED
        assert found.p < verdict.FAMILY_ALPHA / MANY_TESTS

    @pytest.mark.parametrize("metric", EXACT)
    def test_counts_fail_what_is_ten_times_more(self, metric: str) -> None:
        resolution = METRICS[metric].resolution
        base = max(1.0, resolution)
        found = verdict.judge_exact(metric, 10 * base, base, limit=DEFAULTS[metric], resolution=resolution)
        assert found.verdict is Verdict.REGRESSED

    def test_every_metric_has_a_default_and_a_way_to_fail(self) -> None:
        of_cold = {COLD_START, COLD_START_CACHED, COLD_L2}
        assert set(METRICS) == {*SAMPLED, *EXACT, *OF_LOAD, *OF_GROWTH, *of_cold, "build"}
        assert all(limit >= 0 for limit in DEFAULTS.values())
