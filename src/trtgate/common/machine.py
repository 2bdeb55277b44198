"""What this machine, or the container that it is seen from, has room for, and which compiler. Imports no torch."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where a container sees its own limit, by version 2 and 1 of control groups."""


def cpus() -> int:
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Return the memory that processes can still take, of the machine's and within the container's limit.

    What a container has taken of its limit is not subtracted: most of it may be files that were read, which make way.
    """
    found = [sys.maxsize]
    try:
        lines = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
        found.append(int(lines["MemAvailable"].removesuffix("kB")) * 1024)
    except (OSError, ValueError, KeyError):
        pass
    for limit in LIMITS:
        try:
            found.append(int(limit.read_text()))
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
    return min(found)


def processes(bytes_each: int) -> int:
    """Return how many processes of `bytes_each` of memory there is room for, one a CPU at most, and at least one."""
    return max(1, min(cpus(), memory_bytes() // bytes_each))


def cpp_compiler() -> str:
    """Return the path of the C++ compiler that Inductor would call; empty when there is none."""
    wanted = os.environ.get("CXX", "")
    return next((path for name in (wanted, "g++", "clang++", "c++") if name and (path := shutil.which(name))), "")
