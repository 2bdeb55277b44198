"""What the measuring loop asks of a device's state: that it is set, read beside every block, and judged."""

from __future__ import annotations

from typing import NamedTuple, Protocol

ONE, MANY = "one", "many"
STREAMS = (ONE, MANY)
"""How many streams of a process are at work while device latency is measured."""


class Reading(NamedTuple):
    """What the probe and a spin kernel showed at one moment; 0 where nothing was read."""

    probe_us: float = 0.0
    sm_mhz: float = 0.0


class DeviceState(Protocol):
    """What the measuring loop asks of a device's state."""

    def set(self, *, anew: bool) -> str:
        """Bring the wanted state about; returns why that can't be, empty where it is there.

        `anew` says that the process did other things since the last time: loaded, captured.
        """

    def read(self) -> Reading:
        """Look at the device for a moment."""

    def wrong(self, reading: Reading) -> str:
        """Return why a reading is not of the wanted state; empty where it is."""


class NoState:
    """Of a device whose state is not set."""

    def set(self, *, anew: bool) -> str:  # noqa: ARG002 - as the protocol has it
        """Nothing to do."""
        return ""

    def read(self) -> Reading:
        """Nothing to read."""
        return Reading()

    def wrong(self, reading: Reading) -> str:  # noqa: ARG002 - as the protocol has it
        """Never."""
        return ""


NO_STATE = NoState()
