"""Were this process's threads kept waiting for a CPU while a block ran? Then the block says nothing of the module."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

MAX_WAITING = 0.2
"""Share of the wall time, summed over threads, that they may wait runnable; beyond it a block is void."""


class CpuMonitor:
    """Reads the scheduler's statistics (/proc/PID/task/TID/schedstat: ns run, ns waited, time slices)."""

    def __init__(self) -> None:
        self._read_at, self._waited_s = time.monotonic(), waited_s()

    def void_reason(self) -> str:
        """Return why what ran since the last call does not count; empty when it does, or nothing is known."""
        now, waited = time.monotonic(), waited_s()
        share = (waited - self._waited_s) / max(now - self._read_at, 1e-9)
        self._read_at, self._waited_s = now, waited
        return "other processes took the CPU" if share > MAX_WAITING else ""


def waited_s() -> float:
    """Return how long the threads of this process have waited for a CPU so far, in seconds; 0 where unknown."""
    total_ns = 0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):  # a thread may end meanwhile
            total_ns += int(file.read_text().split()[1])
    return total_ns / 1e9
