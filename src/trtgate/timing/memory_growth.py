"""Memory read again and again while a module is called: does it grow, and which line of Python keeps it."""

from __future__ import annotations

import contextlib
import gc
import re
import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from ..common.errors import TrtgateError
from ..records.measurement import MemoryReadings
from . import device_memory
from .clock import Call

MOST_CALLS = 10_000
READINGS = 55
SECONDS = 20.0
"""Of calls; of a module that takes longer for MOST_CALLS fewer are made."""
PATIENCE = 3.0
"""So many times as long may it take in all: the first calls may have been quicker than those that follow."""
WARM_SHARE = 0.1
"""Of the calls, and of the time, that is spent before the first reading."""
TRACED_CALLS, TRACED_S = 500, 5.0
MOST_PLACES = 3
SMAPS, STATUS = Path("/proc/self/smaps_rollup"), Path("/proc/self/status")


def host_bytes() -> int:
    """Return the memory of this process that is resident, or swapped out.

    Of smaps_rollup, which counts pages; VmRSS of /proc/self/status is off by up to some MiB on machines of many CPUs
    (proc(5)) and stands in where a sandbox has no smaps_rollup, or an empty one. Raises TrtgateError where neither says
    it: nothing would grow then.
    """
    with contextlib.suppress(OSError):
        found = _sum_of(SMAPS, "Rss", "Swap")
        if found:
            return found
    found = _sum_of(STATUS, "VmRSS", "VmSwap")
    if not found:
        raise TrtgateError(f"neither {SMAPS} nor {STATUS} says how much memory the process holds")
    return found


def _sum_of(file: Path, *names: str) -> int:
    found = re.findall(rf"^(?:{'|'.join(names)}):\s*(\d+) kB$", file.read_text(), re.MULTILINE)
    return sum(map(int, found)) << 10


def read(call: Call, *, gpu: bool, host: Callable[[], int] = host_bytes, at_once: int = 1) -> MemoryReadings:
    """Call a module up to MOST_CALLS times, and read memory READINGS times meanwhile, always after a collection.

    `call` makes `at_once` calls. Its state is not put back between calls: what it keeps is what is looked for. There
    are fewer readings where calls get slower and slower.
    """
    calls = _calls_between(call, at_once)
    began = time.perf_counter()
    readings: list[tuple[int, int, int]] = []
    for _ in range(READINGS):
        for _ in range(calls):
            call()
        gc.collect()
        readings.append((host(), *(_of_gpu() if gpu else (0, 0))))
        if time.perf_counter() - began > PATIENCE * SECONDS:
            break
    of_host, of_torch, of_gpu = (list(column) for column in zip(*readings, strict=True))
    return MemoryReadings(
        calls=calls * at_once, host_bytes=of_host, torch_bytes=of_torch if gpu else [], gpu_bytes=of_gpu if gpu else []
    )


def settled(
    call: Call, *, gpu: bool, again: Callable[[MemoryReadings], bool], host: Callable[[], int] = host_bytes,
    at_once: int = 1,
) -> MemoryReadings:  # fmt: skip
    """Return what `read` does or, where `again` says so of it, what it does a second time, in the same process."""
    first = read(call, gpu=gpu, host=host, at_once=at_once)
    return read(call, gpu=gpu, host=host, at_once=at_once) if again(first) else first


def _calls_between(call: Call, at_once: int) -> int:
    """Warm up; returns how often `call` is called between two readings."""
    began = start = time.perf_counter()
    took_s: list[float] = []
    while len(took_s) * at_once < WARM_SHARE * MOST_CALLS and (not took_s or start - began < WARM_SHARE * SECONDS):
        call()
        ended = time.perf_counter()
        took_s.append(ended - start)
        start = ended
    typical_s = max(statistics.median(took_s), 1e-9)  # whatever else the machine did to some of them
    return max(1, min(MOST_CALLS // READINGS // at_once, int(SECONDS / READINGS / typical_s)))


def _of_gpu() -> tuple[int, int]:
    import torch

    torch.cuda.synchronize()
    return int(torch.cuda.memory_allocated()), device_memory.used_bytes()


def places(call: Call, at_once: int = 1) -> list[str]:
    """Return where Python allocates what stays after calls, as `+1024 bytes a call, file.py:12`.

    `call` makes `at_once` calls.

    By tracemalloc, which makes calls several times slower, and sees what Python allocates: of a tensor its object, and
    not its memory.
    """
    tracemalloc.start()
    try:
        call()
        before = _traced()
        began, made = time.perf_counter(), 0
        while made < TRACED_CALLS and (not made or time.perf_counter() - began < TRACED_S):
            call()
            made += at_once
        grown = [one for one in _traced().compare_to(before, "lineno") if _stays(one, made)]
    finally:
        tracemalloc.stop()
    grown.sort(key=lambda one: -one.size_diff)
    return [f"{one.size_diff / made:+,.0f} bytes a call, {_place(one.traceback[0])}" for one in grown[:MOST_PLACES]]


def _traced() -> tracemalloc.Snapshot:
    gc.collect()
    ours = [tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, __file__)]
    return tracemalloc.take_snapshot().filter_traces(ours)


def _stays(one: tracemalloc.StatisticDiff, calls: int) -> bool:
    """Whether every other call left something there."""
    return one.size_diff > 0 and one.count_diff >= calls / 2


def _place(frame: tracemalloc.Frame) -> str:
    path = Path(frame.filename)
    return f"{'/'.join(path.parts[-2:]) if 'site-packages' in path.parts else path.name}:{frame.lineno}"
