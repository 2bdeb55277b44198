"""Threads that call a module again and again, all at once, and what they got within a window of time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .clock import Call

WARM_CALLS = 2
"""So often has every thread called before a window begins: its first call takes what a thread takes once."""


class Driven(NamedTuple):
    """What threads got within a window."""

    latencies_us: list[float]
    """Of the calls that ended there: none of them ran while others had not begun, or had ended."""
    inferences: float
    """Shares of calls counted, for calls that reach beyond the window."""


class Drivers:
    """One thread for each call, which calls it until `end`. They may be ended from any thread, once."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._ended = threading.Event()
        self._drivers = [_Driver(call, self._ended.is_set) for call in calls]

    def begin(self) -> float:
        """Start all of them, and return when each has called WARM_CALLS times: the longest of their last calls, in s.

        Raises what a call raised; all threads have ended then.
        """
        for driver in self._drivers:
            driver.start()
        for driver in self._drivers:
            driver.warm.wait()
        self._raise_what_failed()
        return max(ended - began for driver in self._drivers for began, ended in driver.times[WARM_CALLS - 1 :][:1])

    def end(self, began_s: float, ended_s: float) -> Driven:
        """Let each finish its call, and return what they got between two times of `time.perf_counter`.

        Times of other processes of this machine mean the same (CLOCK_MONOTONIC). Raises what a call raised.
        """
        self._stop()
        self._raise_what_failed()
        return within([span for driver in self._drivers for span in driver.times], began_s, ended_s)

    def _raise_what_failed(self) -> None:
        failed = [driver.error for driver in self._drivers if driver.error is not None]
        if failed:
            self._stop()
            raise failed[0]

    def _stop(self) -> None:
        self._ended.set()
        for driver in self._drivers:
            driver.join()


class _Driver(threading.Thread):
    def __init__(self, call: Call, ended: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self._call, self._over = call, ended
        self.warm = threading.Event()
        self.times: list[tuple[float, float]] = []
        self.error: Exception | None = None

    def run(self) -> None:
        call, now, over, times = self._call, time.perf_counter, self._over, self.times
        try:
            while not over():
                began = now()
                call()
                times.append((began, now()))
                if len(times) == WARM_CALLS:
                    self.warm.set()
        except Exception as error:
            self.error = error
        finally:
            self.warm.set()


def within(spans: Sequence[tuple[float, float]], began_s: float, ended_s: float) -> Driven:
    """Return what calls, each from when to when, got within a window."""
    latencies_us = [round((end - start) * 1e6, 3) for start, end in spans if began_s <= end <= ended_s]
    inferences = sum(
        (min(end, ended_s) - max(start, began_s)) / (end - start)
        for start, end in spans
        if end > began_s and start < ended_s and end > start
    )
    return Driven(latencies_us, inferences)
