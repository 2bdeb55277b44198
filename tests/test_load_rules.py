"""What is concluded of load, growth and a cold L2, on a scripted measurer: confirmed in fresh processes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.scripted_measurer import ScriptedMeasurer, judged, measurement, pairs, record
from trtgate.common.metrics import COLD_L2, GPU_GROWTH, HOST_GROWTH, METRICS, OF_LOAD, TORCH_GROWTH
from trtgate.common.notices import Severity
from trtgate.gate import measurement_summary
from trtgate.gate.baseline_record import CaseRecord
from trtgate.records.measurement import Capture, CaseMeasurement, LoadLaunch, LoadLevel, MemoryReadings
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
        figures=measurement_summary.figures(found),
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
            f"growth of host memory 0 bytes a call → 1,024 bytes a call (951 to 1,097, 9900 calls), limit 256 "
            f"({PLACE})",
        ),
        (
            {"gpu_leak": 512}, TORCH_GROWTH,
            "growth of memory that PyTorch allocated on the GPU 0 bytes a call → 512 bytes a call (512 to 512, "
            "9900 calls), limit 256",
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


def test_a_leak_is_told_loudly_where_nothing_judges_it() -> None:
    for given in ({"record": None, "new": "NEW: nothing is stored"}, {"compare": False}):
        result = result_of(ScriptedMeasurer([loaded(leak=1024)]), **given)
        (notice,) = result.notices
        assert notice.severity is Severity.WARNING
        assert "growth of host memory 0 bytes a call → 1,024 bytes a call" in notice.text
        assert PLACE in notice.text


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
