"""The rules of a verdict, on a scripted measurer: what is done next, and what is concluded."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.scripted_measurer import (
    CASE,
    TENSORRT,
    VOID,
    ScriptedMeasurer,
    judged,
    measurement,
    pairs,
    record,
    turn,
)
from trtgate.common.errors import TrtgateError
from trtgate.common.metrics import DEVICE, GPU_MEMORY, METRICS
from trtgate.common.notices import Notice
from trtgate.gate.driver import NoneKeptError
from trtgate.gate.policy import Measured, Rebuilt, Reloaded
from trtgate.launches.pair import BASE, CANDIDATE, DisturbedError, SideError
from trtgate.launches.worker_handle import LaunchError
from trtgate.records.measurement import Build
from trtgate.verdict import LOOKS, Verdict


def default_limit(metric: str) -> float:
    return METRICS[metric].limit


STORED = record((100.0, 100.0, 100.0))
SAME, SLOW, FAST = measurement(100.0, 100.1, 99.9), measurement(110.0, 110.1, 109.9), measurement(90.0, 90.1, 89.9)
FEW, MORE, MOST = LOOKS


# Against a baseline


@pytest.mark.parametrize(
    ("measured", "wanted"), [(SAME, Verdict.UNCHANGED), (FAST, Verdict.IMPROVED)], ids=["same", "fast"]
)
def test_what_is_no_suspect_is_measured_once(measured: Any, wanted: Verdict) -> None:
    script = ScriptedMeasurer([measured])
    result = judged(script, record=STORED)
    assert (result.verdict, result.stored, script.asked) == (wanted, True, ["measure"])


def test_a_suspect_fails_only_if_fresh_launches_say_so_too() -> None:
    script = ScriptedMeasurer([SLOW], [SLOW])
    result = judged(script, record=STORED)
    assert (result.verdict, result.stored, script.asked) == (Verdict.REGRESSED, False, ["measure", "fresh"])
    assert judged(ScriptedMeasurer([SLOW], [SAME]), record=STORED).verdict is Verdict.UNCONFIRMED


def test_an_accepted_regression_is_stored_unless_its_test_fails_anyway() -> None:
    assert judged(ScriptedMeasurer([SLOW], [SLOW]), record=STORED, accepted=True).stored
    assert not judged(ScriptedMeasurer([SAME]), record=STORED, failing=True).stored


def test_nothing_is_judged_without_a_comparison_and_nothing_stored_is_new() -> None:
    plain = judged(ScriptedMeasurer([SLOW]), compare=False, record=STORED)
    assert (plain.verdict, plain.sentence, plain.stored) == (None, "", True)
    new = judged(ScriptedMeasurer([SLOW]), new="NEW: nothing is stored")
    assert (new.verdict, new.sentence, new.stored) == (Verdict.NEW, "NEW: nothing is stored", True)


def test_void_blocks_give_no_verdict_and_none_at_all_no_measurement() -> None:
    some = judged(ScriptedMeasurer([measurement(VOID, 100.0, 100.0)]), record=STORED)
    assert (some.verdict, some.stored) == (Verdict.UNDERPOWERED, False)
    nothing = measurement(VOID, VOID, VOID)
    none = judged(ScriptedMeasurer([nothing]), record=STORED)
    assert (none.verdict, none.measurement.launches) == (Verdict.UNDERPOWERED, [])
    for given in ({"compare": False}, {"update": True}):
        with pytest.raises(TrtgateError, match="not one block counts"):
            judged(ScriptedMeasurer([nothing]), record=STORED, **given)


@pytest.mark.parametrize(
    "measured", [measurement(*[turn(100.0, clock="cuda_events")] * 3), measurement(*[turn(100.0, canary_us=600)] * 3)]
)
def test_another_state_or_clock_is_incomparable_and_stored_where_accepted(measured: Any) -> None:
    result = judged(ScriptedMeasurer([measured]), record=STORED)
    assert (result.verdict, result.stored, result.judgements) == (Verdict.INCOMPARABLE, False, [])
    assert judged(ScriptedMeasurer([measured]), record=STORED, accepted=True).stored


def test_a_state_that_changed_meanwhile_is_what_is_told() -> None:
    changed = measurement(*[turn(110.0, canary_us=600)] * 3)
    script = ScriptedMeasurer([SLOW], [changed, changed])
    assert judged(script, record=STORED).verdict is Verdict.INCOMPARABLE
    assert script.asked == ["measure", "fresh", "fresh"]


# Beside the kept module


def test_a_kept_module_confirms_at_planned_looks_and_no_fresh_launches_are_needed() -> None:
    script = ScriptedMeasurer([SLOW], paired=[pairs(0.1, FEW)])
    result = judged(script, record=STORED, pairable=True)
    assert (result.verdict, script.asked) == (Verdict.REGRESSED, ["measure", f"pairs {FEW}"])
    assert result.judgements[0].evidence == f"{FEW} fresh pairs of launches"


def test_pairs_go_on_to_the_last_look_while_they_can_not_tell() -> None:
    looks = [pairs(0.1, FEW, 0.3), pairs(0.1, MORE - FEW, 0.3), pairs(0.1, MOST - MORE, 0.3)]
    script = ScriptedMeasurer([SLOW], paired=looks)
    result = judged(script, record=STORED, pairable=True)
    assert (result.verdict, result.suspected) == (Verdict.UNDERPOWERED, True)
    assert script.asked == ["measure", f"pairs {FEW}", f"pairs {MORE - FEW}", f"pairs {MOST - MORE}"]


def test_pairs_end_as_soon_as_they_prove_that_it_is_not_slower() -> None:
    script = ScriptedMeasurer([SLOW], paired=[pairs(0.0, FEW)])
    assert judged(script, record=STORED, pairable=True).verdict is Verdict.UNCONFIRMED
    assert script.asked == ["measure", f"pairs {FEW}"]


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (SideError(BASE, "can't be loaded"), "it failed: can't be loaded"),
        (DisturbedError("blocks do not count"), "blocks do not count"),
        (NoneKeptError("none is kept on this machine"), "none is kept on this machine"),
    ],
)
def test_a_kept_module_that_fails_leaves_the_stored_comparison(error: Exception, why: str) -> None:
    script = ScriptedMeasurer([SLOW], [SLOW], paired=[error])
    result = judged(script, record=STORED, pairable=True)
    assert (result.verdict, script.asked[-1]) == (Verdict.REGRESSED, "fresh")
    said = f"{CASE.id}: not measured beside the baseline's compiled module: {why}"
    assert result.notices == (Notice(said),)


def test_a_candidate_that_fails_is_its_own_fault() -> None:
    with pytest.raises(SideError, match="crashed"):
        judged(ScriptedMeasurer([SLOW], paired=[SideError(CANDIDATE, "crashed")]), record=STORED, pairable=True)


# The build


def test_a_slow_build_is_built_again_and_judged_by_that() -> None:
    slow = Build(build_s=100.0, engines=1)
    stored = record((100.0, 100.0, 100.0), figures={"build_s": 10.0, "engines": 1.0})
    given: dict[str, Any] = {"case": TENSORRT, "record": stored, "limit_of": default_limit}
    script = ScriptedMeasurer([measurement(100.0, 100.1, 99.9, build=slow)], rebuilt=[Rebuilt(slow)])
    result = judged(script, **given)
    assert (result.verdict, script.asked) == (Verdict.REGRESSED, ["measure", "rebuild"])
    quick = msgspec.structs.replace(slow, build_s=10.0)
    script = ScriptedMeasurer([measurement(100.0, 100.1, 99.9, build=slow)], rebuilt=[Rebuilt(quick)])
    assert judged(script, **given).verdict is Verdict.UNCONFIRMED
    noisy = msgspec.structs.replace(slow, build_s=14.0)
    script = ScriptedMeasurer([measurement(100.0, 100.1, 99.9, build=slow)], rebuilt=[Rebuilt(noisy)])
    result = judged(script, **given)
    assert (result.verdict, result.suspected) == (Verdict.UNDERPOWERED, True)
    assert "build time 10 s → 14 s, +40.00%" in result.sentence
    assert "at first +900.00%" in result.sentence


def test_what_another_build_confirms_stands_though_fresh_launches_can_say_nothing() -> None:
    slow = Build(build_s=100.0)
    stored = record((100.0, 100.0, 100.0), figures={"build_s": 10.0})
    first = measurement(110.0, 110.1, 109.9, build=slow)
    void = measurement(VOID, 110.0, 110.0)
    script = ScriptedMeasurer([first], [void, void], rebuilt=[Rebuilt(slow)])
    result = judged(script, case=TENSORRT, record=stored)
    assert result.verdict is Verdict.REGRESSED
    verdicts = {one.metric: one.verdict for one in result.judgements}
    assert (verdicts[DEVICE], verdicts["build"]) == (Verdict.UNDERPOWERED, Verdict.REGRESSED)
    assert result.suspected


# Beside a base


def beside(change: float, *, memory: int = 0) -> Measured:
    quadruples = [one for pair in pairs(change, 2) for one in pair][:FEW]
    from trtgate.gate import policy

    now = measurement(turn(100 * (1 + change)), memory=memory)
    screened, _ = policy.screened(quadruples, now, lambda _metric: 0.03, 3)
    return Measured(now, measurement(turn(100.0), memory=1000 if memory else 0), tuple(screened))


def test_beside_a_base_a_suspect_is_confirmed_by_fresh_pairs_and_nothing_is_stored() -> None:
    script = ScriptedMeasurer([beside(0.1)], paired=[pairs(0.1, FEW)])
    result = judged(script, beside_base=True)
    assert (result.verdict, result.stored, script.asked) == (Verdict.REGRESSED, False, ["measure", f"pairs {FEW}"])
    assert result.base is not None
    quick = ScriptedMeasurer([beside(0.0)])
    assert (judged(quick, beside_base=True).verdict, quick.asked) == (Verdict.UNCHANGED, ["measure"])


def test_more_memory_is_loaded_again() -> None:
    script = ScriptedMeasurer([beside(0.0, memory=10**9)], reloaded=[Reloaded(10.0**9, 1000.0)])
    result = judged(script, beside_base=True)
    assert (result.verdict, script.asked) == (Verdict.REGRESSED, ["measure", "reload"])
    assert [one.metric for one in result.judgements if one.verdict is Verdict.REGRESSED] == [GPU_MEMORY]


@pytest.mark.parametrize(
    ("error", "verdict", "said"),
    [
        (SideError(BASE, "no luck"), Verdict.INCOMPARABLE, "the base failed: no luck"),
        (DisturbedError("hot"), Verdict.UNDERPOWERED, "hot"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_base_that_fails_is_told_apart_from_a_candidate(
    error: Exception, verdict: Verdict, said: str, late: bool
) -> None:
    script = ScriptedMeasurer([beside(0.1)] if late else [error], paired=[error, error])
    result = judged(script, beside_base=True)
    suspicion = "suspected, not checked: device latency 100 µs → 109.93 µs, +9.93% (+9.85% to +10.00%), limit 3 %; "
    assert (result.verdict, result.sentence) == (verdict, f"{CASE.id}: {suspicion * late}{said}")
    assert (bool(result.measurement.launches), result.suspected) == (late, late)
    with pytest.raises(LaunchError, match=f"{CASE.id}: crashed"):
        judged(ScriptedMeasurer([SideError(CANDIDATE, "crashed")]), beside_base=True)


def test_a_base_without_the_case_or_with_another_clock_compares_nothing() -> None:
    new = judged(ScriptedMeasurer(), beside_base=True, new="small: the base has no such case")
    assert (new.verdict, new.sentence) == (Verdict.NEW, "small: the base has no such case")
    other = Measured(measurement(turn(100.0)), measurement(turn(100.0, clock="cuda_events")))
    result = judged(ScriptedMeasurer([other]), beside_base=True)
    assert (result.verdict, result.judgements) == (Verdict.INCOMPARABLE, [])
    assert "the base was timed with the clock cuda_events" in result.sentence
