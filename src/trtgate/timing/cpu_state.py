"""Did other processes take the CPU from this one while a block ran? Then the block says nothing of the module.

And which CPU a thread keeps to.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..common import machine

MAX_TAKEN = 0.2
"""Share of the wall time, summed over threads, that other processes may take; beyond it a block is void."""


@contextlib.contextmanager
def kept_on(cpu: int | None) -> Iterator[None]:
    """Within: the calling thread runs on this CPU alone; None, or one that it may not have: on any of its own.

    Threads that it starts meanwhile keep to it for good, so what starts some (a warm-up) has to come before.
    """
    allowed = os.sched_getaffinity(0)
    if cpu in allowed:
        _keep_to({cpu})
    try:
        yield
    finally:
        if cpu in allowed:
            _keep_to(allowed)


def _keep_to(cpus: set[int]) -> None:
    with contextlib.suppress(OSError):  # a sandbox that allows it nobody, or takes CPUs away meanwhile
        os.sched_setaffinity(0, cpus)


class CpuMonitor:
    """Reads the scheduler's statistics (/proc/PID/task/TID/schedstat: ns run, ns waited, time slices)."""

    def __init__(self) -> None:
        self._cpus = machine.cpus()  # of the process: a turn may keep its thread to one
        self._read_at, self._ran_s, self._waited_s = time.monotonic(), time.process_time(), waited_s()

    def void_reason(self) -> str:
        """Return why what ran since the last call does not count; empty when it does, or nothing is known."""
        now, ran, waited = time.monotonic(), time.process_time(), waited_s()
        wall_s = max(now - self._read_at, 1e-9)
        taken_s = taken_by_others_s(waited - self._waited_s, ran - self._ran_s, wall_s, self._cpus)
        self._read_at, self._ran_s, self._waited_s = now, ran, waited
        return "other processes took the CPU" if taken_s > MAX_TAKEN * wall_s else ""


def taken_by_others_s(waited_s: float, ran_s: float, wall_s: float, cpus: int) -> float:
    """Return how long a process's threads waited for other processes, in seconds, at most.

    Threads also wait for each other, where there are more of them than CPUs: the CPUs were taken by others only for as
    long as the process itself did not run on them.
    """
    return min(waited_s, cpus * wall_s - ran_s)


def waited_s() -> float:
    """Return how long the threads of this process have waited for a CPU so far, in seconds; 0 where unknown."""
    total_ns = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # a thread may end meanwhile
            total_ns += int(file.read_text().split()[1])
    return total_ns / 1e9
