"""How many pairs of workers the memory takes: a GPU's, and the host's."""

from __future__ import annotations

from collections.abc import Iterable

from ..common import machine
from ..common.accelerator import Accelerator
from ..verdict import LOOKS

CONTEXT_BYTES = 1 << 30
"""What a process takes on a GPU beside a case: its context, and what the libraries load."""
UNKNOWN_FOOTPRINT_BYTES = 2 << 30
IDLE_SHARE = 0.2
"""Of a GPU's memory: what pairs may hold of it that wait for the next suspicion."""
LOADING_SHARE = 0.6
"""Of a GPU's memory: what pairs may hold of it that load at the same time, and those that hold a case for later."""
IMPORTED_BYTES = 1 << 29
"""What a process takes of a host's memory that has imported PyTorch: as much again must be left to others."""


class PairMemory:
    """The memory of a device and its host, and what cases were seen to take of it."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._footprint_bytes: dict[str, int] = {}

    def note(self, case_id: str, taken_bytes: int) -> None:
        """Keep what a case took of the GPU; 0 says nothing."""
        if taken_bytes:
            self._footprint_bytes[case_id] = taken_bytes

    def has_room(self, pairs: int) -> bool:
        """Whether so many pairs may wait: they hold a context each on a GPU, and elsewhere what they have imported."""
        if self._accelerator.kind == "gpu":
            return 2 * pairs * CONTEXT_BYTES <= IDLE_SHARE * self._accelerator.memory_bytes
        return 2 * pairs * IMPORTED_BYTES <= machine.memory_bytes()

    def at_once(self, case_id: str, held: Iterable[str]) -> int:
        """Return in how many pairs a case may be loaded at the same time, beside pairs that hold other cases."""
        if self._accelerator.kind != "gpu":
            return LOOKS[0]
        taken = [self._footprint_bytes.get(name, UNKNOWN_FOOTPRINT_BYTES) for name in (case_id, *held)]
        a_pair, *others = (2 * (footprint + CONTEXT_BYTES) for footprint in taken)
        return max(1, int((LOADING_SHARE * self._accelerator.memory_bytes - sum(others)) / a_pair))
