"""Device latency without a graph, for modules that can't be captured: short batches queued behind a spin kernel."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ..common.metrics import QUEUED
from .clock import Call
from .spin_kernel import Spin

BATCH_CALLS = 4
"""Calls between one pair of events. The launch queue holds about a thousand kernels; when it is full the host
waits for the GPU, so a batch must stay well below."""


class CudaEventsClock:
    """Batches of queued calls between events; gaps that the module itself makes (synchronisation) are in it.

    They run on the default stream: what a module launches there by itself would not be waited for on another.
    """

    name = QUEUED
    steady_tolerance = 0.005

    def __init__(self, call: Call, spin: Spin) -> None:
        self._call = call
        self._spin = spin
        self._enqueue_us = 0.0
        self.placed: list[object] = []
        """None for each that would be a capture."""

    def arm(self, captures: int) -> int:
        """Measure how long queuing a call takes, which is what the spin kernel must cover."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        self._call()
        self._enqueue_us = (time.perf_counter() - start) * 1e6
        torch.cuda.synchronize()
        self.placed = [None] * captures
        return captures

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
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self._spin.queue(1.5 * calls * self._enqueue_us)
        start.record()
        for _ in range(calls):
            self._call()
        end.record()
        meanwhile()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e3


def _nothing() -> None:
    """Do nothing while the block runs."""
