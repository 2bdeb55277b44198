"""Verdicts are functions of data: error rates by simulation, real H100 launches, and what must never pass."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trtgate import verdict
from trtgate.verdict import Prior, Verdict, error_rates, stored_sessions
from trtgate.verdict.launch_groups import slower_group

DEVICE_PRIOR = verdict.PRIORS["device", True]
H100 = json.loads((Path(__file__).parent / "data" / "h100_resnet18_blocks.json").read_text())["launches"]


def launches(*microseconds: float) -> np.ndarray:
    return np.log(np.asarray(microseconds))


def judge(
    now: np.ndarray, sessions: list[np.ndarray], *, limit: float = 0.01, tests: int = 1, prior: Prior = DEVICE_PRIOR
):
    return verdict.judge_stored("device", now, sessions, prior, limit=limit, tests=tests)


@pytest.mark.parametrize("dof", [1, 2.5, 5, 400])
def test_students_t_is_scipys(dof: float) -> None:
    for alpha in (1e-7, 1e-3, 0.3):
        assert error_rates.quantile(alpha, dof) == pytest.approx(stats.t.isf(alpha, dof), rel=1e-9)
    values = np.linspace(-30, 30, 41)
    np.testing.assert_allclose(error_rates.probability(values, dof), stats.t.sf(values, dof), rtol=1e-9)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=40))
def test_the_trimmed_mean_is_scipys(values: list[float]) -> None:
    assert stored_sessions.launch_mean(values) == pytest.approx(
        stats.trim_mean(values, stored_sessions.TRIMMED), abs=1e-12
    )


def test_the_same_latency_is_proven_unchanged() -> None:
    found = judge(launches(100.0, 100.05, 99.95), [launches(100.0, 100.02, 99.98)])
    assert found.verdict is Verdict.UNCHANGED
    assert found.low < 0 < found.high < found.limit


def test_each_mean_is_as_uncertain_as_its_launches_are_few() -> None:
    """The interval is t·spread·√(1/6 + 1/3); stored launches beyond these six count as six."""
    now, before = launches(98.0, 102.0, 98.0, 102.0, 98.0, 102.0), launches(98.0, 100.0, 102.0)
    spread = stored_sessions.within_session_sd([now, before], 1)
    t = error_rates.quantile(error_rates.PROOF_ALPHA, DEVICE_PRIOR.dof)
    found = judge(now, [before], limit=0.1)
    assert math.log1p(found.high) - math.log1p(found.change) == pytest.approx(t * spread * math.sqrt(1 / 6 + 1 / 3))
    many = np.tile(now, 4)
    found, spread = judge(now, [many], limit=0.1), stored_sessions.within_session_sd([now, many], 1)
    assert math.log1p(found.high) - math.log1p(found.change) == pytest.approx(t * spread * math.sqrt(1 / 6 + 1 / 6))


@pytest.mark.parametrize(("factor", "wanted"), [(1.05, Verdict.REGRESSED), (0.95, Verdict.IMPROVED)])
def test_a_change_beyond_the_threshold_is_named_with_its_size(factor: float, wanted: Verdict) -> None:
    found = judge(launches(100 * factor, 100.02 * factor), [launches(100.0, 100.02)])
    assert found.verdict is wanted
    assert found.change == pytest.approx(factor - 1, abs=1e-3)


def test_noise_larger_than_the_limit_is_underpowered_and_says_what_could_be_seen() -> None:
    found = judge(launches(104.0, 96.0, 103.0), [launches(95.0, 105.0, 101.0)])
    assert found.verdict is Verdict.UNDERPOWERED
    assert found.detectable > found.threshold > found.limit


def test_a_slower_session_within_the_noise_of_its_launches_is_no_regression() -> None:
    assert judge(launches(100.0, 110.0, 105.0), [launches(100.0, 100.1, 99.9)]).verdict is Verdict.UNDERPOWERED


def test_more_tests_in_the_family_make_the_gate_wider() -> None:
    one = judge(launches(100.0), [launches(100.0)], limit=1e-4, tests=1)
    many = judge(launches(100.0), [launches(100.0)], limit=1e-4, tests=300)
    assert many.threshold > one.threshold


def test_the_threshold_is_never_tighter_than_the_limit() -> None:
    sessions = [launches(100.0, 100.0)] * 20
    assert judge(launches(100.9, 100.9), sessions).verdict is not Verdict.REGRESSED


def test_eight_sessions_replace_the_prior() -> None:
    rng = np.random.default_rng(1)
    sessions = [launches(*(100 * np.exp(rng.normal(0, 2e-5, 3)))) for _ in range(8)]
    loose = Prior(0.5, 4)
    assert judge(launches(100.0, 100.0, 100.0), sessions[:7], prior=loose).verdict is Verdict.UNDERPOWERED
    assert judge(launches(100.0, 100.0, 100.0), sessions, prior=loose).verdict is Verdict.UNCHANGED


@pytest.mark.parametrize("stored", [1, 3, 8])
def test_family_wise_false_alarms_stay_below_one_percent(stored: int) -> None:
    """Runs of 20 unchanged cases whose sessions spread as much as the prior says: at most 1 % may fail."""
    rng = np.random.default_rng(stored)
    runs, cases = 200, 20
    failed = 0
    for _ in range(runs):
        logs = rng.normal(0, DEVICE_PRIOR.sd, (cases, stored + 1, 1))
        found = [judge(case[-1], list(case[:-1]), limit=1e-6, tests=cases).verdict for case in logs]
        failed += Verdict.REGRESSED in found
    assert failed <= 6  # 200 runs at 1 %: more than 6 has a chance of 0.4 %


@given(
    st.lists(st.floats(1.0, 1e6), min_size=1, max_size=5),
    st.lists(st.lists(st.floats(1.0, 1e6), min_size=1, max_size=4), min_size=1, max_size=10),
    st.floats(1e-4, 0.5),
)
def test_a_verdict_never_contradicts_its_own_figures(now: list[float], stored: list[list[float]], limit: float) -> None:
    found = judge(launches(*now), [launches(*s) for s in stored], limit=limit)
    assert found.low <= found.change <= found.high
    assert found.threshold >= limit * (1 - 1e-9)
    if found.verdict is Verdict.REGRESSED:
        assert found.change > found.threshold * (1 - 1e-9)
    if found.verdict is Verdict.UNCHANGED:
        assert found.high < limit * (1 + 1e-9)


@given(st.floats(0.1, 10.0))
def test_the_unit_does_not_matter(scale: float) -> None:
    now, base = [100.0, 101.0], [100.0, 100.5, 99.0]
    plain = judge(launches(*now), [launches(*base)])
    scaled = judge(launches(*(scale * v for v in now)), [launches(*(scale * v for v in base))])
    assert scaled.change == pytest.approx(plain.change, abs=1e-9)
    assert scaled.verdict is plain.verdict


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_nan_and_non_positive_latencies_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="positive, finite"):
        verdict.log_launch_means([[[100.0, bad]]])


@pytest.mark.parametrize("empty", [[], [[]], [[[]]]])
def test_nothing_measured_is_no_evidence(empty: list) -> None:
    with pytest.raises(ValueError, match="no "):
        verdict.log_launch_means(empty)


def test_one_capture_that_was_not_warm_does_not_move_a_launch() -> None:
    warm = [[100.0]] * 11
    (mean,) = verdict.log_launch_means([[[150.0], *warm]])
    assert mean == pytest.approx(math.log(100))


def test_a_suspicion_needs_two_witnesses() -> None:
    slow, same = judge(launches(110.0), [launches(100.0)]), judge(launches(100.0), [launches(100.0)])
    assert verdict.confirm_stored(slow, slow).verdict is Verdict.REGRESSED
    assert verdict.confirm_stored(slow, same).verdict is Verdict.UNCONFIRMED
    assert verdict.confirm_stored(slow, same).change == same.change  # the figures are those of the fresh launches
    assert verdict.confirm_stored(same, slow).verdict is Verdict.UNCHANGED


def test_any_regressed_metric_decides_and_a_noisy_secondary_one_does_not_hide_the_proof() -> None:
    device = judge(launches(100.0), [launches(100.0)])
    host = verdict.judge_stored(
        "host", launches(300.0), [launches(300.0)], verdict.PRIORS["host", True], limit=0.1, tests=1
    )
    assert host.verdict is Verdict.UNDERPOWERED
    assert verdict.case_verdict([device, host], "device") is Verdict.UNCHANGED
    slow_host = verdict.judge_stored(
        "host", launches(3000.0), [launches(300.0)], verdict.PRIORS["host", True], limit=0.1, tests=1
    )
    assert verdict.case_verdict([device, slow_host], "device") is Verdict.REGRESSED


class TestRealLaunches:
    """Five launches of resnet18 on an H100, each its own build, with known injected delays."""

    def sessions(self, arm: str) -> list[np.ndarray]:
        return [verdict.log_launch_means([[launch[arm]]]) for launch in H100]

    def test_another_capture_of_the_same_module_is_unchanged(self) -> None:
        for now in self.sessions("a2"):
            assert judge(now, self.sessions("a"), tests=100).verdict is Verdict.UNCHANGED

    @pytest.mark.parametrize("arm", ["+2%", "+3%", "+5%"])
    def test_injected_delays_are_found(self, arm: str) -> None:
        for now in self.sessions(arm):
            assert judge(now, self.sessions("a"), tests=100).verdict is Verdict.REGRESSED

    def test_host_latency_of_the_same_launches_is_too_noisy_to_say_anything(self) -> None:
        *stored, now = self.sessions("host")
        found = verdict.judge_stored("host", now, stored, verdict.PRIORS["host", True], limit=0.1, tests=100)
        assert found.verdict is Verdict.UNDERPOWERED


class TestMachineState:
    def test_the_same_state_can_be_compared(self) -> None:
        assert verdict.another_state({"sm_clock": 509.0}, {"sm_clock": 509.4}, 1980, 1980, "") == ""

    @pytest.mark.parametrize(("now", "before"), [(509.8, 481.1), (481.1, 509.8)])
    def test_how_one_card_steps_its_clock_from_case_to_case_is_no_other_state(self, now: float, before: float) -> None:
        assert verdict.another_state({"sm_clock": now}, {"sm_clock": before}, 1980, 1980, "") == ""

    @pytest.mark.parametrize(
        ("canary", "mhz", "throttle", "named"),
        [
            (560.0, 1980, "", "sm_clock"),
            (509.0, 1700, "", "1700 MHz"),
            (509.0, 1980, "software power cap", "power cap"),
        ],
    )
    def test_another_state_is_named(self, canary: float, mhz: float, throttle: str, named: str) -> None:
        assert named in verdict.another_state({"sm_clock": canary}, {"sm_clock": 509.0}, mhz, 1980, throttle)

    def test_what_is_not_known_is_not_held_against_it(self) -> None:
        assert verdict.another_state({}, {"sm_clock": 509.0}, 0, 1980, "") == ""


class TestOrder:
    def test_without_a_trend_successive_differences_say_as_much_as_the_variance(self) -> None:
        values = np.random.default_rng(1).normal(0, 1.0, (20_000, 8))
        variance, dof = verdict.successive_spread(values)
        assert np.mean(variance) == pytest.approx(1.0, abs=0.02)
        assert np.var(variance) == pytest.approx(2 / dof, rel=0.05)  # of σ²·χ²/dof
        assert dof == pytest.approx(2 * 7**2 / 20)

    def test_the_order_counts_where_it_explains_the_spread(self) -> None:
        noise = np.random.default_rng(1).normal(0, 1.0, (20_000, 8))
        variance, dof = verdict.ordered_spread(noise)
        assert np.mean(dof < 7) == pytest.approx(0.05, abs=0.01)
        assert np.mean(variance) == pytest.approx(1.0, abs=0.03)
        step = np.repeat([0.0, 20.0], 4)
        trend = np.arange(8) * 5.0
        for shape in (step, trend):
            variance, dof = verdict.ordered_spread(noise + shape)
            assert np.mean(dof < 7) > 0.99
            assert np.mean(variance) < np.var(shape, ddof=1) / 2

    def test_one_session_says_nothing_and_two_as_much_as_ever(self) -> None:
        assert verdict.successive_spread(np.array([1.0])) == (0.0, 0.0)
        assert verdict.successive_spread(np.array([1.0, 3.0])) == (2.0, 1.0)

    @pytest.mark.parametrize("shape", [np.linspace(0, 0.5, 20), np.repeat([0.0, 0.05], 10)], ids=["trend", "step"])
    def test_neither_a_trend_nor_a_step_hides_the_next_change(self, shape: np.ndarray) -> None:
        noise = np.random.default_rng(1).normal(0, 0.001, 20)
        sessions = [np.log([100.0, 100.0]) + level for level in shape + noise]
        found = judge(np.log([100.0, 100.0]) + shape[-1] + 0.3, sessions, tests=100)
        assert found.verdict is Verdict.REGRESSED
        assert math.log1p(found.threshold) < 0.2

    def test_sessions_without_an_order_are_judged_alike_in_any(self) -> None:
        cards = [launches(100.0 + 0.3 * number) for number in (0, 5, 1, 4, 2, 3, 7, 6)]
        prior = verdict.PRIORS["device", False]
        one, other = (
            verdict.judge_stored("device", launches(100.0), some, prior, limit=0.01, tests=1, ordered=False)
            for some in (cards, cards[::2] + cards[1::2])
        )
        assert one.threshold == pytest.approx(other.threshold)

    def test_with_an_anchor_the_first_sessions_are_compared_with_and_all_say_how_far_they_lie_apart(self) -> None:
        sessions = [launches(us, us) for us in (100.0, 100.1, 99.9, 104.0, 104.1, 103.9, 104.0, 104.1)]
        found = verdict.judge_stored(
            "device", launches(104.0, 104.0), sessions, Prior(0.5, 4), limit=0.03, tests=1, compared=range(3)
        )
        assert found.baseline == pytest.approx(100.0)
        assert found.high - found.change < 0.1  # eight sessions do without the prior

    @pytest.mark.parametrize("count", range(5, 12))
    def test_rising_is_kendalls_test(self, count: int) -> None:
        rng = np.random.default_rng(count)
        for _ in range(50):
            values = rng.normal(0, 1, count) + np.arange(count) * rng.choice([0.0, 0.4])
            p = stats.kendalltau(np.arange(count), values, method="exact", alternative="greater").pvalue
            assert verdict.rises(values) is bool(p <= 0.01)

    def test_a_thousand_sessions_are_judged_as_scipy_does(self) -> None:
        for seed in range(20):
            rng = np.random.default_rng(seed)
            values = rng.normal(0, 1, 1000) + np.linspace(0, 0.1 * (seed % 5), 1000)
            p = stats.kendalltau(np.arange(1000), values, alternative="greater", method="asymptotic").pvalue
            assert verdict.rises(values) is bool(p <= 0.01)

    def test_of_fewer_than_five_sessions_and_of_equal_ones_nothing_rises(self) -> None:
        assert verdict.rises([1, 2, 3, 4, 5])
        assert not verdict.rises([1, 2, 3, 4])
        assert not verdict.rises([1, 1, 1, 1, 1, 1])


class TestGroups:
    def test_launches_far_apart_are_groups(self) -> None:
        assert slower_group(np.log([100, 201, 200]), 0.01, 0.01) == "2 of 3 processes are 2.0 times slower"
        assert slower_group(np.log([100, 100.1, 106]), 0.001, 0.01) == "1 of 3 processes is 5.9 % slower"

    @pytest.mark.parametrize(
        ("us", "usual", "limit"),
        [([100, 200], 0.01, 0.01), ([100, 200, 300], 0.01, 0.01), ([100, 200, 201], 0.2, 0.01), ([100, 102], 0, 0.03)],
        ids=["too few", "spread evenly", "usual", "within the limit"],
    )
    def test_others_are_one_group(self, us: list[float], usual: float, limit: float) -> None:
        assert slower_group(np.log(us), usual, limit) == ""

    def test_three_normal_launches_in_a_thousand_look_like_groups(self) -> None:
        rng = np.random.default_rng(1)
        seen = sum(bool(slower_group(rng.normal(0, 0.05, 3), 0.05, 0.0)) for _ in range(5000))
        assert seen <= 15
