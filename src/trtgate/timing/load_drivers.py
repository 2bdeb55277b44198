"""Threads that call a module again and again, all at once, and what they got within a window of time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from .clock import Call

WARM_CALLS = 2
"""So often has every thread called before a window begins: its first call takes what a thread takes once."""
GIVEN_UP_S = 5.0
"""So long are the others waited for when a call has failed: they may wait for it themselves, for ever."""


class Driven(NamedTuple):
    """What threads got within a window."""

    latencies_us: list[float]
    """Of the calls that ended there: none of them ran while others had not begun, or had ended."""
    inferences: float
    """Shares of calls counted, for calls that reach beyond the window."""
    in_flight_us: Sequence[float] = ()
    """How long those calls had lasted that the end of the window found at work: they take longer than that."""


class Drivers:
    """One thread for each call, which calls it until `end`. They may be ended from any thread, once."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._ended = threading.Event()
        self._said: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._drivers = [_Driver(call, self._ended.is_set, self._said) for call in calls]

    def begin(self) -> float:
        """Start all of them, and return when each has called WARM_CALLS times: the longest of their last calls, in s.

        Raises what a call raised; all threads have ended then, but for those that do not within GIVEN_UP_S.
        """
        for driver in self._drivers:
            driver.start()
        self._wait_until(lambda driver: driver.warm)
        return max(ended - began for driver in self._drivers for began, ended in [driver.times[WARM_CALLS - 1]])

    def end(self, began_s: float, ended_s: float) -> Driven:
        """Let each finish its call, and return what they got between two times of `time.perf_counter`.

        Times of other processes of this machine mean the same (CLOCK_MONOTONIC). Raises what a call raised.
        """
        self._ended.set()
        self._wait_until(lambda driver: driver.over)
        return within([span for driver in self._drivers for span in driver.times], began_s, ended_s)

    def _wait_until(self, done: Callable[[_Driver], bool]) -> None:
        _wait_until(done, self._drivers, self._said, self._ended.set)


def all_at_once(calls: Sequence[Call], *, times: int, seconds: float) -> None:
    """Let a thread each make calls, until all have made so many, or for so long; each makes one in any case.

    Raises what a call raised.
    """
    drivers: list[_Driver] = []
    deadline_s = time.perf_counter() + seconds

    def over() -> bool:
        at_work = min(len(driver.times) for driver in drivers)
        failed = any(driver.error is not None for driver in drivers)
        return failed or at_work >= times or (at_work > 0 and time.perf_counter() > deadline_s)

    said: queue.SimpleQueue[None] = queue.SimpleQueue()
    drivers += [_Driver(call, over, said) for call in calls]
    for driver in drivers:
        driver.start()
    _wait_until(lambda driver: driver.over, drivers, said)


def _wait_until(
    done: Callable[[_Driver], bool], drivers: Sequence[_Driver], said: queue.SimpleQueue[None],
    end: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Wait for all of them. Raises what a call raised, after an end for the others, who may hang."""
    while True:
        arrived = all(map(done, drivers))
        failed = [driver.error for driver in drivers if driver.error is not None]
        if failed:
            end()
            for driver in drivers:
                driver.join(GIVEN_UP_S)
            raise failed[0]
        if arrived:
            return
        said.get()


class Together:
    """Calls that are made at once, each by a thread that stays its own; calling this makes each of them once."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._each = [(call, ThreadPoolExecutor(1)) for call in calls]

    def __call__(self) -> None:
        """Make the calls, and return when all are over. Raises what one of them raised."""
        for made in [thread.submit(call) for call, thread in self._each]:
            made.result()


class _Driver(threading.Thread):
    """Says something when it is warm, and when it is over."""

    def __init__(self, call: Call, ended: Callable[[], bool], said: queue.SimpleQueue[None]) -> None:
        super().__init__(daemon=True)
        self._call, self._ended, self._said = call, ended, said
        self.warm = self.over = False
        self.times: list[tuple[float, float]] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        call, now, ended, times = self._call, time.perf_counter, self._ended, self.times
        try:
            while not ended():
                began = now()
                call()
                times.append((began, now()))
                if len(times) == WARM_CALLS:
                    self.warm = True
                    self._said.put(None)
        except BaseException as error:  # what pytest.skip and sys.exit raise, too: nobody calls any more
            self.error = error
        finally:
            self.over = True
            self._said.put(None)


def within(spans: Sequence[tuple[float, float]], began_s: float, ended_s: float) -> Driven:
    """Return what calls, each from when to when, got within a window."""
    latencies_us = [round((end - start) * 1e6, 3) for start, end in spans if began_s <= end <= ended_s]
    inferences = sum(
        (min(end, ended_s) - max(start, began_s)) / (end - start)
        for start, end in spans
        if end > began_s and start < ended_s and end > start
    )
    in_flight_us = [round((ended_s - start) * 1e6, 3) for start, end in spans if start < ended_s < end]
    return Driven(latencies_us, inferences, in_flight_us)
