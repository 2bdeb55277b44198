"""Which clock times device latency: a CUDA graph, or queued events where one can't be recorded."""

from __future__ import annotations

import random
from typing import Any

import pytest

from trtgate.timing import device_latency, measuring_loop
from trtgate.timing.clock import CaptureError

PLAN = measuring_loop.Plan(captures=2, blocks=1, warm=False)


class Clock:
    """Takes 10 µs a call."""

    steady_tolerance = 0.01

    def __init__(self, *_arguments: Any) -> None: ...

    def arm(self) -> None: ...

    def block(self, _calls: int, meanwhile: Any) -> float:
        meanwhile()
        return 10.0


class Graph(Clock):
    name = "cuda_graph"


class Refused(Clock):
    name = "cuda_graph"

    def arm(self) -> None:
        raise CaptureError("it synchronises")


class Events(Clock):
    name = "cuda_events"


def call_of(not_capturable: str) -> Any:
    nothing = {"place_inputs": lambda self: None, "restore": lambda self: None}
    return type("Call", (), {**nothing, "not_capturable": not_capturable})()


@pytest.mark.parametrize(
    ("graph", "name", "note"),
    [
        (Graph, "cuda_graph", ""),
        (Refused, "cuda_events", "no CUDA graph (it synchronises); timed with queued events"),
    ],
)
def test_a_module_that_can_not_be_captured_is_timed_with_events(
    monkeypatch: pytest.MonkeyPatch, graph: type[Clock], name: str, note: str
) -> None:
    monkeypatch.setattr(device_latency, "CudaGraphClock", graph)
    monkeypatch.setattr(device_latency, "CudaEventsClock", Events)
    call = call_of("")
    spin: Any = None
    found = device_latency.device_latency(call, spin, random.Random(0), PLAN, lambda: (None, ""))
    assert (found.clock.name, found.note) == (name, note)
    assert [capture.blocks_us for capture in found.captures] == [[10.0], [10.0]]


def test_kernels_that_are_swapped_while_they_run_are_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_latency, "CudaGraphClock", Refused)
    monkeypatch.setattr(device_latency, "CudaEventsClock", Events)
    spin: Any = None
    call = call_of("it swaps kernels")
    found = device_latency.device_latency(call, spin, random.Random(0), PLAN, lambda: (None, ""))
    assert (found.clock.name, found.note) == (
        "cuda_events",
        "no CUDA graph (it swaps kernels); timed with queued events",
    )
