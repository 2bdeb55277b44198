"""Under load: several threads and processes at once, judged like the rest, and by a baseline of as many alone."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtgate.common.metrics import OF_LOAD
from trtgate.launches import load_launch, load_messages
from trtgate.launches.worker_handle import LaunchError
from trtgate.timing import load_drivers
from trtgate.timing.load_drivers import WARM_CALLS, Drivers, within

SCRIPTED = """

KEPT = []

if IN_WORKER:
    from trtgate.timing import load_drivers, memory_growth

    memory_growth.READINGS, memory_growth.MOST_CALLS = 22, 440

    class Scripted:
        def __init__(self, calls):
            self.threads = len(calls)

        def begin(self):
            return 0.001

        def end(self, began_s, ended_s):
            each_s = float(os.environ.get("EACH_MS", "2")) / 1000
            at_once = 1 if os.environ.get("LOCKED") else self.threads
            return load_drivers.Driven([1e6 * each_s] * 100, at_once * (ended_s - began_s) / each_s)

    load_drivers.Drivers = Scripted

from trtgate.launches import load_launch

load_launch.SETTLING_S = load_launch.SHORTEST_S = 0.01
"""
MODELS = """

@trtgate.model(frontends=("eager",), precisions=("fp32",))
def net():
    def forward(x):
        if os.environ.get("LEAK"):
            KEPT.append(bytearray(10_000))
        return x + 1

    return made(forward, __import__("torch").ones(1, 4))


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def leaky():
    def forward(x):
        KEPT.append(bytearray(20_000))
        return x + 1

    return made(forward, __import__("torch").ones(1, 4))
"""
REAL = """

import threading

INSIDE = threading.Lock()

from trtgate.launches import load_launch

load_launch.SETTLING_S = load_launch.SHORTEST_S = 0.05
READING = []

if IN_WORKER:
    from trtgate.timing import memory_growth

    memory_growth.READINGS, memory_growth.MOST_CALLS = 22, 440
    settled = memory_growth.settled

    def reading(*given, **named):
        READING.append(1)
        return settled(*given, **named)

    memory_growth.settled = reading


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def net():
    return made(lambda x: x + 1, __import__("torch").ones(1, 4))


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def ends():
    def forward(x):
        if threading.active_count() > 2:  # as by a segmentation fault
            os._exit(3)
        return x + 1

    return made(forward, __import__("torch").ones(1, 4))


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def many():
    def forward(x):
        if READING:
            raise RuntimeError("no call is left")
        return x + 1

    return made(forward, __import__("torch").ones(1, 4))


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def mixed_up():
    def forward(x):
        if threading.active_count() > 2:  # as if another had written over it meanwhile
            return x + 2
        return x + 1

    return made(forward, __import__("torch").ones(1, 4))


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def alone():
    def forward(x):
        if threading.active_count() > 2:
            raise RuntimeError("only one at a time")
        return x + 1

    return made(forward, __import__("torch").ones(1, 4))
"""
LATENCY = ("--trtgate-launches=1", "-m", "trtgate_latency")


# The gate


def test_it_is_stored_and_what_scales_worse_or_leaks_fails(folder: Any) -> None:
    folder.suite(more=SCRIPTED + MODELS)
    recorded = folder.gate(
        "--trtgate-update-baselines", "--trtgate-load=4", "-v", "--trtgate-report=run.json", *LATENCY
    )
    assert recorded.ret == 0
    recorded.stdout.fnmatch_lines(
        [
            "net-eager-fp32 under load of threads: 1: 500/s, p50 2 ms, p99 2 ms; 2: 1,000/s, *; 4: 2,000/s, *",
            "net-eager-fp32 under load of processes: 1: 500/s, *; 2: 1,000/s, *; 4: 2,000/s, *",
            "net-eager-fp32: growth of host memory over 440 calls: * bytes a call (* to *)",
            "*leaky-eager-fp32: growth of host memory 0 bytes a call * 2?,??? bytes a call (*suite.py:*)",
        ]
    )
    stored = folder.stored_entries()["net-eager-fp32"]
    assert {name: stored["sessions"][0]["metrics"][name] for name in OF_LOAD} == {
        "threads_throughput": [[500.0]], "threads_p50": [[2000.0]], "threads_p99": [[2000.0]],
        "processes_throughput": [[500.0]], "processes_p50": [[2000.0]], "processes_p99": [[2000.0]],
    }  # fmt: skip
    assert stored["sessions"][0]["most_at_once"] == 4
    assert stored["figures"]["threads_throughput_per_s"] == stored["figures"]["processes_throughput_per_s"] == 2000
    reported = json.loads((folder.path / "run.json").read_text())["cases"]
    (net,) = [one for one in reported if one["case_id"] == "net-eager-fp32"]
    assert [(one["threads"], one["processes"]) for one in net["load"]] == [(1, 1), (2, 1), (4, 1), (1, 2), (1, 4)]

    same = folder.gate("--benchmark-compare", "--trtgate-load=4", *LATENCY)
    assert same.ret == 0, "a leak that the baseline has is none that is new"

    worse = folder.gate("--benchmark-compare", "--trtgate-load=4", *LATENCY, "-k", "net", LOCKED=1, LEAK=1, EACH_MS=40)
    assert worse.ret == 1
    worse.stdout.fnmatch_lines(
        [
            "net-eager-fp32 is slower: throughput of threads at once 2,000/s * 25/s, +7900.00% time an inference (*), "
            "limit 10 %; median latency with threads at once 2 ms * 40 ms, *; p99 latency with processes at once 2 * "
            "40 ms, *; growth of host memory 0 bytes a call * bytes a call (*, 440 calls), limit 256 "
            "(+10,* bytes a call, suite.py:*)"
        ]
    )


def test_another_load_is_not_compared_and_without_the_option_nothing_of_it_is(folder: Any) -> None:
    folder.suite(more=SCRIPTED + MODELS)
    only = (*LATENCY, "-k", "net")
    assert folder.gate("--trtgate-update-baselines", "--trtgate-load=2", *only).ret == 0
    other = folder.gate("--benchmark-compare", "--trtgate-load=1", *only, EACH_MS=90)
    assert other.ret == 0
    other.stdout.fnmatch_lines(["*a load of 1 is not compared with what is stored, of 2: --trtgate-load 2 is"])
    without = folder.gate("--benchmark-compare", *only, LEAK=1, EACH_MS=90)
    assert without.ret == 0
    without.stdout.no_fnmatch_line("*growth of*")

    loose = folder.gate(
        "--benchmark-compare", "--trtgate-load=2", "--trtgate-limit=host_memory_growth=50000", *only, LEAK=1
    )
    assert loose.ret == 0


def test_threads_call_at_once_and_a_module_that_can_not_be_called_so_is_told_in_a_line(folder: Any) -> None:
    folder.suite(more=REAL)
    run = folder.gate("--trtgate-load=2", "-v", *LATENCY)
    assert run.ret == 1
    run.stdout.fnmatch_lines_random(
        [
            "net-eager-fp32 under load of threads: 1: */s, p50 *, p99 *; 2: */s, *",
            "*alone-eager-fp32: under load of 2 threads: it raised *only one at a time (docs: load-failed)",
            "*mixed_up-eager-fp32: under load of 2 threads: it gives another output than called alone: "
            "output is 0.* off (relative L2) (docs: wrong-output)",
            "*ends-eager-fp32: under load of 2 threads: the worker ended with exit code 3 (docs: worker-failed)",
            "*many-eager-fp32: reading memory: called again and again, it raised * no call is left (docs: load-failed)",
        ]
    )
    assert "Traceback" not in run.stdout.str()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--trtgate-base=HEAD", "--trtgate-load=2"), "*--trtgate-load is about stored baselines*"),
        (("--trtgate-load=33",), "*must be 0 to 32, not 33*"),
        (("--trtgate-load=-1",), "*must be 0 to 32, not -1*"),
        (("--trtgate-load=two",), "*must be 0 to 32, not two*"),
    ],
)
def test_what_can_not_be_is_refused(folder: Any, asked: tuple[str, ...], said: str) -> None:
    folder.suite("alpha")
    refused = folder.gate(*asked, *LATENCY)
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines([said])


# What is measured


@pytest.mark.parametrize(
    ("most", "wanted"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_levels_double_up_to_what_was_asked_for(most: int, wanted: list[int]) -> None:
    assert load_launch.numbers(most) == wanted


def test_a_level_lasts_a_hundred_calls_half_a_second_at_least_and_five_if_two_calls_fit() -> None:
    assert [load_launch.window_s(call_s) for call_s in (1e-6, 0.01, 1.0, 10.0)] == [0.5, 1.0, 5.0, 20.0]


def test_threads_call_at_the_same_time_each_its_own() -> None:
    together, called = threading.Barrier(3), [0, 0, 0]

    def call_of(number: int) -> Any:
        def call() -> None:
            called[number] += 1
            if called[number] <= WARM_CALLS:  # as often as all of them come
                together.wait(timeout=60)

        return call

    drivers = Drivers([call_of(number) for number in range(3)])
    assert drivers.begin() >= 0
    driven = drivers.end(0.0, float("inf"))
    assert len(driven.latencies_us) == sum(called) >= 6


def test_what_a_call_raises_is_raised_and_no_thread_is_left() -> None:
    begun, over = threading.Event(), threading.Event()

    def later() -> None:
        if begun.is_set():
            over.set()
            raise ValueError("at last")

    def never() -> None:
        raise ValueError("at once")

    drivers = Drivers([later])
    drivers.begin()
    begun.set()
    assert over.wait(60)
    with pytest.raises(ValueError, match="at last"):
        drivers.end(0.0, 1.0)
    before = threading.active_count()
    with pytest.raises(ValueError, match="at once"):
        Drivers([lambda: None, never]).begin()
    assert threading.active_count() == before


@pytest.mark.parametrize("raised", [SystemExit(3), pytest.skip.Exception("not here"), GeneratorExit()])
def test_what_is_no_exception_fails_too(raised: BaseException) -> None:
    """A thread that is gone would leave the others to themselves, and a slower module might pass."""

    def gone() -> None:
        raise raised

    with pytest.raises(type(raised)):
        Drivers([lambda: None, gone]).begin()


def test_what_a_thread_raises_is_told_though_another_waits_for_it_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_drivers, "GIVEN_UP_S", 0.01)
    never, hanging = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        never.wait()

    def fail() -> None:
        assert hanging.wait(60)
        raise ValueError("at last")

    try:
        with pytest.raises(ValueError, match="at last"):
            Drivers([hang, fail]).begin()
    finally:
        never.set()


@given(st.integers(1, 8), st.floats(0.01, 3.0), st.floats(0.5, 5.0), st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_throughput_is_that_of_the_window_however_calls_lie_in_it(
    threads: int, call_s: float, window_s: float, phases: list[float]
) -> None:
    """All are busy all the time: each gets window / call, whole calls or not."""
    began_s, ended_s = 10.0, 10.0 + window_s
    spans = [
        (began_s + (number - phases[thread]) * call_s, began_s + (number + 1 - phases[thread]) * call_s)
        for thread in range(threads)
        for number in range(-2, int(window_s / call_s) + 3)
    ]
    driven = within(spans, began_s, ended_s)
    assert driven.inferences == pytest.approx(threads * window_s / call_s)
    assert all(us == pytest.approx(1e6 * call_s) for us in driven.latencies_us)


def test_calls_that_began_before_all_were_at_work_or_ended_after_count_by_their_share_alone() -> None:
    driven = within([(0.0, 2.0), (2.0, 3.0), (3.0, 5.0), (5.0, 6.0)], 1.0, 4.0)
    assert driven.inferences == pytest.approx(0.5 + 1 + 0.5)
    assert driven.latencies_us == [2e6, 1e6]


def test_a_call_that_others_keep_waiting_is_in_the_percentiles_though_it_does_not_end() -> None:
    """A lock that is not fair lets one thread call all the time, and another wait for all of the window."""
    quick = [(number / 10 - 0.05, number / 10 + 0.05) for number in range(20)]
    driven = within([*quick, (0.05, 2.5)], 0.0, 1.0)
    assert driven.in_flight_us == pytest.approx([5e4, 0.95e6], abs=1)
    ended = [load_messages.LoadEnded(latencies_us=driven.latencies_us, in_flight_us=driven.in_flight_us, inferences=9)]
    level = load_launch.level_of(ended, 2, 1.0)
    assert level.calls == 11
    assert level.p99_us > 0.8e6
    assert level.p50_us == pytest.approx(1e5)


def test_percentiles_are_of_the_calls_of_all_processes_together() -> None:
    replies = [load_messages.LoadEnded(latencies_us=[float(us)] * 50, inferences=50) for us in (100, 300)]
    level = load_launch.level_of(replies, 1, 0.5)
    assert (level.processes, level.throughput_per_s, level.p50_us, level.p99_us, level.calls) == (2, 200, 200, 300, 100)
    with pytest.raises(LaunchError, match="not one call ended"):
        load_launch.level_of([load_messages.LoadEnded(latencies_us=[], inferences=0.1)], 1, 0.5)
    assert load_launch.level_of([load_messages.LoadEnded(latencies_us=[7.0], inferences=1)], 1, 0.5).p99_us == 7.0
