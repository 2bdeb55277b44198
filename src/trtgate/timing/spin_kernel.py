"""A kernel that keeps the GPU waiting while the host queues work behind it."""

from __future__ import annotations

import torch

MAX_SPIN_US = 50_000.0


class Spin:
    """Spin kernels of a wanted length; how many cycles a microsecond has is measured once."""

    def __init__(self) -> None:
        self.cycles_per_us = 1_000.0
        for _ in range(2):  # the first also loads the kernel and raises the clock
            self.cycles_per_us = 2_000_000 / self.timed_us(2_000_000)

    def queue(self, us: float) -> None:
        """Queue a kernel of about `us` microseconds, at most MAX_SPIN_US."""
        torch.cuda._sleep(int(min(max(us, 20.0), MAX_SPIN_US) * self.cycles_per_us))

    @staticmethod
    def timed_us(cycles: int) -> float:
        """Return how long a spin of `cycles` cycles takes: it shows the SM clock as the kernel sees it."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        torch.cuda._sleep(cycles)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e3
