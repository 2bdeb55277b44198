"""Device latency with a cold L2 cache, on a GPU whose time a test controls."""

from __future__ import annotations

import contextlib
import random
from types import SimpleNamespace
from typing import Any

import pytest

from trtgate.timing import cold_l2
from trtgate.timing.clock import CaptureError
from trtgate.timing.device_state import NoState

L2_BYTES = 50 << 20
WARM_US, COLD_US, FLUSH_US = 10.0, 25.0, 40.0


class Gpu:
    """Takes longer for what the cache does not hold; whatever else is written empties it."""

    def __init__(self) -> None:
        self.now_us = 0.0
        self.cached = False
        self.buffers: list[int] = []

    def empty(self, size: int, **_how: Any) -> Any:
        self.buffers.append(size)
        return self

    def zero_(self) -> None:
        self.now_us += FLUSH_US
        self.cached = self.cached and self.buffers[-1] < L2_BYTES

    def replay(self) -> None:
        self.now_us += WARM_US if self.cached else COLD_US
        self.cached = True

    def reset(self) -> None:
        pass


class Event:
    gpu: Gpu

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at_us = self.gpu.now_us

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return (end.at_us - self.at_us) / 1e3


class State(NoState):
    spin = SimpleNamespace(queue=lambda _us: None)

    @contextlib.contextmanager
    def on_stream(self) -> Any:
        yield


def call(not_capturable: str = "") -> Any:
    return SimpleNamespace(place_inputs=lambda: None, restore=lambda _placed=None: None, not_capturable=not_capturable)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    found = Gpu()
    monkeypatch.setattr(Event, "gpu", found, raising=False)
    cuda = SimpleNamespace(
        Event=Event,
        current_device=lambda: 0,
        get_device_properties=lambda _device: SimpleNamespace(L2_cache_size=L2_BYTES),
        empty_cache=lambda: None,
    )
    monkeypatch.setattr(cold_l2, "torch", SimpleNamespace(cuda=cuda, empty=found.empty, uint8=None))
    monkeypatch.setattr("trtgate.timing.cuda_graph_clock.torch", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(cold_l2, "PLAN", cold_l2.Plan(captures=2, blocks=3, warmup_s=0.0, max_warmup_s=0.1))

    def arm(clock: Any, captures: int) -> int:
        clock._graphs, clock.placed = [found] * captures, [None] * captures
        return captures

    monkeypatch.setattr(cold_l2.CudaGraphClock, "arm", arm)
    return found


def test_what_is_timed_is_the_case_with_a_cold_cache_and_not_the_flush(gpu: Gpu) -> None:
    found = cold_l2.measured(call(), State(), lambda: (None, ""), random.Random(0))  # type: ignore[arg-type]
    assert [capture.blocks_us for capture in found] == [pytest.approx([COLD_US] * 3)] * 2
    assert all(capture.replays > 1 for capture in found)
    assert gpu.buffers == [cold_l2.TIMES_L2 * L2_BYTES]


def test_a_warm_cache_would_read_less(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above rests on: a buffer that fits into the cache leaves the case in it."""
    monkeypatch.setattr(cold_l2, "TIMES_L2", 0)
    found = cold_l2.measured(call(), State(), lambda: (None, ""), random.Random(0))  # type: ignore[arg-type]
    assert max(us for capture in found for us in capture.blocks_us) < COLD_US


def test_what_can_not_be_captured_has_no_such_figure(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_clock: Any, _captures: int) -> int:
        raise CaptureError("it synchronises")

    def found(of: Any) -> list[Any]:
        return cold_l2.measured(of, State(), lambda: (None, ""), random.Random(0))  # type: ignore[arg-type]

    assert found(call("it swaps kernels")) == []
    assert not gpu.buffers
    monkeypatch.setattr(cold_l2.CudaGraphClock, "arm", refused)
    assert found(call()) == []
