"""Device latency without a graph, for modules that can't be captured: short batches queued behind a spin kernel."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from ..common.metrics import QUEUED
from .clock import Call
from .spin_kernel import Spin

BATCH_CALLS = 4
"""Calls between one pair of events. The launch queue holds about a thousand kernels; when it is full the host
waits for the GPU, so a batch must stay well below."""
QUEUED_ALONE = 5
"""Calls that say how long queuing one takes: their median, after one that may compile kernels."""
MARGINS = (1.5, 3.0, 6.0, 12.0)
"""How long a spin is, as a multiple of what queuing takes: the next is tried where the GPU was through with it before
all was queued. A module that waits for the GPU itself is through with any."""


class CudaEventsClock:
    """Batches of queued calls between events; gaps that the module itself makes (synchronisation) are in it.

    They run on the default stream: what a module launches there by itself would not be waited for on another.
    """

    name = QUEUED
    steady_tolerance = 0.005

    def __init__(self, call: Call, spin: Spin) -> None:
        self._call = call
        self._spin = spin
        self._queuing_us = self.overhead_us = 0.0
        self._margins: tuple[float, ...] = MARGINS
        self.placed: list[object] = []
        """None for each that would be a capture."""

    def arm(self, captures: int) -> int:
        """Measure how long queuing a call takes, which is what the spin kernel must cover."""
        self._call()
        self._queuing_us = statistics.median(self._queued_alone_us() for _ in range(QUEUED_ALONE))
        self.overhead_us = MARGINS[0] * self._queuing_us  # of the spin; the host queues meanwhile
        self._margins = MARGINS
        self.placed = [None] * captures
        return captures

    def _queued_alone_us(self) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        self._call()
        taken_us = (time.perf_counter() - start) * 1e6
        torch.cuda.synchronize()
        return taken_us

    def block(self, calls: int, meanwhile: Callable[[], None], _capture: int = 0, /) -> float:
        """Return the mean device time of `calls` calls in microseconds; there are no captures."""
        total_us, left = 0.0, calls
        while left:
            batch = min(left, BATCH_CALLS)
            total_us += self._batch(batch, meanwhile if left == calls else _nothing)
            left -= batch
        return total_us / calls

    def close(self) -> None:
        """Nothing to free."""

    def tail(self, calls: int) -> list[float]:
        """Time single calls."""
        return [self._batch(1, _nothing) for _ in range(calls)]

    def _batch(self, calls: int, meanwhile: Callable[[], None]) -> float:
        for margin in self._margins:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            self._spin.queue(margin * calls * self._queuing_us)
            start.record()
            for _ in range(calls):
                self._call()
            end.record()
            ahead = not start.query()
            meanwhile()
            end.synchronize()
            if ahead:
                break
            meanwhile = _nothing
        else:
            self._margins = MARGINS[:1]
        return float(start.elapsed_time(end)) * 1e3


def _nothing() -> None:
    """Do nothing while the block runs."""
