"""What a session and its workers say to each other about load; `messages.py` has the rest."""

from __future__ import annotations

import msgspec

from ..records.measurement import Capture, MemoryReadings


class BeginLoad(msgspec.Struct, tag=True, kw_only=True):
    """Let so many threads call the loaded case all the time, until EndLoad.

    Threads that can't share it load `artifact`, or build it where that is None. It is answered when all are at work.
    """

    case_id: str
    threads: int
    artifact: str | None


class EndLoad(msgspec.Struct, tag=True, kw_only=True):
    """End that, and say what they got between two times of `time.perf_counter`."""

    began_s: float
    ended_s: float


class MeasureColdL2(msgspec.Struct, tag=True, kw_only=True):
    """Measure the loaded case's device latency where the GPU's L2 cache is cold; `seed` randomises placement."""

    seed: int


class ReadMemory(msgspec.Struct, tag=True, kw_only=True):
    """Read memory while so many threads call the loaded case again and again; `artifact` is as in BeginLoad."""

    case_id: str
    threads: int
    artifact: str | None


class LoadBegun(msgspec.Struct, tag=True):
    """All threads are at work; the longest of their last calls took so many seconds."""

    call_s: float


class LoadEnded(msgspec.Struct, tag=True, kw_only=True):
    """What the threads got, as `Driven` has it."""

    latencies_us: list[float]
    inferences: float
    in_flight_us: list[float] = []


class ColdL2Reply(msgspec.Struct, tag=True):
    """What was measured; nothing where no CUDA graph of the case can be made."""

    captures: list[Capture]


class MemoryReply(msgspec.Struct, tag=True):
    """What was read."""

    readings: MemoryReadings
