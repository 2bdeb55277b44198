"""Which clock times device latency: a CUDA graph, or queued events where one can't be recorded."""

from __future__ import annotations

import contextlib
import math
import random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from trtgate.timing import device_latency, measuring_loop, plans
from trtgate.timing.clock import CaptureError
from trtgate.timing.device_latency import DeviceTimer
from trtgate.timing.device_state import NoState

PLAN = plans.Plan(captures=2, blocks=1, warm=False)


class Clock:
    """Takes 10 µs a call."""

    steady_tolerance = 0.01
    overhead_us = 0.0

    def __init__(self, *_arguments: Any) -> None:
        self.armed = 0
        self.closed = False
        self.placed: list[None] = []

    def arm(self, captures: int) -> int:
        self.armed += 1
        self.placed = [None] * captures
        return captures

    def block(self, _calls: int, meanwhile: Any, _capture: int = 0) -> float:
        meanwhile()
        return 10.0

    def tail(self, calls: int) -> list[float]:
        return [11.0] * calls

    def close(self) -> None:
        self.closed = True


class Graph(Clock):
    def __init__(self, *arguments: Any) -> None:
        super().__init__()
        self.name = arguments[-1]


class Refused(Graph):
    def arm(self, captures: int) -> int:
        raise CaptureError("it synchronises")


class Events(Clock):
    name = "cuda_events"


class State(NoState):
    """Of a device that has none to be set; says when its one stream is used."""

    def __init__(self, streams: str, problem: str = "") -> None:
        self.streams, self.spin, self.problem = streams, None, problem
        self.used = 0

    @contextlib.contextmanager
    def on_stream(self) -> Any:
        self.used += 1
        yield

    def set(self, *, anew: bool) -> str:
        return self.problem


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> Any:
    def made(graph: type[Clock] = Graph, not_capturable: str = "", state: State | None = None) -> DeviceTimer:
        monkeypatch.setattr(device_latency, "CudaGraphClock", graph)
        monkeypatch.setattr(device_latency, "CudaEventsClock", Events)
        call: Any = SimpleNamespace(
            place_inputs=lambda: None, restore=lambda _placed=None: None, not_capturable=not_capturable
        )
        return DeviceTimer(call, state or State("one"), lambda: (None, ""))  # type: ignore[arg-type]

    return made


def blocks_us(found: measuring_loop.Measured) -> list[list[float]]:
    return [capture.blocks_us for capture in found.captures]


@pytest.mark.parametrize(("streams", "name"), [("one", "cuda_graph_one_stream"), ("many", "cuda_graph_many_streams")])
def test_graphs_are_replayed_on_one_stream_and_the_clock_is_called_by_the_state(
    timer: Any, streams: str, name: str
) -> None:
    state = State(streams)
    made = timer(state=state)
    found, tail_us = made.measure(random.Random(0), PLAN)
    assert (made.name, made.note, state.used) == (name, "", 1)
    assert blocks_us(found) == [[10.0], [10.0]]
    assert set(tail_us) == {11.0}


def test_a_state_that_can_not_be_set_is_said(timer: Any) -> None:
    made = timer(state=State("one", "no process answers"))
    made.measure(random.Random(0), PLAN)
    assert made.note == "no process answers"


@pytest.mark.parametrize(("graph", "not_capturable"), [(Refused, ""), (Graph, "it swaps kernels")])
def test_a_module_that_can_not_be_captured_is_timed_with_events_in_every_turn(
    timer: Any, graph: type[Clock], not_capturable: str
) -> None:
    made = timer(graph, not_capturable)
    for plan in (PLAN, plans.PAIR_ON_GPU):
        found, _ = made.measure(random.Random(0), plan)
        assert made.name == "cuda_events"
        assert made.note == f"no CUDA graph ({not_capturable or 'it synchronises'}); timed with queued events"
        assert set(map(tuple, blocks_us(found))) == {(10.0,)}


def test_captures_are_kept_for_the_turns_of_a_pair_and_made_anew_with_each_warm_up(timer: Any) -> None:
    made = timer()
    clocks = []
    for plan in (plans.WARM_UP_ON_GPU, plans.PAIR_ON_GPU, plans.WARM_UP_ON_GPU):
        made.measure(random.Random(0), msgspec.structs.replace(plan, warm=False, captures=2))
        clocks.append(made._clock)
    assert clocks[0] is clocks[1] is not clocks[2]
    assert [clock.armed for clock in clocks] == [1, 1, 1]
    assert clocks[0].closed
    made.measure(random.Random(0), PLAN)
    assert made._clock.closed


@pytest.mark.parametrize(
    ("turns", "waited_for"),
    [
        ([(False, 10.0), (True, 10.0), (True, 10.0)], [math.inf, 10.0, 10.0]),
        ([(False, 10.0), (True, 10.7), (True, 10.7)], [math.inf, 10.0, 10.7]),  # it waited in vain, once
        ([(False, 10.7), (True, 10.0), (False, 10.0), (True, 10.0)], [math.inf, 10.7, math.inf, 10.0]),
    ],
)
def test_a_turn_after_another_processs_waits_for_what_the_case_took_before(
    timer: Any, monkeypatch: pytest.MonkeyPatch, turns: list[tuple[bool, float]], waited_for: list[float]
) -> None:
    """(whether another process had the device, what a block takes when the warm-up ends)."""
    asked: list[float] = []

    def measure(*_: Any, before_us: float, **__: Any) -> measuring_loop.Measured:
        asked.append(before_us)
        return measuring_loop.Measured([], [], True, [], "", turns[len(asked) - 1][1])

    made = timer()
    monkeypatch.setattr(measuring_loop, "measure", measure)
    for number, (after_other, _) in enumerate(turns):
        plan = plans.PAIR_ON_GPU if number else plans.WARM_UP_ON_GPU
        made.measure(random.Random(0), msgspec.structs.replace(plan, after_other=after_other))
    assert asked == waited_for
