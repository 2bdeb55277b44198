"""What a clock is: the one protocol behind which CUDA graphs, queued events and the host's clock stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Call = Callable[[], object]
"""One inference, ready to be run again and again."""


class Clock(Protocol):
    """Times blocks of back-to-back calls."""

    name: str
    """Stored with every measurement."""
    steady_tolerance: float
    """Relative move of the block medians below which warm-up counts as done."""
    overhead_us: float
    """What a call of a block takes beside its latency, in microseconds: a block's time is for both."""

    def arm(self, captures: int) -> int:
        """Prepare so many captures, each in a place in memory of its own, instead of those before.

        Returns how many there are: fewer where memory is short, at least one. Clocks without captures say `captures`.
        """

    def block(self, calls: int, meanwhile: Callable[[], None], capture: int = 0, /) -> float:
        """Run `calls` calls of a capture back to back and return how long one of them takes, in microseconds.

        That is their mean. `meanwhile` is called once while the device is busy with the block.
        """

    def close(self) -> None:
        """Free what `arm` took."""


class DeviceClock(Clock, Protocol):
    """A clock of a GPU; `device_latency.py` decides which one a module is timed with."""

    placed: list[object]
    """Of each armed capture the inputs that it reads, as `place_inputs` returned them; None for the call's own."""

    def tail(self, calls: int) -> list[float]:
        """Time single calls, in microseconds, for percentiles: what decides nothing may be a little too long."""


class CaptureError(Exception):
    """The module can't be recorded into a CUDA graph; another clock must be used."""
