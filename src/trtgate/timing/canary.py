"""Fixed work that has nothing to do with the case: when it takes another time, the machine is in another state."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .spin_kernel import Spin

SPIN_CYCLES = 1_000_000
COPY_BYTES = 128 << 20
HASH_BYTES = 4 << 20
REPEATS = 5
HEAD_START_US = 200.0


def cpu_canary() -> dict[str, float]:
    """Return {"hash": µs}: SHA-256 of 4 MiB on one core, the fastest of five."""
    data = bytes(HASH_BYTES)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        hashlib.sha256(data).digest()
        times.append((time.perf_counter() - start) * 1e6)
    return {"hash": min(times)}


def gpu_canary(spin: Spin) -> dict[str, float]:
    """Return {"sm_clock": µs of a million cycles, "memory_copy": µs of copying 128 MiB}, the fastest of five.

    Both are queued behind a spin kernel: else the time to launch them, which is the host's, is in them.
    """
    import torch

    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    spins, copies = [], []
    for _ in range(REPEATS):
        spin.queue(HEAD_START_US)
        spins.append(spin.timed_us(SPIN_CYCLES))
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        spin.queue(HEAD_START_US)
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        copies.append(float(start.elapsed_time(end)) * 1e3)
    del source, target
    torch.cuda.empty_cache()
    return {"sm_clock": min(spins), "memory_copy": min(copies)}
