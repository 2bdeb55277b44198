"""Where the seconds of a run go: the few places that do its work say what they do, and one object adds it up."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


class Work(enum.StrEnum):
    """What a run does, in the order in which it begins it."""

    COLLECTING = "collecting"
    """Importing the suites, and collecting tests."""
    BUILDING_AHEAD = "building_ahead"
    STARTING = "starting"
    """Importing PyTorch, here and in the processes that the run waits for."""
    WAITING = "waiting"
    """For other trtgate processes on the device."""
    COVERAGE = "coverage"
    BUILDING = "building"
    LOADING = "loading"
    MEASURING = "measuring"
    COLD_STARTS = "cold_starts"
    UNDER_LOAD = "under_load"
    CHECKING = "checking"
    """Accuracy in a fresh process (`--trtgate-lifecycle`)."""
    PROFILING = "profiling"
    CONFIRMING = "confirming"
    """All that a suspicion asks for, whatever is done in it."""
    REST = "rest"


class SpentTime:
    """The seconds of one run by kind of work; `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._at_work = False
        self._seconds = dict.fromkeys(Work, 0.0)

    @property
    def total_s(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._start

    def of(self, kind: Work) -> float:
        """Return the seconds of a kind of work that has ended."""
        return self._seconds[kind]

    def by_kind(self, total_s: float) -> dict[str, float]:
        """Return kind → seconds of those that took any; `total_s` is what all of them add up to, "rest" among them."""
        rest_s = total_s - sum(self._seconds.values())
        found = {str(kind): round(seconds, 3) for kind, seconds in {**self._seconds, Work.REST: rest_s}.items()}
        return {name: seconds for name, seconds in found.items() if seconds > 0}

    @contextmanager
    def during(self, kind: Work) -> Iterator[None]:
        """Within: the seconds are of this kind, unless they are of another one already."""
        if self._at_work:
            yield
            return
        self._at_work, start = True, self._clock()
        try:
            yield
        finally:
            self._seconds[kind] += self._clock() - start
            self._at_work = False


class _OfThread(threading.local):
    """The runs that a thread counts for, the one that it is in last. A thread that a run starts counts for none."""

    def __init__(self) -> None:
        self.runs: list[SpentTime] = []


_THREAD = _OfThread()


def begin(clock: Callable[[], float] = time.monotonic) -> SpentTime:
    """Return where the work of this thread is counted from now on, until `end`."""
    _THREAD.runs.append(made := SpentTime(clock))
    return made


def end(spent: SpentTime) -> None:
    """Count no more there; a run that this one was begun in goes on. Nothing happens where it had ended."""
    _THREAD.runs = [one for one in _THREAD.runs if one is not spent]


@contextmanager
def during(kind: Work) -> Iterator[None]:
    """Within: the seconds of this thread's run are of this kind, unless they are of another one already.

    Nothing is counted in other threads: what they do at the same time takes none of the run's seconds.
    """
    if not _THREAD.runs:
        yield
        return
    with _THREAD.runs[-1].during(kind):
        yield


def sentence(seconds: Mapping[str, float]) -> str:
    """Return seconds by kind as one line, such as `loading 21.0 s, rest 3.1 s`; without those that round to 0.0 s."""
    shown = {name.replace("_", " "): f"{found:.1f} s" for name, found in seconds.items()}
    return ", ".join(f"{name} {found}" for name, found in shown.items() if found != "0.0 s")
