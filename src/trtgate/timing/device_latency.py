"""Device latency by the best clock that a module allows: CUDA graphs, else queued events."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from . import measuring_loop
from .clock import CaptureError, DeviceClock
from .cuda_event_clock import CudaEventsClock
from .cuda_graph_clock import CudaGraphClock
from .device_state import NO_STATE, ONE, DeviceState
from .measuring_loop import Measured, Watched
from .plans import Plan
from .stream_state import StreamState


class Placed(Protocol):
    """One inference whose inputs can be placed anew, and whose state can be put back."""

    not_capturable: str
    """Why a CUDA graph of it would not be what it runs later; empty where it would."""

    def __call__(self) -> object:
        """Run once."""

    def place_inputs(self) -> object:
        """Copy the inputs to newly allocated memory; returns them."""

    def restore(self, placed: Any = None) -> None:
        """Put back what calls changed, in inputs that lie elsewhere where they are given."""


class DeviceTimer:
    """Times one inference on a GPU, turn after turn; `note` says why by no CUDA graph, or in no known state.

    Captures that a plan keeps are there for the next turn, until `close`.
    """

    def __init__(self, call: Placed, state: StreamState, watch: Callable[[], Watched]) -> None:
        self.note = ""
        self._call = call
        self._state = state
        self._watch = watch
        self._clock: DeviceClock | None = None
        self._before_us = math.inf
        """What a block of the first capture took where no other process had the device since the turn before."""

    @property
    def name(self) -> str:
        """The name of the clock that was used last."""
        assert self._clock is not None, "nothing was measured"
        return self._clock.name

    def measure(self, rng: random.Random, plan: Plan) -> tuple[Measured, list[float]]:
        """Measure a turn; returns it, and single calls for percentiles, in microseconds.

        By replaying CUDA graphs on one stream; a module that can't be captured, by queued events.
        """
        if self._call.not_capturable or isinstance(self._clock, CudaEventsClock):
            return self._with_events(rng, plan, self._call.not_capturable)
        try:
            with self._state.on_stream():
                return self._with_graphs(rng, plan)
        except CaptureError as error:
            self.close()
            return self._with_events(rng, plan, str(error))

    def _with_graphs(self, rng: random.Random, plan: Plan) -> tuple[Measured, list[float]]:
        clock = self._clock
        if not isinstance(clock, CudaGraphClock) or plan.arm:
            self.close()
            name = "cuda_graph_one_stream" if self._state.streams == ONE else "cuda_graph_many_streams"
            clock = CudaGraphClock(self._call, self._state.spin, rng, self._call.place_inputs, name)
            self._clock, plan = clock, msgspec.structs.replace(plan, arm=True)
        found, tail_us = self._timed(clock, plan, rng, self._state)
        self.note = found.problem
        return found, tail_us

    def _with_events(self, rng: random.Random, plan: Plan, reason: str) -> tuple[Measured, list[float]]:
        if reason:
            self.note = f"no CUDA graph ({reason}); timed with queued events"
        clock = self._clock
        if clock is None:
            clock = self._clock = CudaEventsClock(self._call, self._state.spin)
            plan = msgspec.structs.replace(plan, arm=True)
        return self._timed(clock, plan, rng, NO_STATE)

    def _timed(
        self, clock: DeviceClock, plan: Plan, rng: random.Random, state: DeviceState
    ) -> tuple[Measured, list[float]]:
        found = measuring_loop.measure(
            clock, plan, self._watch, lambda capture: self._call.restore(clock.placed[capture]),
            armed=len(clock.placed), state=state, rng=rng, before_us=self._before_us if plan.after_other else math.inf,
        )  # fmt: skip
        alone = plan.arm or not plan.after_other
        if found.warm_us and (alone or measuring_loop.is_slower(found.warm_us, self._before_us)):
            self._before_us = found.warm_us  # a turn that waited in vain is the last that does
        calls = measuring_loop.calls_of_tail(found.captures, plan)
        for placed in clock.placed:
            self._call.restore(placed)
        tail_us = clock.tail(calls) if calls else []
        if not plan.keep:
            clock.close()
        return found, tail_us

    def close(self) -> None:
        """Free what is kept."""
        if self._clock is not None:
            self._clock.close()
            self._clock = None
