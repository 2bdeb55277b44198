"""The measuring loop, on clocks that a test controls."""

from __future__ import annotations

import concurrent.futures
import hashlib
import math
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtgate import verdict
from trtgate.common.metrics import DEVICE, ENQUEUE, HOST
from trtgate.gate import measurement_summary
from trtgate.records.measurement import Capture, CaseMeasurement, GpuState, Launch, Loaded, Turn
from trtgate.timing import cpu_state, gpu_state, measuring_loop, plans, turns
from trtgate.timing.cpu_state import CpuMonitor
from trtgate.timing.device_state import Reading
from trtgate.timing.host_clock import HostClock, spread_over
from trtgate.timing.plans import Plan

FAST = Plan(captures=3, blocks=4, block_s=0.001, max_calls=10, warmup_s=0.0, max_warmup_s=5.0)
COOL = GpuState(sm_clock_mhz=1980, temperature_c=40, power_w=300.0, throttle=gpu_state.IDLE)


class ScriptedClock:
    """Gives the latencies of a list, then its last one for ever."""

    name = "scripted"
    steady_tolerance = 0.001
    overhead_us = 0.0

    def __init__(self, latencies_us: list[float]) -> None:
        self.latencies_us = latencies_us
        self.blocks = 0
        self.armed = 0
        self.room = 100
        self.order: list[int] = []

    def arm(self, captures: int) -> int:
        self.armed += 1
        return min(captures, self.room)

    def block(self, calls: int, meanwhile: Callable[[], None], capture: int = 0) -> float:
        meanwhile()
        self.blocks += 1
        self.order.append(capture)
        return self.latencies_us[min(self.blocks, len(self.latencies_us)) - 1]

    def close(self) -> None:
        pass


def measure(clock: ScriptedClock, read: Callable[[], GpuState | None] = lambda: None):
    def watch() -> measuring_loop.Watched:
        state = read()
        return state, gpu_state.void_reason(state) if state else ""

    return measuring_loop.measure(clock, FAST, watch)


def test_all_captures_are_made_first_and_each_has_all_its_blocks() -> None:
    clock = ScriptedClock([100.0])
    captures, _, steady, *_ = measure(clock)
    assert (clock.armed, len(captures)) == (1, 3)
    assert all(capture.blocks_us == [100.0] * 4 for capture in captures)
    assert steady


def test_blocks_of_all_captures_take_turns_in_random_order() -> None:
    plan = msgspec.structs.replace(FAST, captures=8, blocks=3, warm=False)
    clock = ScriptedClock([100.0])
    measuring_loop.measure(clock, plan, lambda: (None, ""), rng=random.Random(0))
    turns = [clock.order[1:][at : at + 8] for at in range(0, 24, 8)]
    assert all(sorted(turn) == list(range(8)) for turn in turns)
    assert len(set(map(tuple, turns))) == 3


def test_fewer_captures_are_measured_where_memory_is_short() -> None:
    clock = ScriptedClock([100.0])
    clock.room = 1
    captures, *_ = measure(clock)
    assert [len(capture.blocks_us) for capture in captures] == [4]


def test_captures_that_were_kept_are_replayed() -> None:
    plan = msgspec.structs.replace(FAST, arm=False, warm=False)
    clock = ScriptedClock([100.0])
    captures, *_ = measuring_loop.measure(clock, plan, lambda: (None, ""), armed=2)
    assert (clock.armed, len(captures)) == (0, 2)


class ScriptedState:
    """A device's state whose readings are given; what is told of them is `probe_us`, and 500 is the wrong state."""

    def __init__(self, readings: list[Reading], problem: str = "") -> None:
        self._readings = iter(readings)
        self._problem = problem
        self.settings: list[bool] = []

    def set(self, *, anew: bool) -> str:
        self.settings.append(anew)
        return self._problem

    def read(self) -> Reading:
        return next(self._readings, RIGHT)

    def wrong(self, reading: Reading) -> str:
        return "another state" if reading.probe_us == 500.0 else ""


RIGHT, WRONG = Reading(400.0, 1980.0), Reading(500.0, 1980.0)
ONE_BLOCK = msgspec.structs.replace(FAST, captures=2, blocks=1, warm=False)


def test_a_block_beside_which_another_state_was_read_is_void_and_the_state_is_set_again() -> None:
    state = ScriptedState([RIGHT, WRONG])
    clock = ScriptedClock([100.0])
    found = measuring_loop.measure(clock, ONE_BLOCK, lambda: (None, ""), state=state)
    assert sorted(len(capture.void) for capture in found.captures) == [0, 1]
    assert [len(capture.blocks_us) for capture in found.captures] == [1, 1]
    assert state.settings == [True, False]
    assert set(found.readings) == {RIGHT}


def test_a_state_that_can_not_be_kept_leaves_captures_without_blocks() -> None:
    state = ScriptedState([WRONG] * 1000, "it can't be set")
    found = measuring_loop.measure(ScriptedClock([100.0]), ONE_BLOCK, lambda: (None, ""), state=state)
    assert all(not capture.blocks_us and set(capture.void) == {"another state"} for capture in found.captures)
    assert found.problem == "it can't be set"
    assert len(state.settings) == 1 + measuring_loop.SETTINGS


def test_the_sm_clock_beside_a_block_is_kept_and_voids_nothing() -> None:
    plan = msgspec.structs.replace(FAST, captures=1, blocks=3, warm=False)
    state = ScriptedState([RIGHT, RIGHT, Reading(400.0, 1890.0)])
    (capture,), *_ = measuring_loop.measure(ScriptedClock([100.0]), plan, lambda: (None, ""), state=state)
    assert (capture.sm_mhz, capture.void) == ([1980.0, 1935.0, 1935.0], [])


def test_warm_up_lasts_until_blocks_stand_still() -> None:
    cooling = [200.0 - n for n in range(50)]
    captures, _, steady, *_ = measure(ScriptedClock([*cooling, 150.0]))
    assert steady
    assert all(us == 150.0 for capture in captures for us in capture.blocks_us)


def test_what_never_stands_still_is_measured_and_reported_as_unsteady() -> None:
    clock = ScriptedClock([100.0 * 1.01**n for n in range(2000)])
    plan = Plan(captures=1, blocks=2, block_s=0.001, warmup_s=0.0, max_warmup_s=0.0)
    _, _, steady, *_ = measuring_loop.measure(clock, plan, lambda: (None, ""))
    assert not steady


def test_after_another_process_warm_up_waits_until_a_block_takes_no_longer_than_before() -> None:
    """Its work lowered the clocks, and these come back in steps that look steady."""
    lowered = [*[100.7] * 30, *[100.4] * 30]
    plan = msgspec.structs.replace(FAST, after_other=True)
    found = measuring_loop.measure(ScriptedClock([*lowered, 100.0]), plan, lambda: (None, ""), before_us=100.0)
    assert (found.steady, found.warm_us) == (True, 100.0)
    assert {us for capture in found.captures for us in capture.blocks_us} == {100.0}
    at_once = measuring_loop.measure(ScriptedClock([*lowered, 100.0]), plan, lambda: (None, ""))
    assert (at_once.steady, at_once.warm_us) == (True, 100.7)


def test_what_stays_slower_after_another_process_is_measured_and_reported_as_unsteady() -> None:
    plan = msgspec.structs.replace(FAST, after_other=True, max_warmup_s=0.0)
    found = measuring_loop.measure(ScriptedClock([100.7]), plan, lambda: (None, ""), before_us=100.0)
    assert (found.steady, found.warm_us) == (False, 100.7)


def test_blocks_under_thermal_slowdown_are_void_and_measured_again() -> None:
    hot = GpuState(sm_clock_mhz=1200, temperature_c=90, power_w=700.0, throttle=gpu_state.HW_THERMAL)
    states = iter([COOL, hot, hot])  # the first is read before any block
    captures, seen, *_ = measure(ScriptedClock([100.0]), lambda: next(states, COOL))
    assert [reason for capture in captures for reason in capture.void] == ["hardware thermal slowdown"] * 2
    assert [len(capture.blocks_us) for capture in captures] == [4, 4, 4]
    assert hot not in seen


def test_a_capture_of_one_block_is_tried_as_often_as_one_of_two() -> None:
    plan = msgspec.structs.replace(FAST, captures=1, blocks=1)
    reasons = iter(["", "hot", "hot", "hot"])
    (capture,), *_ = measuring_loop.measure(ScriptedClock([100.0]), plan, lambda: (None, next(reasons, "")))
    assert (capture.blocks_us, capture.void) == ([100.0], ["hot"] * 3)


def test_a_gpu_that_stays_hot_ends_the_measuring() -> None:
    hot = GpuState(sm_clock_mhz=1200, temperature_c=90, power_w=700.0, throttle=gpu_state.SW_THERMAL)
    captures, *_ = measure(ScriptedClock([100.0]), lambda: hot)
    assert all(not capture.blocks_us and capture.void for capture in captures)


@pytest.mark.parametrize("reason", [gpu_state.IDLE, gpu_state.APPLICATION_CLOCKS, gpu_state.SW_POWER_CAP])
def test_routine_reasons_void_nothing(reason: int) -> None:
    assert gpu_state.void_reason(GpuState(sm_clock_mhz=1, temperature_c=1, power_w=1.0, throttle=reason)) == ""


def test_host_latencies_and_percentiles_are_of_a_launchs_last_turn() -> None:
    two = msgspec.structs.replace(plans.ON_GPU, turns=2)
    first, last = two.of_turn(0), two.of_turn(1)
    assert (first.host_s, first.tail_calls) == (0, 0)
    assert last == two
    assert last.host_s > 0 < last.tail_calls
    assert first.captures == last.captures
    captures = [Capture(blocks_us=[100.0], replays=1)]
    silent, timed = (Turn(clock="cuda_graph", captures=captures, host_us=us, enqueue_us=us) for us in ([], [300.0]))
    measured = CaseMeasurement(case_id="a", launches=[Launch(loaded=Loaded(seconds=1.0), turns=[silent, timed])] * 2)
    assert measured.samples(HOST) == measured.samples(ENQUEUE) == [[[300.0]], [[300.0]]]
    assert measured.samples(DEVICE) == [[[100.0], [100.0]]] * 2


@pytest.mark.parametrize(("latency_us", "calls"), [(1.0, 10), (100.0, 10), (500.0, 2), (1e7, 1)])
def test_a_block_lasts_its_time_and_has_at_least_one_call(latency_us: float, calls: int) -> None:
    assert measuring_loop.calls_per_block(latency_us, FAST) == calls


@pytest.mark.parametrize(
    ("blocks_us", "plan", "calls"),
    [
        ([200.0, 210.0], plans.ON_GPU, 100),
        ([2000.0, 90_000.0, 2100.0], plans.ON_GPU, 47),
        ([80_000.0], plans.ON_GPU, 10),
        ([200.0], plans.PAIR_ON_GPU, 0),
        ([], plans.ON_GPU, 0),
    ],
)
def test_percentiles_take_a_tenth_of_a_second_however_slow_an_inference_is(
    blocks_us: list[float], plan: Plan, calls: int
) -> None:
    captures = [Capture(blocks_us=[us], replays=1) for us in blocks_us] or [Capture(blocks_us=[], replays=1)]
    assert measuring_loop.calls_of_tail(captures, plan) == calls


class ScriptedCalls:
    """A call that takes as long as a list says, over and over, and the time that it makes pass."""

    def __init__(self, seconds: Sequence[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.calls, self._seconds = 0.0, 0, seconds
        monkeypatch.setattr("trtgate.timing.host_clock.time.perf_counter", lambda: self.now_s)

    def __call__(self) -> None:
        self.now_s += self._seconds[self.calls % len(self._seconds)]
        self.calls += 1


TWO_OF_FIVE_SLOW = (0.001, 0.004, 0.001, 0.004, 0.001)


def test_the_host_clock_gives_the_mean_of_a_blocks_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of five calls are four times slower: the block is 2.2 times slower, as who makes the calls feels it."""
    call = ScriptedCalls(TWO_OF_FIVE_SLOW, monkeypatch)
    clock = HostClock(call)
    assert clock.block(50, lambda: None) == pytest.approx(2200.0)
    assert call.calls == 50


def test_the_host_clock_keeps_the_calls_of_blocks_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of the one that says how long a call takes, nor of the block that others disturbed."""
    clock = HostClock(ScriptedCalls([0.5, 1.0, 2.0, 3.0], monkeypatch))
    plan = msgspec.structs.replace(FAST, captures=1, blocks=2, warm=False, max_calls=1)
    reasons = iter(["", "", "others", ""])
    measuring_loop.measure(clock, plan, lambda: (None, next(reasons)), kept=clock.keep)
    assert clock.tail(10) == pytest.approx([1e6, 3e6])


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=2000), st.integers(1, 300))
def test_percentiles_of_some_calls_are_those_of_all(seconds: list[float], most: int) -> None:
    """Whatever the order: what is taken of them are ranks, at most half a rank's distance away."""
    found = spread_over(seconds, most)
    ordered = sorted(seconds)
    assert len(found) == min(most, len(seconds))
    for number, value in enumerate(found):
        at = (number + 0.5) / len(found) * len(ordered)
        assert ordered[max(0, math.floor(at) - 1)] <= value <= ordered[min(len(ordered) - 1, math.ceil(at))]


def test_a_block_on_a_host_counts_like_a_capture_on_a_gpu() -> None:
    """Of five blocks the slowest and the fastest are trimmed away, as of captures."""
    blocks_us = [100.0, 101.0, 102.0, 103.0, 900.0]
    turn = Turn(clock=HostClock.name, captures=[Capture(blocks_us=blocks_us, replays=10)], host_us=[])
    measured = CaseMeasurement(case_id="a", launches=[Launch(loaded=Loaded(seconds=1.0), turns=[turn])] * 2)
    assert (measured.primary, measured.metrics) == (HOST, (HOST,))
    assert measured.samples(HOST) == [[[us] for us in blocks_us]] * 2
    (first, _) = verdict.log_launch_means(measured.samples(HOST))
    assert math.exp(first) == pytest.approx(102.0, rel=1e-4)


def test_throughput_and_percentiles_are_of_calls() -> None:
    """90 of 100 calls take 1 ms, 10 take 11 ms: 2 ms on average in every block, and the percentiles tell them apart."""
    calls_us = [1000.0] * 90 + [11_000.0] * 10
    turn = Turn(
        clock=HostClock.name, captures=[Capture(blocks_us=[2000.0] * 5, replays=20)], host_us=[], tail_us=calls_us
    )
    launches = [Launch(loaded=Loaded(seconds=1.0), turns=[turn])] * 3
    found = measurement_summary.figures(CaseMeasurement(case_id="a", launches=launches))
    assert found["throughput_per_s"] == pytest.approx(500.0)
    assert (found["host_p50_us"], found["host_p99_us"]) == (1000.0, 11_000.0)


@pytest.mark.parametrize("busy", [0, 2, 9])
def test_a_block_of_a_pair_is_measured_again_where_it_was_disturbed_and_counts_at_last(busy: int) -> None:
    monitor = iter(["", *["others"] * busy])
    watch = measuring_loop.contended(lambda: next(monitor, ""), plans.PAIR_ON_CPU.contended_retries)
    plan = msgspec.structs.replace(plans.PAIR_ON_CPU, block_s=0.001)
    clock = ScriptedClock([float(number) for number in range(1, 20)])
    (capture,), *_ = measuring_loop.measure(clock, plan, watch)
    retried = min(busy, plans.PAIR_ON_CPU.contended_retries or 0)
    assert (len(capture.blocks_us), len(capture.void)) == (1, retried)


def test_what_calls_change_is_put_back_before_every_block() -> None:
    clock, order = ScriptedClock([100.0]), []
    plain = clock.block

    def block(calls: int, meanwhile: Callable[[], None], capture: int = 0) -> float:
        order.append(("block", capture))
        return plain(calls, meanwhile, capture)

    clock.block = block  # type: ignore[method-assign]
    measuring_loop.measure(clock, FAST, lambda: (None, ""), lambda capture: order.append(("restore", capture)))
    assert order == [(what, capture) for _, capture in order[::2] for what in ("restore", "block")]
    assert len(order) > 2 * 3 * 4


@pytest.mark.parametrize(("step_s", "wanted"), [(0.0, 0.0), (0.1, 1.7 / 1.2 - 1)])
def test_the_host_clock_tells_a_call_that_grows_from_one_that_does_not(
    step_s: float, wanted: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten calls from 1.0 to 1.9 s: the medians of the halves are 1.2 and 1.7 s."""
    now_s, took_s = 0.0, 1.0

    def call() -> None:
        nonlocal now_s, took_s
        now_s += took_s
        took_s += step_s

    monkeypatch.setattr("trtgate.timing.host_clock.time.perf_counter", lambda: now_s)
    clock = HostClock(call)
    clock.block(10, lambda: None)
    assert clock.growth() == pytest.approx(wanted)


def _burn(cpu: int, ready: multiprocessing.synchronize.Event) -> None:
    os.sched_setaffinity(0, {cpu})
    ready.set()
    while True:
        pass


@pytest.mark.alone
def test_a_block_whose_cpu_others_took_does_not_count() -> None:
    mine = os.sched_getaffinity(0)
    cpu = min(mine)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=_burn, args=(cpu, ready), daemon=True)
    other.start()
    try:
        assert ready.wait(30)
        os.sched_setaffinity(0, {cpu})
        monitor = CpuMonitor()
        spin_until = time.process_time() + 0.3
        while time.process_time() < spin_until:
            pass
        assert monitor.void_reason() == "other processes took the CPU"
    finally:
        os.sched_setaffinity(0, mine)
        other.kill()
        other.join(30)


@pytest.mark.parametrize(
    ("mine", "others", "cpus", "taken"),
    [
        (1, 0, 1, 0.0),
        (1, 1, 1, 0.5),
        (4, 0, 2, 0.0),
        (2, 1, 2, 2 / 3),
        (3, 1, 2, 0.5),
        (2, 14, 16, 0.0),
        (4, 28, 16, 2.0),
    ],
)
def test_only_what_other_processes_took_is_lost_to_them(mine: int, others: int, cpus: int, taken: float) -> None:
    """Threads that are always busy share the CPUs evenly for a second."""
    each_s = min(1.0, cpus / (mine + others))
    waited_s, ran_s = mine * (1 - each_s), mine * each_s
    assert cpu_state.taken_by_others_s(waited_s, ran_s, 1.0, cpus) == pytest.approx(taken)


def test_a_turn_keeps_its_thread_to_a_cpu_and_the_process_has_all_of_its_own_before_and_after() -> None:
    allowed = os.sched_getaffinity(0)

    class Inference:
        changes = ()
        seen: ClassVar[list[set[int]]] = []

        def __call__(self) -> None:
            self.seen.append(os.sched_getaffinity(0))

        def restore(self) -> None:
            pass

    plan = msgspec.structs.replace(plans.PAIR_ON_CPU, block_s=0.001, max_calls=3)
    for cpu, wanted in ((min(allowed), {min(allowed)}), (None, allowed), (max(allowed) + 1, allowed)):
        Inference.seen.clear()
        turns.on_cpu(Inference(), msgspec.structs.replace(plan, cpu=cpu))
        assert Inference.seen
        assert all(one == wanted for one in Inference.seen)
        assert os.sched_getaffinity(0) == allowed


POOL = concurrent.futures.ThreadPoolExecutor(1)
WORK = "sum(range(500_000))"


def in_new_thread() -> None:
    thread = threading.Thread(target=eval, args=(WORK,))
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    ("call", "starts"),
    [
        (lambda: eval(WORK), False),
        (lambda: POOL.submit(eval, WORK).result(), False),
        (in_new_thread, True),
        (lambda: subprocess.run([sys.executable, "-Sc", WORK], check=True), True),
    ],
    ids=["none", "a pool's", "a thread", "a process"],
)
def test_a_warm_up_tells_whether_calls_start_threads_that_would_keep_to_the_turns_cpu(
    call: Callable[[], object], starts: bool
) -> None:
    """Threads that were there before, as PyTorch's, stay on the CPUs that they have."""

    class Inference:
        changes = ()

        def __call__(self) -> None:
            call()

        def restore(self) -> None:
            pass

    for plan, said in ((plans.WARM_UP_ON_CPU, starts), (plans.PAIR_ON_CPU, False)):
        fast = msgspec.structs.replace(plan, block_s=0.001, warmup_s=0.0, max_warmup_s=0.0)
        assert turns.on_cpu(Inference(), fast).starts_threads is said


def test_where_threads_have_no_clock_none_is_said_to_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_clock: int) -> float:
        raise OSError("Invalid argument")

    monkeypatch.setattr(cpu_state.time, "clock_gettime", unknown)
    assert not cpu_state.starts_threads(in_new_thread)


def test_a_turn_is_measured_where_nothing_may_be_kept_to_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_pid: int, _cpus: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refused)
    allowed = os.sched_getaffinity(0)
    with cpu_state.kept_on(min(allowed)):
        assert os.sched_getaffinity(0) == allowed


def test_others_take_the_cpus_of_the_process_also_while_a_turn_keeps_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that run all the time on two CPUs were not kept from them, whichever the turn's thread is on."""
    monkeypatch.setattr(cpu_state.machine, "cpus", lambda: 2)
    monkeypatch.setattr(cpu_state, "waited_s", iter([0.0, 0.5]).__next__)
    monkeypatch.setattr(cpu_state.time, "process_time", iter([0.0, 1.0]).__next__)
    monkeypatch.setattr(cpu_state.time, "monotonic", iter([0.0, 1.0]).__next__)
    monitor = CpuMonitor()
    monkeypatch.setattr(cpu_state.machine, "cpus", lambda: 1)
    assert monitor.void_reason() == "other processes took the CPU"


@pytest.mark.alone
def test_threads_of_a_module_that_wait_for_each_other_lose_nothing_to_other_processes() -> None:
    """Four on one CPU. Whatever else the machine does: of many blocks at least one is told to be undisturbed."""
    mine, ended = os.sched_getaffinity(0), threading.Event()

    def work() -> None:
        while not ended.is_set():
            hashlib.sha256(bytes(1 << 20))  # it lets go of Python's lock

    os.sched_setaffinity(0, {min(mine)})
    threads = [threading.Thread(target=work) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        monitor, reasons = CpuMonitor(), []
        waited_before = cpu_state.waited_s()
        while "" not in reasons and len(reasons) < 200:
            until = time.process_time() + 0.05
            while time.process_time() < until:
                pass
            reasons.append(monitor.void_reason())
        assert "" in reasons
        assert cpu_state.waited_s() > waited_before
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        os.sched_setaffinity(0, mine)


@pytest.mark.alone
def test_a_thread_that_sleeps_waits_for_no_cpu() -> None:
    monitor = CpuMonitor()
    threading.Event().wait(0.2)
    assert monitor.void_reason() == ""
