"""The host's clock: for CPUs, and for what a server feels of a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from ..common.metrics import ON_HOST
from .clock import Call

FEWEST_TO_GROW = 8
"""Calls of a block from which on its halves are compared."""


class HostClock:
    """Wall time of calls that are done when they return: modules on a CPU."""

    name = f"{ON_HOST}_mean"
    """A block was its median call once, by the name "host": the two are not compared."""
    steady_tolerance = 0.05
    overhead_us = 0.0

    def __init__(self, call: Call) -> None:
        self._call = call
        self._last_us: list[float] = []
        self._kept_us: list[float] = []
        self._growth: list[float] = []

    def arm(self, captures: int) -> int:
        """Nothing to prepare."""
        return captures

    def block(self, calls: int, meanwhile: Callable[[], None], _capture: int = 0, /) -> float:
        """Return the mean wall time of `calls` calls in microseconds: also of a module that is slow in some calls.

        A call that other processes interrupted is in it: such a block is void (cpu_state.py), or trimmed away.
        """
        call, now = self._call, time.perf_counter
        times = []
        for _ in range(calls):
            start = now()
            call()
            times.append(now() - start)
        meanwhile()
        if calls >= FEWEST_TO_GROW:
            half = calls // 2
            self._growth.append(statistics.median(times[half:]) / statistics.median(times[:half]))
        self._last_us = [seconds * 1e6 for seconds in times]
        return statistics.fmean(self._last_us)

    def keep(self) -> None:
        """Count the last block: its calls are what percentiles are of."""
        self._kept_us += self._last_us

    def tail(self, most: int) -> list[float]:
        """Return the calls of blocks that count, in microseconds, or `most` of them, spread over all."""
        return spread_over(self._kept_us, most)

    def growth(self) -> float:
        """Return how much longer calls of a block's second half take than those of its first: 0 for no longer.

        The median over blocks of the medians' ratio. A module whose cache grows with every call is told by it.
        """
        return statistics.median(self._growth) - 1 if self._growth else 0.0

    def close(self) -> None:
        """Nothing to free."""


def spread_over(values: Sequence[float], most: int) -> list[float]:
    """Return at most `most` of the values, evenly spaced by rank: they have the percentiles of all."""
    ordered, count = sorted(values), min(most, len(values))
    return [ordered[int((number + 0.5) * len(ordered) / count)] for number in range(count)]


def host_latency(
    call: Call, synchronize: Callable[[], None], seconds: float, *, fewest: int = 10
) -> tuple[list[float], list[float]]:
    """Time single inferences for about `seconds`: (call + synchronize, the call alone), both in microseconds."""
    host_us: list[float] = []
    enqueue_us: list[float] = []
    synchronize()
    deadline = time.perf_counter() + seconds
    while len(host_us) < fewest or time.perf_counter() < deadline:
        start = time.perf_counter()
        call()
        queued = time.perf_counter()
        synchronize()
        done = time.perf_counter()
        enqueue_us.append((queued - start) * 1e6)
        host_us.append((done - start) * 1e6)
    return host_us, enqueue_us
