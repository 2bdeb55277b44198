"""What is concluded of load, growth and a cold L2, on a scripted measurer: confirmed in fresh processes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.scripted_measurer import CASE, HERE, ScriptedMeasurer, judged, measurement, pairs, record
from trtgate.common.errors import TrtgateError
from trtgate.common.metrics import COLD_L2, COLD_START, GPU_GROWTH, HOST_GROWTH, METRICS, OF_LOAD, TORCH_GROWTH
from trtgate.common.notices import Severity
from trtgate.gate import measurement_summary
from trtgate.gate.baseline_record import CaseRecord
from trtgate.gate.known_programs import Known
from trtgate.records.measurement import Capture, CaseMeasurement, ColdStart, LoadLaunch, LoadLevel, MemoryReadings, Turn
from trtgate.report import load_lines
from trtgate.verdict import LOOKS, Verdict

PLACE = "+1,081 bytes a call, suite.py:11"


def level(threads: int, processes: int, per_s: float) -> LoadLevel:
    return LoadLevel(
        threads=threads, processes=processes, throughput_per_s=per_s, p50_us=1e6 / per_s, p99_us=2e6 / per_s
    )


def loaded(
    us: float = 100.0, *, threads_per_s: float = 4000.0, leak: int = 0, gpu_leak: int = 0, cold_us: float = 130.0,
    most: int = 4,
) -> CaseMeasurement:  # fmt: skip
    """Return what three launches, each with a set of processes, measured."""
    readings = MemoryReadings(
        calls=180, host_bytes=[10**9 + 180 * leak * number for number in range(55)],
        torch_bytes=[10**8 + 180 * gpu_leak * number for number in range(55)], gpu_bytes=[10**9] * 55,
        places=[PLACE] * bool(leak),
    )  # fmt: skip
    launches = [
        LoadLaunch(
            most=most,
            levels=[level(1, 1, 1000.0), level(most, 1, threads_per_s), level(1, most, 4000.0)],
            readings=None if number else readings,
            cold_l2=[Capture(blocks_us=[cold_us], replays=10)] * 4,
        )
        for number in range(3)
    ]
    return msgspec.structs.replace(measurement(us, us, us), load=launches)


def stored(found: CaseMeasurement) -> CaseRecord:
    """Return a baseline of 8 such sessions."""
    (session,) = record((100.0, 100.0, 100.0)).sessions
    metrics = {metric: measurement_summary.means(found, metric) for metric in found.metrics}
    with_load = msgspec.structs.replace(
        session, metrics=session.metrics | metrics, most_at_once=found.most_at_once,
        runtime_cache=found.runtime_cache, figures=measurement_summary.figures(found),
    )  # fmt: skip
    return msgspec.structs.replace(record((100.0, 100.0, 100.0)), sessions=[with_load] * 8)


STORED = stored(loaded())


def default_limit(metric: str) -> float:
    return METRICS[metric].limit


def result_of(script: ScriptedMeasurer, **given: Any) -> Any:
    return judged(script, **{"record": STORED, "limit_of": default_limit, **given})


def test_the_same_load_is_unchanged_and_every_metric_is_judged() -> None:
    script = ScriptedMeasurer([loaded()])
    result = result_of(script)
    assert (result.verdict, script.asked, result.notices) == (Verdict.UNCHANGED, ["measure"], ())
    said = {one.metric: one.verdict for one in result.judgements}
    assert {said[metric] for metric in (*OF_LOAD, COLD_L2, HOST_GROWTH, TORCH_GROWTH, GPU_GROWTH)} == {
        Verdict.UNCHANGED
    }


@pytest.mark.parametrize(
    ("worse", "metric", "said"),
    [
        ({"threads_per_s": 1000.0}, "threads_throughput", "throughput of threads at once 4,000/s → 1,000/s, +300.00%"),
        ({"cold_us": 160.0}, COLD_L2, "device latency with a cold L2 130 µs → 160 µs, +23.08%"),
        (
            {"leak": 1024}, HOST_GROWTH,
            f"growth of host memory 0 bytes a call → 1,024 bytes a call (951 to 1,097, 9,900 calls), limit 256 "
            f"({PLACE})",
        ),
        (
            {"gpu_leak": 512}, TORCH_GROWTH,
            "growth of memory that PyTorch allocated on the GPU 0 bytes a call → 512 bytes a call (512 to 512, "
            "9,900 calls), limit 256",
        ),
    ],
)  # fmt: skip
def test_what_is_worse_fails_if_fresh_processes_say_so_too(worse: dict[str, Any], metric: str, said: str) -> None:
    script = ScriptedMeasurer([loaded(**worse)], [loaded(**worse)])
    result = result_of(script, pairable=True)
    assert (result.verdict, script.asked) == (Verdict.REGRESSED, ["measure", "fresh"]), "pairs say nothing of load"
    assert metric in {one.metric for one in result.judgements if one.verdict is Verdict.REGRESSED}
    assert said in result.sentence
    again = result_of(ScriptedMeasurer([loaded(**worse)], [loaded()]))
    assert again.verdict is Verdict.UNCONFIRMED


def test_a_leak_that_a_busy_machine_lets_nobody_confirm_stays_a_suspicion() -> None:
    leak, busy = loaded(leak=1024), loaded()
    (first, *others) = busy.load
    assert first.readings is not None
    few = msgspec.structs.replace(first, readings=msgspec.structs.replace(first.readings, calls=5))
    result = result_of(ScriptedMeasurer([leak], [msgspec.structs.replace(busy, load=[few, *others])]))
    assert (result.verdict, result.suspected) == (Verdict.UNDERPOWERED, True)
    assert result.sentence.endswith(
        "neither confirmed nor refuted it: growth of host memory 0 bytes a call → 0 bytes a call (-2,621 to 2,621, 275 "
        f"calls), limit 256; at first 1,024 ({PLACE}) (docs: suspected)"
    )


def test_pairs_confirm_latency_and_fresh_processes_load() -> None:
    worse = loaded(110.0, threads_per_s=1000.0)
    script = ScriptedMeasurer([worse], [worse], paired=[pairs(0.1, LOOKS[0])])
    result = result_of(script, pairable=True)
    assert script.asked == ["measure", f"pairs {LOOKS[0]}", "fresh"]
    regressed = {one.metric for one in result.judgements if one.verdict is Verdict.REGRESSED}
    assert {"device", "threads_throughput"} <= regressed


def test_another_number_at_once_is_not_compared_and_a_line_says_so() -> None:
    result = result_of(ScriptedMeasurer([loaded(threads_per_s=100.0, most=8)]))
    assert result.verdict is Verdict.UNCHANGED
    assert not {one.metric for one in result.judgements} & {*OF_LOAD}
    (notice,) = result.notices
    assert notice.text.endswith("a load of 8 is not compared with what is stored, of 4: --trtgate-load 4 is")


@pytest.mark.parametrize("known", [None, Known(recorded="2026-11-20", clock="cuda_graph")], ids=["measured", "same"])
def test_what_a_baseline_has_nothing_of_is_not_compared_and_a_line_says_so(known: Known | None) -> None:
    """A first run with --trtgate-load is green, whatever it measures: its user is to know why."""
    found = msgspec.structs.replace(loaded(), cold=[ColdStart(seconds=1.0, host_bytes=1)] * 3)
    before = record((100.0, 100.0, 100.0))

    def said(**given: Any) -> list[str]:
        script = ScriptedMeasurer([found], host=[found])
        return [str(one) for one in result_of(script, known=known, **given).notices]

    case = "small-eager-fp32"
    line = f"{case}: {{}} are not compared: nothing is stored of them; --trtgate-update-baselines stores them"
    assert said(record=before) == [line.format("cold starts and throughput and latencies under load")]
    assert said() == [line.format("cold starts")]
    assert said(record=before, update=True) == [], "it stores them now"
    assert said(record=stored(found)) == []


def test_a_leak_is_told_loudly_where_nothing_judges_it() -> None:
    for given in ({"record": None, "new": "NEW: nothing is stored"}, {"compare": False}):
        result = result_of(ScriptedMeasurer([loaded(leak=1024)]), **given)
        (notice,) = result.notices
        assert notice.severity is Severity.WARNING
        assert "growth of host memory 0 bytes a call → 1,024 bytes a call" in notice.text
        assert PLACE in notice.text


def unsteady() -> CaseMeasurement:
    """Return a measurement of which half of the stretches grow by far more than the limit."""
    found = loaded()
    (first, *others) = found.load
    assert first.readings is not None
    late = [10**9 + 180 * 10**4 * max(0, number - 25) for number in range(55)]
    readings = msgspec.structs.replace(first.readings, host_bytes=late)
    return msgspec.structs.replace(found, load=[msgspec.structs.replace(first, readings=readings), *others])


def test_growth_that_is_too_unsteady_to_tell_is_said() -> None:
    """That is no proof of a leak, and none of the contrary."""
    result = result_of(ScriptedMeasurer([unsteady()]))
    (notice,) = result.notices
    assert result.verdict is Verdict.UNCHANGED
    assert "growth of host memory 0 bytes a call → 7,000 bytes a call" in notice.text
    assert notice.text.endswith(": not steady enough to tell whether it goes on (docs: memory-growth)")


@pytest.mark.parametrize("before", [STORED, stored(loaded(leak=300)), None], ids=["none grew", "some grew", "new"])
def test_growth_that_could_not_be_told_is_no_baseline(before: CaseRecord | None) -> None:
    """Else it allows the next session a leak of as much, which no run has ever failed for."""
    result = result_of(ScriptedMeasurer([unsteady()]), record=before, new="NEW: nothing is stored")
    assert result.stored
    added = measurement_summary.record_of(CASE, result, HERE.uuid, "", before)
    sessions = [*(before.sessions if before else []), *added.sessions]
    leak = loaded(leak=6000)
    later = result_of(ScriptedMeasurer([leak], [leak]), record=msgspec.structs.replace(added, sessions=sessions))
    (growth,) = [one for one in later.judgements if one.metric == HOST_GROWTH]
    known = 0.0 if before is None else before.sessions[-1].figures["host_memory_growth_bytes"]
    assert (growth.verdict, growth.baseline) == (Verdict.REGRESSED, known)
    assert added.figures["host_memory_growth_bytes"] == 7000.0, "what was measured is in the run's file"


def test_growth_that_too_few_readings_say_nothing_of_is_told() -> None:
    """A module that gets slower and slower, as one whose list of calls grows, is read too seldom."""
    found = loaded(leak=10**6)
    (first, *others) = found.load
    assert first.readings is not None
    readings = msgspec.structs.replace(first.readings, host_bytes=first.readings.host_bytes[:10])
    few = msgspec.structs.replace(found, load=[msgspec.structs.replace(first, readings=readings), *others])
    for given in ({}, {"record": None, "new": "NEW: nothing is stored"}):
        (notice,) = [one for one in result_of(ScriptedMeasurer([few]), **given).notices if "readings" in one.text]
        assert notice.severity is Severity.WARNING
        assert notice.text.endswith(
            "it is not known whether host memory grows: 10 readings, and 11 are needed (docs: metric-unknown)"
        )


def test_a_cold_start_with_a_runtime_cache_and_a_cold_l2_that_are_gone_are_told() -> None:
    """Else a module that lost its runtime cache, and starts as slowly as without, passes in silence."""
    start = [ColdStart(seconds=1.0, host_bytes=1 << 30)] * 3
    both = msgspec.structs.replace(loaded(), cold=start, cold_cached=start)
    before = stored(both)
    assert result_of(ScriptedMeasurer([both]), record=before).notices == ()
    bare = [msgspec.structs.replace(one, cold_l2=[]) for one in both.load]
    lost = msgspec.structs.replace(both, cold_cached=[], load=bare)
    notices = result_of(ScriptedMeasurer([lost]), record=before).notices
    assert [(one.severity, one.text.partition(": ")[2]) for one in notices] == [
        (
            Severity.WARNING,
            f"{what} is in its baseline, and could not be measured now: nothing says that it is no worse "
            "(docs: metric-unknown)",
        )
        for what in ("cold start with a runtime cache", "device latency with a cold L2")
    ]
    not_asked = msgspec.structs.replace(both, cold=[], cold_cached=[], load=[])
    assert result_of(ScriptedMeasurer([not_asked]), record=before).notices == ()


def test_a_cold_start_from_before_runtime_caches_were_told_apart_is_not_compared_and_a_line_says_so() -> None:
    """Engines took kernels then that earlier processes had left in a file: it was not the start that is timed now."""

    def with_kernels(seconds: float, cache: str) -> CaseMeasurement:
        launches = [
            msgspec.structs.replace(one, loaded=msgspec.structs.replace(one.loaded, runtime_cache=cache))
            for one in loaded().launches
        ]
        cold = [ColdStart(seconds=seconds, host_bytes=1 << 30)] * 3
        return msgspec.structs.replace(measurement(100.0, 100.0, 100.0), launches=launches, cold=cold)

    now, before = with_kernels(9.0, "artifact"), stored(with_kernels(2.0, ""))
    result = result_of(ScriptedMeasurer([now]), record=before)
    assert (result.verdict, {one.metric for one in result.judgements} & {COLD_START}) == (Verdict.UNCHANGED, set())
    (notice,) = result.notices
    assert notice.text.endswith(
        "cold start is in its baseline from before runtime caches, and is not compared (docs: metric-unknown)"
    )
    same = result_of(ScriptedMeasurer([now]), record=stored(with_kernels(9.0, "none")))
    assert (same.notices, {one.metric for one in same.judgements} & {COLD_START}) == ((), {COLD_START})


def test_what_load_and_cold_starts_measured_is_told_where_not_one_block_counts() -> None:
    """Other processes of their own measured them: that the launches were disturbed is no reason to forget a leak."""
    leak, start = loaded(leak=1024), [ColdStart(seconds=1.0, host_bytes=1 << 30)] * 3
    void = Turn(clock="cuda_graph", host_us=[], captures=[Capture(blocks_us=[], replays=10, void=["throttled"])])
    launches = [msgspec.structs.replace(one, turns=[void]) for one in leak.launches]
    result = result_of(
        ScriptedMeasurer([msgspec.structs.replace(leak, launches=launches, cold=start, cold_cached=start)])
    )
    assert result.verdict is Verdict.UNDERPOWERED
    (notice,) = result.notices
    assert notice.severity is Severity.WARNING
    assert "growth of host memory 0 bytes a call → 1,024 bytes a call" in notice.text
    said = list(load_lines.lines("small", result.measurement))
    assert [line.partition(":")[0] for line in said] == [
        "small", "small under load of threads", "small under load of processes", *["small"] * 4
    ]  # fmt: skip
    assert said[0] == "small: cold start 1 s, 1 s with a runtime cache"
    assert said[-1] == "small: device latency with a cold L2: 130 µs"


def test_a_leak_is_told_where_not_one_block_counts_and_no_verdict_is_asked_for() -> None:
    """Such a run fails, and has no table and no lines that could say it."""
    leak = loaded(leak=1024)
    void = Turn(clock="cuda_graph", host_us=[], captures=[Capture(blocks_us=[], replays=10, void=["throttled"])])
    launches = [msgspec.structs.replace(one, turns=[void]) for one in leak.launches]
    disturbed = msgspec.structs.replace(leak, launches=launches)
    with pytest.raises(TrtgateError, match=r"not one block counts: .*; growth of host memory 0 .* → 1,024 "):
        result_of(ScriptedMeasurer([disturbed]), compare=False, record=None)


def test_what_is_not_compared_is_told_of_a_case_that_is_the_same_too() -> None:
    """`--trtgate-changed` leaves out device latency: load and cold starts are asked for all the same."""
    found, before = loaded(most=8), record((100.0, 100.0, 100.0))
    sessions = [msgspec.structs.replace(before.sessions[0], most_at_once=4)]
    known = Known(recorded="2026-01-01T00:00:00+00:00", clock="cuda_graph")
    result = result_of(
        ScriptedMeasurer(host=[found]), record=msgspec.structs.replace(before, sessions=sessions), known=known
    )
    assert result.verdict is Verdict.SAME
    (notice,) = result.notices
    assert notice.text.endswith("a load of 8 is not compared with what is stored, of 4: --trtgate-load 4 is")
    assert result.measurement.load == found.load


def test_a_leak_fails_beside_a_baseline_that_was_not_asked_and_not_beside_one_that_has_it() -> None:
    leak = loaded(leak=1024)
    before = record((100.0, 100.0, 100.0))
    assert result_of(ScriptedMeasurer([leak], [leak]), record=before).verdict is Verdict.REGRESSED
    assert result_of(ScriptedMeasurer([leak]), record=stored(leak)).verdict is Verdict.UNCHANGED
    not_asked = msgspec.structs.replace(before.sessions[0], figures={})
    later = msgspec.structs.replace(before, sessions=[*stored(leak).sessions, not_asked])
    assert result_of(ScriptedMeasurer([leak]), record=later).verdict is Verdict.UNCHANGED, "the last one was not asked"
    more = loaded(leak=2048)
    assert result_of(ScriptedMeasurer([more], [more]), record=stored(leak)).verdict is Verdict.REGRESSED


def test_a_limit_in_bytes_a_call_allows_what_it_says() -> None:
    leak = loaded(leak=1024)

    def wide(metric: str) -> float:
        return 2000.0 if metric == HOST_GROWTH else default_limit(metric)

    assert result_of(ScriptedMeasurer([leak]), limit_of=wide).verdict is Verdict.UNCHANGED


def test_what_was_not_captured_has_no_figure_of_a_cold_l2() -> None:
    found = loaded()
    bare = msgspec.structs.replace(found, load=[msgspec.structs.replace(one, cold_l2=[]) for one in found.load])
    assert COLD_L2 not in bare.metrics
    assert "cold_l2_us" not in measurement_summary.figures(bare)
    assert result_of(ScriptedMeasurer([bare])).verdict is Verdict.UNCHANGED
