"""Did other processes take the CPU from this one while a block ran? Then the block says nothing of the module.

And which CPU a thread keeps to, and whether calls start threads, which would keep to it too.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..common import machine

MAX_TAKEN = 0.2
"""Share of the wall time, summed over threads, that other processes may take; beyond it a block is void."""

STARTED = 0.05
"""Share of the CPU time of calls that threads and processes have which these start; from it on they count."""


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


def starts_threads(calls: Callable[[], object]) -> bool:
    """Return whether calls start threads or processes that do no small part of their work; False where unknown.

    Threads that are there already, as of PyTorch's pools, are none of these.
    """
    threads, all_s, children_s = _ran_s(), time.process_time(), _children_s()
    calls()
    all_s, children_s = time.process_time() - all_s, _children_s() - children_s
    known_s = sum(ran_s - threads[tid] for tid, ran_s in _ran_s().items() if tid in threads)
    return bool(threads) and all_s - known_s + children_s > STARTED * (all_s + children_s)


def _ran_s() -> dict[int, float]:
    """Return how long each thread of this process has run, in seconds, by its id: as exactly as the kernel counts it.

    Linux has a clock for each: clock_getcpuclockid(3) and the kernel's posix-timers.h say how its number is made.
    """
    found: dict[int, float] = {}
    for folder in Path("/proc/self/task").glob("*"):
        with contextlib.suppress(OSError):  # a thread may end meanwhile
            found[int(folder.name)] = time.clock_gettime(~int(folder.name) << 3 | 6)
    return found


def _children_s() -> float:
    """Return how long processes that this one started, and that have ended, have run, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
