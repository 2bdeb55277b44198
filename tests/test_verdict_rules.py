"""The rules of a verdict, on a scripted measurer: what is done next, and what is concluded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tests.scripted_measurer import (
    CASE,
    HERE,
    TENSORRT,
    VOID,
    ScriptedMeasurer,
    judged,
    measurement,
    pairs,
    record,
    turn,
)
from trtgate.common.errors import FaultError, TrtgateError, is_fault
from trtgate.common.metrics import DEVICE, GPU_MEMORY, HOST, METRICS
from trtgate.common.notices import Notice
from trtgate.gate.baseline_record import CaseRecord, StoredSession
from trtgate.gate.driver import NoneKeptError
from trtgate.gate.outcome import Kind, outcome
from trtgate.gate.policy import Measured, Rebuilt, Reloaded, confirmed_by_pairs, screened
from trtgate.launches.pair import BASE, CANDIDATE, DisturbedError, SideError
from trtgate.launches.worker_handle import LaunchError
from trtgate.records.measurement import Build, CallCounts, Quadruple
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


@pytest.mark.parametrize("us", [(VOID, 100.0, 100.0), (VOID, VOID, VOID)], ids=["some", "none"])
def test_void_blocks_do_not_hide_that_nothing_is_stored(us: tuple[float, ...]) -> None:
    measured = ScriptedMeasurer([measurement(*us)])
    found = judged(measured, new="NEW: nothing is stored (docs: new-case)")
    assert (found.verdict, found.stored) == (Verdict.NEW, False)
    assert found.sentence.startswith("NEW: nothing is stored; ")
    assert found.sentence.endswith(" (docs: new-case)")
    again = judged(ScriptedMeasurer([measurement(VOID, 100.0, 100.0)]), new="NEW: nothing is stored", update=True)
    assert (again.verdict, again.stored) == (Verdict.UNDERPOWERED, False)


def test_another_state_is_incomparable_and_stored_where_accepted() -> None:
    measured = measurement(*[turn(100.0, canary_us=600)] * 3)
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


@pytest.mark.parametrize(("device", "more"), [(0.1, 0), (0.02, MORE - FEW)], ids=["proven slower", "within the limit"])
def test_a_noisy_metric_of_the_host_asks_for_further_pairs_only_while_the_run_might_be_green(
    device: float, more: int
) -> None:
    def noisy(quadruple: Quadruple, times: float) -> Quadruple:
        hosts = [msgspec.structs.replace(one, host_us=[100.0 * times]) for one in quadruple.candidate]
        return msgspec.structs.replace(quadruple, candidate=hosts)

    measured = [
        [noisy(one, times) for one in of_pair]
        for of_pair, times in zip(pairs(device, FEW), (0.8, 2.0, 1.0, 1.5, 0.9, 1.9), strict=True)
    ]
    found, wanted = confirmed_by_pairs(measured, (DEVICE, HOST), DEVICE, lambda _metric: 0.03, 3)
    assert wanted == more
    assert found[HOST].verdict is Verdict.UNDERPOWERED
    assert found[DEVICE].verdict is (Verdict.REGRESSED if device > 0.03 else Verdict.UNCONFIRMED)


@pytest.mark.parametrize(("us", "pairable"), [(110.0, True), (110.0, False), (100.0, True)])
def test_pairs_import_while_it_is_built_again_where_they_are_asked_for_next(us: float, pairable: bool) -> None:
    """The build is slower each time; only a slower latency is asked of pairs, and only where there can be any."""
    slow = Build(build_s=100.0, engines=1)
    before = record((100.0, 100.0, 100.0), figures={"build_s": 10.0, "engines": 1.0})
    measured = measurement(us, us + 0.1, us - 0.1, build=slow)
    script = ScriptedMeasurer([measured], [measured], rebuilt=[Rebuilt(slow)], paired=[pairs(0.1, FEW)])
    judged(script, case=TENSORRT, record=before, pairable=pairable, limit_of=default_limit)
    assert script.awaited == [us > 100 and pairable]


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


# On another card, as a second stage may be


def elsewhere(*us: float) -> Any:
    return msgspec.structs.replace(measurement(*us), uuid="ELSEWHERE")


def test_a_suspicion_is_confirmed_on_another_card_by_what_is_stored_of_that_one() -> None:
    (session,) = STORED.sessions
    slower = msgspec.structs.replace(session, uuid="ELSEWHERE", metrics={"device": [[110.0], [110.0], [110.0]]})
    both = msgspec.structs.replace(STORED, sessions=[session, slower])
    assert judged(ScriptedMeasurer([SLOW], [elsewhere(121.0, 121.1, 120.9)]), record=both).verdict is Verdict.REGRESSED
    assert (
        judged(ScriptedMeasurer([SLOW], [elsewhere(110.0, 110.1, 109.9)]), record=both).verdict is Verdict.UNCONFIRMED
    )


def test_launches_on_another_card_are_not_joined_to_the_first() -> None:
    noisy, stored = measurement(98.5, 102.0, 100.5), record((100.0, 98.6, 101.3, 100.8, 99.3))
    result = judged(ScriptedMeasurer([noisy], [elsewhere(100.0, 99.0, 101.0)]), record=stored)
    assert len(result.measurement.launches) == 3
    assert "further launches do not count: measured on another card, ELSEWHERE" in result.notices[0].text


def test_the_change_since_a_cards_anchor_is_not_checked_on_another_one() -> None:
    slow = (112.0, 112.1, 111.9)
    result = judged(
        ScriptedMeasurer([measurement(*slow)], [elsewhere(*slow)]), record=risen(102.0, 104.0, 106.0, 108.0, 111.5)
    )
    assert (result.verdict, result.suspected) == (Verdict.INCOMPARABLE, True)
    assert "the change since the anchor is of card HERE, and fresh launches ran on ELSEWHERE" in result.sentence


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


def lines(count: int | None) -> Build:
    """Return a build of which so many lines of Python a call were counted; None: they could not be."""
    return Build(build_s=1.0, calls=CallCounts(counts={} if count is None else {"python_lines": count}))


def of_lines(*counts: float) -> CaseRecord:
    """Return a record of a session for each count; the newest comes last."""
    made = record(*[(100.0, 100.0, 100.0)] * len(counts), figures={"python_lines": counts[-1]})
    sessions = [
        msgspec.structs.replace(one, figures={"python_lines": count})
        for one, count in zip(made.sessions, counts, strict=True)
    ]
    return msgspec.structs.replace(made, sessions=sessions)


@pytest.mark.parametrize(
    ("stored", "first", "again", "said"),
    [
        ([100], 200, 200, Verdict.REGRESSED),
        ([100], 200, 201, Verdict.REGRESSED),
        ([100], 200, 180, Verdict.UNCONFIRMED),  # two builds of the same code differ
        ([100], 180, 200, Verdict.UNCONFIRMED),
        ([100], 200, 100, Verdict.UNCONFIRMED),
        ([100], 200, None, Verdict.UNCONFIRMED),
        ([200, 100], 200, None, Verdict.UNCHANGED),  # a session had as many
        ([200, 100], 150, None, Verdict.UNCHANGED),
        ([200, 100], 211, 211, Verdict.REGRESSED),
        ([100, 200], 100, None, Verdict.UNCHANGED),
    ],
)
def test_a_count_that_varies_by_itself_is_no_regression(
    stored: list[float], first: int, again: int | None, said: Verdict
) -> None:
    script = ScriptedMeasurer([measurement(100.0, 100.1, 99.9, build=lines(first))], rebuilt=[Rebuilt(lines(again))])
    result = judged(script, record=of_lines(*stored), limit_of=default_limit)
    assert result.verdict is said
    if said is Verdict.REGRESSED:
        assert f"{max(stored)} → {again}" in result.sentence


@pytest.mark.parametrize(
    ("times", "more", "said"),
    [
        (1.00, [False] * 4, Verdict.UNCHANGED),
        (1.08, [True, True, True, False], Verdict.REGRESSED),  # above its limit, and too noisy to suspect it earlier
        (1.02, [True, False, False, False], Verdict.UNDERPOWERED),  # below it, at first by less than a standard error
        (1.60, [True, False, False, False], Verdict.REGRESSED),
    ],
)
def test_a_metric_of_the_host_that_may_exceed_its_limit_gets_further_quadruples(
    times: float, more: list[bool], said: Verdict
) -> None:
    """The device's latency is the same, and known to be at the first look."""
    spread = (0.93, 1.0, 1.07) if times > 1 else (0.999, 1.0, 1.001)
    made = [one for of_pair in pairs(0.0, LOOKS[-1]) for one in of_pair][: LOOKS[-1]]
    noisy = []
    for number, one in enumerate(made):
        host_us = [100 * times * spread[number % 3]]
        slower = [msgspec.structs.replace(turn, host_us=host_us) for turn in one.candidate]
        noisy.append(msgspec.structs.replace(one, candidate=slower))
    found = [screened(noisy[:look], measurement(100.0), lambda _metric: 0.05, 3) for look in (3, *LOOKS)]
    assert [wanted for _, wanted in found] == more
    (of_host,) = [one for one in found[-1][0] if one.metric == HOST]
    assert of_host.verdict is said


@pytest.mark.parametrize(
    ("first", "again", "said"),
    [
        ((200, 100), (200, 100), Verdict.REGRESSED),
        ((200, 100), (180, 100), Verdict.UNCONFIRMED),
        ((200, 100), (200, 120), Verdict.UNCONFIRMED),
        ((200, 100), (200, None), Verdict.UNCONFIRMED),
        ((200, 100), (None, 100), Verdict.UNCONFIRMED),
    ],
)
def test_beside_a_base_neither_side_may_vary(first: Any, again: Any, said: Verdict) -> None:
    """(lines of the candidate, lines of the base)."""
    measured = [measurement(100.0, 100.1, 99.9, build=lines(count)) for count in first]
    screen, _ = screened([one for pair in pairs(0.0, 6) for one in pair][:6], measured[0], default_limit, 3)
    script = ScriptedMeasurer(
        [Measured(measured[0], measured[1], tuple(screen))], rebuilt=[Rebuilt(*map(lines, again))]
    )
    assert judged(script, beside_base=True, limit_of=default_limit).verdict is said


# Builds of one program may differ in their kernels


def made(artifact: str) -> Build:
    """Return a build whose compiled module has this digest."""
    return Build(build_s=1.0, artifact=artifact)


def of_module(artifact: str) -> CaseRecord:
    """Return the record of a session that measured this compiled module."""
    (session,) = STORED.sessions
    return msgspec.structs.replace(STORED, sessions=[msgspec.structs.replace(session, artifact=artifact)])


@pytest.mark.parametrize(
    ("us", "said", "goes_on"),
    [
        (110.0, Verdict.REGRESSED, "; a second build of it is slower too"),
        (100.0, Verdict.UNCONFIRMED, "; that was a second build of it, and builds of a program may differ"),
    ],
)
def test_a_slower_build_fails_only_if_a_second_one_is_slower_too(us: float, said: Verdict, goes_on: str) -> None:
    first, second = (measurement(of, of + 0.1, of - 0.1, build=made(name)) for of, name in ((110.0, "b"), (us, "c")))
    script = ScriptedMeasurer([first], [second], rebuilt=[Rebuilt(made("c"))])
    result = judged(script, record=of_module("a"))
    assert (result.verdict, script.asked) == (said, ["measure", "rebuild", "fresh"])
    assert f"{goes_on} (docs" in result.sentence


def test_so_it_is_beside_the_kept_module_and_pairs_import_meanwhile() -> None:
    script = ScriptedMeasurer(
        [measurement(110.0, 110.1, 109.9, build=made("b"))], rebuilt=[Rebuilt(made("c"))], paired=[pairs(0.0, FEW)]
    )
    result = judged(script, record=of_module("a"), pairable=True)
    assert (result.verdict, script.asked) == (Verdict.UNCONFIRMED, ["measure", "rebuild", f"pairs {FEW}"])
    assert script.awaited == [True]


@pytest.mark.parametrize("before", ["b", ""])
def test_the_baselines_own_module_and_what_is_stored_nowhere_is_not_built_again(before: str) -> None:
    slow = measurement(110.0, 110.1, 109.9, build=made(before))
    script = ScriptedMeasurer([slow], [slow])
    assert judged(script, record=of_module(before)).verdict is Verdict.REGRESSED
    assert script.asked == ["measure", "fresh"]


def test_a_second_build_that_is_the_first_bit_by_bit_is_not_spoken_of() -> None:
    slow = measurement(110.0, 110.1, 109.9, build=made("b"))
    script = ScriptedMeasurer([slow], [slow], rebuilt=[Rebuilt(made("b"))])
    assert "second build" not in judged(script, record=of_module("a")).sentence


@pytest.mark.parametrize(("of_base", "steps"), [("a", ["rebuild"]), ("b", []), ("", ["rebuild"])])
def test_beside_a_base_both_are_built_again_unless_they_share_a_module(of_base: str, steps: list[str]) -> None:
    now, before = (measurement(us, build=made(name)) for us, name in ((110.0, "b"), (100.0, of_base)))
    screen, _ = screened([one for pair in pairs(0.1, 6) for one in pair][:6], now, default_limit, 3)
    script = ScriptedMeasurer(
        [Measured(now, before, tuple(screen))], rebuilt=[Rebuilt(made("c"), made("d"))], paired=[pairs(0.1, FEW)]
    )
    assert judged(script, beside_base=True, limit_of=default_limit).verdict is Verdict.REGRESSED
    assert script.asked == ["measure", *steps, f"pairs {FEW}"]


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
    now = measurement(turn(100 * (1 + change)), memory=memory)
    found, _ = screened(quadruples, now, lambda _metric: 0.03, 3)
    return Measured(now, measurement(turn(100.0), memory=1000 if memory else 0), tuple(found))


@pytest.mark.parametrize(
    ("device", "host", "quadruples", "more"),
    [(0.0, 0.0, 3, False), (0.0, 0.5, 3, True), (0.1, 0.0, 3, True), (0.0, 0.5, 6, False), (0.0, 0.0, 2, True),
     (0.0, 0.0, 5, True)],
)  # fmt: skip
def test_three_quadruples_are_enough_where_the_device_is_quiet_and_nothing_else_looks_worse(
    device: float, host: float, quadruples: int, more: bool
) -> None:
    slower = turn(100 * (1 + device))
    slower = msgspec.structs.replace(slower, host_us=[100 * (1 + host)], enqueue_us=[100 * (1 + host)])
    found = [Quadruple(base=[turn(100.0)] * 2, candidate=[slower] * 2)] * quadruples
    assert screened(found, measurement(slower), lambda _metric: 0.03, 3)[1] is more


def test_beside_a_base_a_suspect_is_confirmed_by_fresh_pairs_and_nothing_is_stored() -> None:
    script = ScriptedMeasurer([beside(0.1)], paired=[pairs(0.1, FEW)])
    result = judged(script, beside_base=True)
    assert (result.verdict, result.stored, script.asked) == (Verdict.REGRESSED, False, ["measure", f"pairs {FEW}"])
    assert result.base is not None
    quick = ScriptedMeasurer([beside(0.0)])
    assert (judged(quick, beside_base=True).verdict, quick.asked) == (Verdict.UNCHANGED, ["measure"])


def test_one_pair_timed_by_queued_events_proves_nothing() -> None:
    now = measurement(turn(100.0, clock="cuda_events"))
    found, _ = screened([one for pair in pairs(0.0, 16) for one in pair][:16], now, default_limit, 3)
    assert found[0].verdict is Verdict.UNDERPOWERED


def test_more_memory_is_loaded_again() -> None:
    script = ScriptedMeasurer([beside(0.0, memory=10**9)], reloaded=[Reloaded(10.0**9, 1000.0)])
    result = judged(script, beside_base=True)
    assert (result.verdict, script.asked) == (Verdict.REGRESSED, ["measure", "reload"])
    assert [one.metric for one in result.judgements if one.verdict is Verdict.REGRESSED] == [GPU_MEMORY]


@pytest.mark.parametrize(
    ("error", "verdict", "said"),
    [
        (SideError(BASE, "no luck (docs: wrong-output)"), Verdict.INCOMPARABLE, "the base failed: no luck"),
        (DisturbedError("hot"), Verdict.UNDERPOWERED, "hot"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_base_that_fails_is_told_apart_from_a_candidate(
    error: Exception, verdict: Verdict, said: str, late: bool
) -> None:
    script = ScriptedMeasurer([beside(0.1)] if late else [error], paired=[error, error])
    result = judged(script, beside_base=True)
    slower = "latency 100 µs → 109.93 µs, +9.93% (+9.85% to +10.00%), limit 3 %; "
    suspicion = f"suspected, not checked: device {slower}host {slower}{slower.replace('latency', 'enqueue time')}"
    name = "suspected" if late else "base-failed" if verdict is Verdict.INCOMPARABLE else "void-blocks"
    assert (result.verdict, result.sentence) == (verdict, f"{CASE.id}: {suspicion * late}{said} (docs: {name})")
    assert (bool(result.measurement.launches), result.suspected) == (late, late)
    with pytest.raises(LaunchError, match=f"{CASE.id}: crashed"):
        judged(ScriptedMeasurer([SideError(CANDIDATE, "crashed")]), beside_base=True)


def test_a_machine_that_is_at_fault_while_the_base_works_fails_the_case() -> None:
    """Such as a full disk: nothing was compared, and the base is no reason for that."""
    fault = SideError(BASE, "no space left")
    fault.__cause__ = FaultError("no space left")
    with pytest.raises(LaunchError, match=f"{CASE.id}: the base failed: no space left") as caught:
        judged(ScriptedMeasurer([fault]), beside_base=True)
    assert is_fault(caught.value)


def test_a_base_without_the_case_or_with_another_clock_compares_nothing() -> None:
    new = judged(ScriptedMeasurer(), beside_base=True, new="small: the base has no such case")
    assert (new.verdict, new.sentence) == (Verdict.NEW, "small: the base has no such case")
    other = Measured(measurement(turn(100.0)), measurement(turn(100.0, clock="cuda_events")))
    result = judged(ScriptedMeasurer([other]), beside_base=True)
    assert (result.verdict, result.judgements) == (Verdict.INCOMPARABLE, [])
    assert "the base was timed with the clock cuda_events" in result.sentence


def test_a_candidate_that_can_not_be_captured_while_the_base_can_fails() -> None:
    lost = Measured(measurement(turn(100.0, clock="cuda_events")), measurement(turn(100.0)))
    result = judged(ScriptedMeasurer([lost]), beside_base=True)
    assert (result.verdict, result.judgements) == (Verdict.REGRESSED, [])
    assert "can't be captured into a CUDA graph any more" in result.sentence


# What a suspicion becomes that can't be checked, or is neither confirmed nor refuted


def test_a_case_that_another_metric_fails_names_the_suspicion_that_was_not_checked() -> None:
    void = measurement(VOID, 200.0, 200.0)
    slower = measurement(200.0, 200.2, 199.8, build=lines(200))
    script = ScriptedMeasurer([slower], [void, void], rebuilt=[Rebuilt(lines(200))])
    result = judged(script, record=of_lines(100), limit_of=default_limit)
    assert result.verdict is Verdict.REGRESSED
    assert result.sentence.startswith(f"{CASE.id} got worse: lines of Python a call 100 → 200 (+100.00%), limit 5 %")
    assert "; suspected, not checked: device latency 100 µs → 200 µs, +100.00%" in result.sentence
    assert result.sentence.endswith("4 of 12 blocks do not count: hot (docs: regressed-calls)")


CHANGED_STATE = measurement(*[turn(200.0, canary_us=600)] * 3)
TWICE = measurement(200.0, 200.2, 199.8)


@pytest.mark.parametrize(
    ("unusable", "verdict", "why"),
    [
        (measurement(VOID, 200.0, 200.0), Verdict.UNDERPOWERED, "4 of 12 blocks do not count: hot"),
        (CHANGED_STATE, Verdict.INCOMPARABLE, "this machine is in another state"),
    ],
)
def test_a_suspicion_that_can_not_be_checked_is_measured_once_more_and_then_told(
    unusable: Any, verdict: Verdict, why: str
) -> None:
    script = ScriptedMeasurer([TWICE], [unusable, unusable])
    result = judged(script, record=STORED)
    assert script.asked == ["measure", "fresh", "fresh"]
    assert (result.verdict, result.suspected, result.stored) == (verdict, True, False)
    assert result.sentence.startswith(f"{CASE.id}: suspected, not checked: device latency 100 µs → 200 µs, +100.00%")
    assert why in result.sentence
    assert (
        outcome(str(result.verdict), CASE.id, result.sentence, suspected=True, require={"verdict"}).kind is Kind.FAILED
    )
    (notice,) = outcome(str(result.verdict), CASE.id, result.sentence, suspected=True).notices
    assert notice.loud


@pytest.mark.parametrize(("again", "wanted"), [(TWICE, Verdict.REGRESSED), (SAME, Verdict.UNCONFIRMED)])
def test_the_second_try_at_checking_it_counts(again: Any, wanted: Verdict) -> None:
    script = ScriptedMeasurer([TWICE], [CHANGED_STATE, again])
    assert judged(script, record=STORED).verdict is wanted
    assert script.asked == ["measure", "fresh", "fresh"]


def test_a_disturbed_pair_beside_a_base_is_tried_once_more() -> None:
    script = ScriptedMeasurer([beside(0.1)], paired=[DisturbedError("hot"), pairs(0.1, FEW)])
    assert judged(script, beside_base=True).verdict is Verdict.REGRESSED
    assert script.asked == ["measure", "pairs", f"pairs {FEW}"]


def test_fresh_launches_that_prove_nothing_leave_a_suspicion() -> None:
    script = ScriptedMeasurer([TWICE], [measurement(90.0, 120.0, 105.0)])
    result = judged(script, record=STORED)
    assert (result.verdict, result.suspected, result.stored) == (Verdict.UNDERPOWERED, True, False)
    assert "looked worse, and measuring again neither confirmed nor refuted it" in result.sentence
    assert "at first +100.00%" in result.sentence


def test_processes_of_which_some_are_slower_are_a_suspicion_that_names_them() -> None:
    script = ScriptedMeasurer([measurement(100.0, 200.0, 100.1)], [measurement(200.0, 200.2, 100.0)])
    result = judged(script, record=STORED)
    assert script.asked == ["measure", "fresh"]
    assert (result.verdict, result.suspected) == (Verdict.UNDERPOWERED, True)
    assert "3 of 6 processes are 2.0 times slower" in result.sentence


def test_one_slow_process_that_fresh_ones_do_not_show_is_told_all_the_same() -> None:
    result = judged(ScriptedMeasurer([measurement(100.0, 200.0, 100.1)], [SAME]), record=STORED)
    assert result.verdict is Verdict.UNCONFIRMED
    assert "1 of 6 processes is 2.0 times slower" in result.sentence


def test_launches_of_one_build_that_lie_apart_say_nothing_of_it_and_fresh_ones_are_of_the_same() -> None:
    apart, alike = (msgspec.structs.replace(one, build=made("b")) for one in (measurement(100.0, 200.0, 100.1), SAME))
    script = ScriptedMeasurer([apart], [alike], rebuilt=[Rebuilt(made("c"))])
    result = judged(script, record=of_module("a"))
    assert (result.verdict, script.asked) == (Verdict.UNCONFIRMED, ["measure", "fresh"])
    assert "1 of 6 processes is 2.0 times slower" in result.sentence


def test_launches_that_lie_apart_in_the_baseline_too_are_no_groups() -> None:
    modes = record((100.0, 200.0, 100.1), (100.0, 200.0, 199.8))
    script = ScriptedMeasurer([measurement(100.0, 200.0, 100.1)])
    assert not judged(script, record=modes).suspected
    assert script.asked == ["measure"]


# What is stored, and the anchor


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize("accepted", [False, True])
def test_what_can_not_be_told_is_stored_where_it_is_accepted_and_that_is_said(update: bool, accepted: bool) -> None:
    wild = measurement(90.0, 120.0, 105.0)
    result = judged(ScriptedMeasurer([wild]), record=STORED, update=update, accepted=accepted)
    assert (result.verdict, result.stored) == (Verdict.UNDERPOWERED, accepted)
    said = [str(notice) for notice in result.notices if notice.loud]
    how = f"to store it: --trtgate-update-baselines --trtgate-accept '{CASE.id}'"
    wanted = {
        False: f"WARNING: {CASE.id}: not stored, since it is underpowered; {how} (docs: not-stored)",
        True: f"WARNING: {CASE.id}: stored although it is underpowered, since it is accepted (docs: stored-unproven)",
    }
    assert said == ([wanted[accepted]] if update else [])


def test_the_first_session_of_a_card_is_stored_though_other_cards_tell_little() -> None:
    elsewhere = msgspec.structs.replace(HERE, uuid="ELSEWHERE")
    result = judged(ScriptedMeasurer([measurement(102.0, 102.1, 101.9)]), record=STORED, accelerator=elsewhere)
    assert (result.verdict, result.stored) == (Verdict.UNDERPOWERED, True)


def risen(*levels: float, anchor: Sequence[float] = (100.0, 100.0, 100.0)) -> CaseRecord:
    """Return a baseline whose anchor is gone from its sessions, and lies at other levels than these."""
    made = record(*[(us, us, us) for us in levels])
    sessions = msgspec.structs.replace(made, sessions=[dated(one, "2026-02-02") for one in made.sessions])
    old = [dated(session, "2026-01-02T00:00:00+00:00") for session in record(*[(us, us, us) for us in anchor]).sessions]
    return msgspec.structs.replace(sessions, anchor=old)


def dated(session: StoredSession, recorded: str) -> StoredSession:
    return msgspec.structs.replace(session, recorded=recorded)


def test_a_case_that_rose_bit_by_bit_regresses_since_the_anchor() -> None:
    boiled = risen(*[111.0] * 8)
    now = measurement(112.0, 112.1, 111.9)
    script = ScriptedMeasurer([now], [now])
    result = judged(script, record=boiled, pairable=True)
    assert (result.verdict, result.stored) == (Verdict.REGRESSED, False)
    assert script.asked == ["measure", "fresh"]  # never beside the last session's module
    assert "device latency 100 µs → 112 µs since the anchor of 2026-01-02, +12.00%" in result.sentence
    assert "limit 9 %" in result.sentence
    assert [one.since_anchor for one in result.judgements] == [True]


@pytest.mark.parametrize(("of_anchor", "steps"), [("a", ["rebuild", "fresh"]), ("b", ["fresh"])])
def test_a_change_since_the_anchor_is_held_against_the_anchors_build(of_anchor: str, steps: list[str]) -> None:
    boiled = risen(*[111.0] * 8)
    sessions, anchor = (
        [msgspec.structs.replace(one, artifact=name) for one in some]
        for some, name in ((boiled.sessions, "b"), (boiled.anchor, of_anchor))
    )
    now = measurement(112.0, 112.1, 111.9, build=made("b"))
    script = ScriptedMeasurer([now], [now], rebuilt=[Rebuilt(made("c"))])
    judged(script, record=msgspec.structs.replace(boiled, sessions=sessions, anchor=anchor))
    assert script.asked == ["measure", *steps]


def test_a_change_since_the_anchor_that_fresh_launches_do_not_show_is_unconfirmed() -> None:
    boiled = risen(*[107.0] * 8)
    script = ScriptedMeasurer([measurement(109.9, 110.0, 109.8)], [measurement(102.0, 102.1, 101.9)])
    assert judged(script, record=boiled).verdict is Verdict.UNCONFIRMED


def test_pairs_that_refute_the_last_change_do_not_refute_the_total_one() -> None:
    boiled = risen(*[109.0] * 8)
    now = measurement(113.5, 113.6, 113.4)
    script = ScriptedMeasurer([now], [now], paired=[pairs(0.0, FEW)])
    result = judged(script, record=boiled, pairable=True)
    assert script.asked == ["measure", f"pairs {FEW}", "fresh"]
    assert result.verdict is Verdict.REGRESSED
    assert "since the anchor of 2026-01-02" in result.sentence
    script = ScriptedMeasurer([now], paired=[pairs(0.1, FEW)])
    confirmed = judged(script, record=boiled, pairable=True)
    assert (confirmed.verdict, "anchor" in confirmed.sentence) == (Verdict.REGRESSED, False)


def test_a_total_change_near_its_limit_is_no_proof() -> None:
    """Against the last sessions it is unchanged; since the anchor 8.9 % of 9 %."""
    result = judged(ScriptedMeasurer([measurement(108.9, 109.0, 108.8)]), record=risen(*[108.5] * 8))
    assert (result.verdict, result.stored) == (Verdict.UNDERPOWERED, False)
    assert "with the anchor of 2026-01-02 only a change above" in result.sentence


def test_a_baseline_without_an_anchor_takes_its_oldest_sessions_for_it() -> None:
    levels = [100.0, 100.0, 100.0, 103.0, 106.0, 109.0, *[111.0] * 14]
    now = measurement(111.2, 111.3, 111.1)
    result = judged(ScriptedMeasurer([now], [now]), record=record(*[(us, us, us) for us in levels]))
    assert result.verdict is Verdict.REGRESSED
    assert " since the anchor, " in result.sentence  # these sessions have no date


def test_sessions_that_rise_one_after_the_other_are_said_to_drift() -> None:
    rising = record(*[(us, us, us) for us in (100.0, 100.2, 100.4, 100.6, 100.8)])
    (notice,) = judged(ScriptedMeasurer([measurement(101.0, 101.0, 101.0)]), record=rising).notices
    assert notice.text == f"{CASE.id}: drifting: 6 sessions get slower one after the other, +1.00% in all"
    assert judged(ScriptedMeasurer([SAME]), record=rising).notices == ()


BIT_BY_BIT = [0.003, 0.005, 0.01, 0.02, 0.1, 0.3]


@pytest.mark.parametrize("rate", BIT_BY_BIT)
@pytest.mark.parametrize("good", [1, 8])
def test_a_baseline_that_is_updated_in_a_loop_does_not_follow_a_case_that_gets_slower(rate: float, good: int) -> None:
    """At a limit of 3 % it is red before it is 13 % slower than it was, or in the first session that is so much."""
    stored = [(100.0, 100.1, 99.9)] * good
    us = 100.0
    for _ in range(60):
        us *= 1 + rate
        now = measurement(us, us * 1.001, us * 0.999)
        result = judged(ScriptedMeasurer([now], [now, now]), record=record(*stored), update=True, tests=100)
        if result.verdict is Verdict.REGRESSED:
            break
        if result.stored:
            stored.append((us, us * 1.001, us * 0.999))
    assert result.verdict is Verdict.REGRESSED
    assert us < 113.0 * (1 + rate)
