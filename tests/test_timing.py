"""The measuring loop, on clocks that a test controls."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable

import msgspec
import pytest

from trtgate.common.metrics import DEVICE, ENQUEUE, HOST
from trtgate.records.measurement import Capture, CaseMeasurement, GpuState, Launch, Loaded, Turn
from trtgate.timing import cpu_state, gpu_state, measuring_loop
from trtgate.timing.cpu_state import CpuMonitor
from trtgate.timing.host_clock import HostClock
from trtgate.timing.measuring_loop import Plan

FAST = Plan(captures=3, blocks=4, block_s=0.001, max_calls=10, warmup_s=0.0, max_warmup_s=5.0)
COOL = GpuState(sm_clock_mhz=1980, temperature_c=40, power_w=300.0, throttle=gpu_state.IDLE)


class ScriptedClock:
    """Gives the latencies of a list, then its last one for ever."""

    name = "scripted"
    steady_tolerance = 0.001

    def __init__(self, latencies_us: list[float]) -> None:
        self.latencies_us = latencies_us
        self.blocks = 0
        self.armed = 0

    def arm(self) -> None:
        self.armed += 1

    def block(self, calls: int, meanwhile: Callable[[], None]) -> float:
        meanwhile()
        self.blocks += 1
        return self.latencies_us[min(self.blocks, len(self.latencies_us)) - 1]

    def close(self) -> None:
        pass


def measure(clock: ScriptedClock, read: Callable[[], GpuState | None] = lambda: None):
    def watch() -> measuring_loop.Watched:
        state = read()
        return state, gpu_state.void_reason(state) if state else ""

    return measuring_loop.measure(clock, FAST, watch)


def test_every_capture_is_armed_anew_and_has_all_its_blocks() -> None:
    clock = ScriptedClock([100.0])
    captures, _, steady = measure(clock)
    assert clock.armed == len(captures) == 3
    assert all(capture.blocks_us == [100.0] * 4 for capture in captures)
    assert steady


@pytest.mark.parametrize("settle", [0, 1])
def test_blocks_are_thrown_away_only_where_the_plan_says_so(settle: int) -> None:
    plan = msgspec.structs.replace(FAST, captures=3, blocks=1, warm=False, settle=settle)
    clock = ScriptedClock([float(n) for n in range(1, 20)])
    captures, _, _ = measuring_loop.measure(clock, plan, lambda: (None, ""))
    assert [capture.blocks_us for capture in captures] == [[2.0], [3.0 + settle], [4.0 + 2 * settle]]


def test_warm_up_lasts_until_blocks_stand_still() -> None:
    cooling = [200.0 - n for n in range(50)]
    captures, _, steady = measure(ScriptedClock([*cooling, 150.0]))
    assert steady
    assert all(us == 150.0 for capture in captures for us in capture.blocks_us)


def test_what_never_stands_still_is_measured_and_reported_as_unsteady() -> None:
    clock = ScriptedClock([100.0 * 1.01**n for n in range(2000)])
    plan = Plan(captures=1, blocks=2, block_s=0.001, warmup_s=0.0, max_warmup_s=0.0)
    _, _, steady = measuring_loop.measure(clock, plan, lambda: (None, ""))
    assert not steady


def test_blocks_under_thermal_slowdown_are_void_and_measured_again() -> None:
    hot = GpuState(sm_clock_mhz=1200, temperature_c=90, power_w=700.0, throttle=gpu_state.HW_THERMAL)
    states = iter([COOL, hot, hot])  # the first is read before any block
    captures, seen, _ = measure(ScriptedClock([100.0]), lambda: next(states, COOL))
    assert captures[0].void == ["hardware thermal slowdown"] * 2
    assert [len(capture.blocks_us) for capture in captures] == [4, 4, 4]
    assert hot not in seen


def test_a_capture_of_one_block_is_tried_as_often_as_one_of_two() -> None:
    plan = msgspec.structs.replace(FAST, captures=1, blocks=1)
    reasons = iter(["", "hot", "hot", "hot"])
    (capture,), _, _ = measuring_loop.measure(ScriptedClock([100.0]), plan, lambda: (None, next(reasons, "")))
    assert (capture.blocks_us, capture.void) == ([100.0], ["hot"] * 3)


def test_a_gpu_that_stays_hot_ends_the_measuring() -> None:
    hot = GpuState(sm_clock_mhz=1200, temperature_c=90, power_w=700.0, throttle=gpu_state.SW_THERMAL)
    captures, _, _ = measure(ScriptedClock([100.0]), lambda: hot)
    assert all(not capture.blocks_us and capture.void for capture in captures)


@pytest.mark.parametrize("reason", [gpu_state.IDLE, gpu_state.APPLICATION_CLOCKS, gpu_state.SW_POWER_CAP])
def test_routine_reasons_void_nothing(reason: int) -> None:
    assert gpu_state.void_reason(GpuState(sm_clock_mhz=1, temperature_c=1, power_w=1.0, throttle=reason)) == ""


def test_host_latencies_and_percentiles_are_of_a_launchs_last_turn() -> None:
    first, last = measuring_loop.ON_GPU.of_turn(0), measuring_loop.ON_GPU.of_turn(measuring_loop.ON_GPU.turns - 1)
    assert (first.host_s, first.tail_calls) == (0, 0)
    assert last == measuring_loop.ON_GPU
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
        ([200.0, 210.0], measuring_loop.ON_GPU, 100),
        ([2000.0, 90_000.0, 2100.0], measuring_loop.ON_GPU, 47),
        ([80_000.0], measuring_loop.ON_GPU, 10),
        ([200.0], measuring_loop.PAIR_ON_GPU, 0),
        ([], measuring_loop.ON_GPU, 0),
    ],
)
def test_percentiles_take_a_tenth_of_a_second_however_slow_an_inference_is(
    blocks_us: list[float], plan: Plan, calls: int
) -> None:
    captures = [Capture(blocks_us=[us], replays=1) for us in blocks_us] or [Capture(blocks_us=[], replays=1)]
    assert measuring_loop.calls_of_tail(captures, plan) == calls


def test_the_host_clock_divides_by_the_calls() -> None:
    calls = []
    clock = HostClock(lambda: calls.append(1))
    assert clock.block(50, lambda: None) > 0
    assert len(calls) == 50


def test_what_calls_change_is_put_back_before_every_block() -> None:
    clock, order = ScriptedClock([100.0]), []
    plain = clock.block

    def block(calls: int, meanwhile: Callable[[], None]) -> float:
        order.append("block")
        return plain(calls, meanwhile)

    clock.block = block  # type: ignore[method-assign]
    plan = msgspec.structs.replace(FAST, settle=1)
    measuring_loop.measure(clock, plan, lambda: (None, ""), lambda: order.append("restore"))
    assert order == ["restore", "block"] * (len(order) // 2)
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
    [(1, 0, 1, 0.0), (1, 1, 1, 0.5), (4, 0, 2, 0.0), (2, 1, 2, 2 / 3), (3, 1, 2, 0.5), (2, 14, 16, 0.0), (4, 28, 16, 2.0)],
)
def test_only_what_other_processes_took_is_lost_to_them(mine: int, others: int, cpus: int, taken: float) -> None:
    """Threads that are always busy share the CPUs evenly for a second."""
    each_s = min(1.0, cpus / (mine + others))
    waited_s, ran_s = mine * (1 - each_s), mine * each_s
    assert cpu_state.taken_by_others_s(waited_s, ran_s, 1.0, cpus) == pytest.approx(taken)


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
