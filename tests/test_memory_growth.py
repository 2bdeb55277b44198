"""Growth of memory a call: a leak is found and named; steps, random walks and caches that fill up are none."""

from __future__ import annotations

import gc
import threading
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtgate.common.errors import TrtgateError
from trtgate.timing import memory_growth
from trtgate.timing.load_drivers import Together
from trtgate.verdict import Growth, Verdict, grows_late, growth, judge_growth

READINGS, CALLS = memory_growth.READINGS, memory_growth.MOST_CALLS // memory_growth.READINGS
PAGE = 4096
RESOLUTION = 1 << 16
LIMIT = 256.0


def series(leak: float, noise: np.ndarray | float = 0.0) -> np.ndarray:
    """Return readings of a process that keeps `leak` bytes a call, in whole pages."""
    return PAGE * np.round((1e9 + leak * CALLS * np.arange(READINGS) + noise) / PAGE)


def low(readings: np.ndarray) -> float:
    found = growth(list(readings), CALLS, RESOLUTION)
    assert found is not None
    return found.low


@given(st.floats(1024, 1e6), st.integers(0, 2**32 - 1))
def test_a_leak_of_a_kilobyte_or_more_is_above_the_limit_whatever_else_moves(leak: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = growth(list(series(leak, rng.normal(0, 30_000, READINGS))), CALLS, RESOLUTION)
    assert found is not None
    assert LIMIT < found.low <= found.bytes_a_call <= found.high
    assert found.low < leak < found.high


@given(st.lists(st.tuples(st.integers(1, READINGS - 1), st.floats(0, 1e9)), max_size=8))
def test_no_eight_steps_of_an_allocator_make_a_leak_wherever_and_however_large(steps: list[tuple[int, float]]) -> None:
    noise = np.zeros(READINGS)
    for at, height in steps:
        noise[at:] += height
    assert low(series(0, noise)) <= 0


@given(st.floats(1e7, 1e9), st.integers(1, READINGS - 1), st.booleans())
def test_a_leak_is_found_though_much_memory_is_given_back_once(drop: float, at: int, back: bool) -> None:
    noise = np.zeros(READINGS)
    noise[at : at + 3 if back else None] -= drop
    assert low(series(2048, noise)) > LIMIT


@given(st.floats(1, 2000), st.floats(1, READINGS / 3))
def test_a_cache_that_fills_up_is_no_leak_though_it_is_not_full_at_the_end(kept_mib: float, readings: float) -> None:
    filled = kept_mib * 2**20 * (1 - np.exp(-np.arange(READINGS) / readings))
    assert low(series(0, filled)) < LIMIT


@given(st.floats(1, 500), st.floats(0.1, 3))
def test_a_leak_is_found_beside_a_cache_that_was_filled_first(kept_mib: float, readings: float) -> None:
    filled = kept_mib * 2**20 * (1 - np.exp(-np.arange(READINGS) / readings))
    assert low(series(1024, filled)) > LIMIT


def test_random_walks_are_seldom_taken_for_leaks() -> None:
    """11 of 1024 by the sign test where stretches are independent; those of a walk overlap a little: 19 of 1000.

    What looks like a leak must look so in a fresh process too before it fails.
    """
    walks = np.cumsum(np.random.default_rng(0).normal(0, 1e6, (20_000, READINGS)), axis=1)
    alarms = sum(growth(list(walk), CALLS, 0.0).low > 0 for walk in walks)  # type: ignore[union-attr]
    assert alarms < 500


@given(st.lists(st.integers(0, 2**40), min_size=11, max_size=80), st.integers(1, 1000), st.integers(0, 2**40))
def test_the_interval_moves_with_what_is_added_and_widens_with_what_can_not_be_told(
    readings: list[int], calls: int, more: int
) -> None:
    one = growth(readings, calls)
    assert one is not None
    assert one.low <= one.bytes_a_call <= one.high
    assert growth([value + more for value in readings], calls) == one
    wide = growth(readings, calls, 1000)
    assert wide is not None
    assert wide.low < one.low
    assert wide.high > one.high


def test_too_few_readings_say_nothing() -> None:
    assert growth([1.0] * 10, 1) is None
    assert growth([], 1) is None


@pytest.mark.parametrize(
    ("now", "baseline", "said"),
    [
        ((1000, 900, 1100), 0, Verdict.REGRESSED),
        ((1000, 200, 1800), 0, Verdict.UNDERPOWERED),
        ((0, -2600, 2600), 0, Verdict.UNDERPOWERED),
        ((200, 190, 210), 0, Verdict.UNCHANGED),
        ((1000, 900, 1100), 1000, Verdict.UNCHANGED),
        ((1000, 900, 1200), 1000, Verdict.UNDERPOWERED),
        ((2000, 1900, 2100), 1000, Verdict.REGRESSED),
        ((0, -50, 50), 1000, Verdict.IMPROVED),
        ((-5000, -6000, -4000), 0, Verdict.UNCHANGED),
    ],
)
def test_growth_fails_where_all_of_it_is_above_the_limit_and_above_the_baseline(
    now: tuple[float, float, float], baseline: float, said: Verdict
) -> None:
    found = Growth(bytes_a_call=now[0], low=now[1], high=now[2])
    judged = judge_growth("host_memory_growth", found, baseline, limit=LIMIT, calls=9955)
    assert judged.verdict is said
    assert (judged.now, judged.baseline, judged.evidence) == (now[0], baseline, "9,955 calls")


# What is read


class ScriptedTime:
    now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that tests much has much to look through: 55 collections would take most of a minute."""
    monkeypatch.setattr("gc.collect", lambda: 0)


@pytest.mark.usefixtures("no_collection")
def test_memory_is_read_between_equally_many_calls_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    monkeypatch.setattr(memory_growth, "MOST_CALLS", 550)
    found = memory_growth.read(lambda: called.append(1), gpu=False, host=lambda: len(called))
    assert found.calls == 10
    assert found.host_bytes == list(accumulate([found.calls] * 55, initial=55))[1:]
    assert (found.torch_bytes, found.gpu_bytes, found.places) == ([], [], [])


@given(st.integers(5, 40), st.floats(4096, 1e6))  # what begins in the last tenth of the calls is not seen
def test_a_leak_that_begins_late_is_worth_another_look_and_is_found_there(start: int, leak: float) -> None:
    late = series(0, leak * CALLS * np.maximum(0, np.arange(READINGS) - start))
    assert low(late) > LIMIT or grows_late(list(late), CALLS, RESOLUTION)
    assert low(series(leak)) > LIMIT


@given(st.integers(0, 2**32 - 1))
def test_noise_and_what_does_not_grow_in_the_end_are_worth_none(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 10_000, READINGS)
    assert not grows_late(list(series(0, noise)), CALLS, RESOLUTION)
    assert not grows_late(list(series(0, 1e8 * (np.arange(READINGS) > 20))), CALLS, RESOLUTION)
    assert not grows_late([1.0] * 10, CALLS, RESOLUTION)


@pytest.mark.usefixtures("no_collection")
def test_a_process_whose_memory_grows_late_is_read_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that keeps nothing of its first calls, as one whose cache is full after some thousands."""
    monkeypatch.setattr(memory_growth, "MOST_CALLS", 1100)
    called: list[int] = []

    def read(begins: int) -> Growth | None:
        called.clear()
        found = memory_growth.settled(
            lambda: called.append(1), gpu=False, host=lambda: 10**9 + 10**5 * max(0, len(called) - begins),
            again=lambda readings: grows_late(readings.host_bytes, readings.calls, RESOLUTION),
        )  # fmt: skip
        return growth(found.host_bytes, found.calls, RESOLUTION)

    late, never = read(600), read(10**9)
    assert late is not None
    assert late.low == pytest.approx(1e5, rel=0.1)
    assert len(called) < 1500
    assert never is not None
    assert never.bytes_a_call == 0


@pytest.mark.usefixtures("no_collection")
def test_calls_of_several_threads_at_once_are_counted_each() -> None:
    called: list[int] = []
    together = Together([lambda: called.append(threading.get_ident())] * 2)
    found = memory_growth.read(together, gpu=False, host=lambda: len(called), at_once=2)
    assert found.calls == 180
    assert found.host_bytes == list(accumulate([180] * 55, initial=1000))[1:]
    assert len(set(called)) == 2


def test_a_thread_of_its_own_that_keeps_what_it_makes_is_named_by_bytes_a_call() -> None:
    kept: dict[int, list[object]] = {}

    def call() -> None:
        kept.setdefault(threading.get_ident(), []).append(bytearray(1000))

    (place, *others) = memory_growth.places(Together([call, call]), 2)
    assert 1000 < int(place.split()[0].replace(",", "")) < 1200
    assert not others


@pytest.mark.usefixtures("no_collection")
def test_calls_that_something_held_up_while_it_warmed_up_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many calls there are is by their median: else one of 10 s leaves five hundred of a thousand times as many."""
    clock = ScriptedTime()
    monkeypatch.setattr(memory_growth, "time", clock)
    durations = iter([1.0, 0.5] + [1e-3] * 100_000)

    def call() -> None:
        clock.now_s += next(durations)

    assert memory_growth.read(call, gpu=False, host=lambda: 0).calls == 10_000 // 55


@pytest.mark.usefixtures("no_collection")
def test_a_slow_case_is_called_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ScriptedTime()
    monkeypatch.setattr(memory_growth, "time", clock)

    def call(seconds: float) -> Any:
        def run() -> None:
            clock.now_s += seconds

        return run

    found = memory_growth.read(call(0.1), gpu=False, host=lambda: 0)
    assert (found.calls, len(found.host_bytes)) == (3, 55)
    slower = memory_growth.read(call(5.9), gpu=False, host=lambda: 0)
    assert (slower.calls, len(slower.host_bytes)) == (1, 11)


def test_the_line_that_keeps_what_it_makes_is_named_and_no_other() -> None:
    kept: list[object] = []

    def call() -> None:
        bytearray(5000)
        kept.append(bytearray(1000))

    (place, *others) = memory_growth.places(call)
    line = call.__code__.co_firstlineno + 2
    assert place.endswith(f"bytes a call, {__file__.rpartition('/')[2]}:{line}")
    assert 1000 < int(place.split()[0].replace(",", "")) < 1200
    assert not others


def test_garbage_that_waits_for_its_collection_is_no_growth() -> None:
    """Cycles, which only a collection frees."""

    def call() -> None:
        one: list[object] = [bytearray(100_000)]
        one.append(one)

    gc.disable()
    try:
        assert memory_growth.places(call) == []
    finally:
        gc.enable()


def test_a_machine_that_does_not_say_what_memory_a_process_holds_is_none_where_nothing_grows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in sandboxes: a file that is there and empty, or lacks the lines."""
    monkeypatch.setattr(memory_growth, "SMAPS", tmp_path / "smaps_rollup")
    (tmp_path / "smaps_rollup").write_text("")
    assert memory_growth.host_bytes() > 1 << 20
    monkeypatch.setattr(memory_growth, "STATUS", tmp_path / "status")
    (tmp_path / "status").write_text("Name:\tpython\n")
    with pytest.raises(TrtgateError, match="says how much memory the process holds"):
        memory_growth.host_bytes()


def test_host_memory_is_what_the_process_holds() -> None:
    before = memory_growth.host_bytes()
    held = bytearray(b"x") * (64 << 20)
    assert 60 << 20 < memory_growth.host_bytes() - before < 80 << 20
    del held
