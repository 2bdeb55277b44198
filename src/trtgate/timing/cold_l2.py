"""Device latency where the GPU's L2 cache holds nothing of a case, as where others use the GPU between its calls."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import torch

from ..records.measurement import Capture
from . import measuring_loop
from .clock import CaptureError
from .cuda_graph_clock import CudaGraphClock
from .device_latency import Placed
from .measuring_loop import Watched
from .plans import Plan
from .stream_state import StreamState

PLAN = Plan(captures=8, max_warmup_s=1.0, window_s=0.1)
TIMES_L2 = 2
"""The buffer that is written between calls is so many times as large as the cache."""


class ColdL2Clock(CudaGraphClock):
    """Replays of CUDA graphs; before each a buffer larger than the L2 cache is written, which is not timed.

    Each replay lies between two events of its own, which makes it 1 to 2 µs longer: to be compared with its like alone.
    """

    steady_tolerance = 0.005
    overhead_us = 0.0

    def arm(self, captures: int) -> int:
        """Record captures, and take the buffer."""
        l2_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._buffer = torch.empty(TIMES_L2 * l2_bytes, dtype=torch.uint8, device="cuda")
        return super().arm(captures)

    def block(self, calls: int, meanwhile: Callable[[], None], capture: int = 0) -> float:
        """Return the mean device latency of `calls` replays in microseconds."""
        graph = self._graphs[capture]
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
        self._spin.queue(1.5 * calls * self._enqueue_us)
        began = time.perf_counter()
        for start, end in events:
            self._buffer.zero_()
            start.record()
            graph.replay()
            end.record()
        self._enqueue_us = (time.perf_counter() - began) / calls * 1e6
        meanwhile()
        events[-1][1].synchronize()
        return statistics.fmean(start.elapsed_time(end) for start, end in events) * 1e3


def measured(call: Placed, state: StreamState, watch: Callable[[], Watched], rng: random.Random) -> list[Capture]:
    """Return captures with their blocks; none of a module that can't be captured."""
    if call.not_capturable:
        return []
    try:
        with state.on_stream():
            clock = ColdL2Clock(call, state.spin, rng, call.place_inputs)
            try:
                found = measuring_loop.measure(
                    clock, PLAN, watch, lambda capture: call.restore(clock.placed[capture]), state=state, rng=rng
                )
            finally:
                clock.close()
    except CaptureError:
        return []
    return found.captures
