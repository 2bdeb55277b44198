"""Device latency by the best clock that a module allows: a CUDA graph, else queued events."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ..records.measurement import Capture, GpuState
from . import measuring_loop
from .clock import CaptureError, DeviceClock
from .cuda_event_clock import CudaEventsClock
from .cuda_graph_clock import CudaGraphClock
from .spin_kernel import Spin


class Placed(Protocol):
    """One inference whose inputs can be placed anew, and whose state can be put back."""

    not_capturable: str
    """Why a CUDA graph of it would not be what it runs later; empty where it would."""

    def __call__(self) -> object:
        """Run once."""

    def place_inputs(self) -> None:
        """Copy the inputs to newly allocated memory."""

    def restore(self) -> None:
        """Put back what calls changed."""


class TimedOnDevice(NamedTuple):
    """What was measured; `clock` is still armed, and the caller's to close."""

    clock: DeviceClock
    captures: list[Capture]
    states: list[GpuState]
    steady: bool
    note: str
    """Why it was no CUDA graph; empty when it was."""


def device_latency(
    call: Placed, spin: Spin, rng: random.Random, plan: measuring_loop.Plan, watch: Callable[[], measuring_loop.Watched]
) -> TimedOnDevice:
    """Measure device latency by replaying CUDA graphs; a module that can't be captured, by queued events."""
    if call.not_capturable:
        return _with_events(call, spin, plan, watch, call.not_capturable)
    graph = CudaGraphClock(call, spin, rng, call.place_inputs)
    try:
        return TimedOnDevice(graph, *measuring_loop.measure(graph, plan, watch, call.restore), "")
    except CaptureError as error:
        reason = str(error)
    return _with_events(call, spin, plan, watch, reason)


def _with_events(
    call: Placed, spin: Spin, plan: measuring_loop.Plan, watch: Callable[[], measuring_loop.Watched], reason: str
) -> TimedOnDevice:
    note = f"no CUDA graph ({reason}); timed with queued events"
    events = CudaEventsClock(call, spin)
    return TimedOnDevice(events, *measuring_loop.measure(events, plan, watch, call.restore), note)
