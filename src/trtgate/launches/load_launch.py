"""One launch under load: a set of processes that have loaded a case, of which more and more call it at once."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence

from ..common.steps import OnStep
from ..common.text_columns import number_of
from ..records.measurement import LoadLaunch, LoadLevel, MemoryReadings
from . import load_messages, messages
from .worker_handle import LaunchError, WorkerHandle

SETTLING_S = 0.1
"""Between the moment when all are at work, and the beginning of the window that counts; at least a call."""
SHORTEST_S, LONGEST_S = 0.5, 5.0
MEMORY_THREADS = 2
"""What leaks where several threads call leaks where two do."""
CALLS = 100
"""So many calls of each thread are in a window, if they fit into LONGEST_S; two in any case."""


def numbers(most: int) -> list[int]:
    """Return how many are at work at once, one level after the other: 1, 2, 4, … and `most`."""
    doubled = [1 << power for power in range(most.bit_length())]
    return [*(number for number in doubled if number < most), most]


def window_s(call_s: float) -> float:
    """Return how long a level lasts where a call takes so long."""
    return max(SHORTEST_S, min(CALLS * call_s, LONGEST_S), 2 * call_s)


def measured(
    workers: Sequence[WorkerHandle], case_id: str, artifact: str | None, step: OnStep, *, gpu: bool
) -> LoadLaunch:
    """Let all load the case; then threads of the first call it, and then so many processes. Raises LaunchError."""
    step(f"loading in {number_of(len(workers), 'process', 'processes')}")
    for worker in workers:
        worker.send(messages.Load(case_id=case_id, artifact=artifact, at_once=len(workers)))
    for worker in workers:
        worker.receive(messages.LoadedReply, "loading")
    captures = []
    if gpu:
        step("timing with a cold L2")
        asked = load_messages.MeasureColdL2(seed=random.getrandbits(32))
        captures = workers[0].ask(asked, load_messages.ColdL2Reply, "timing with a cold L2").captures
    step("under load")
    at_once = numbers(len(workers))
    levels = [
        _level(workers[:processes], load_messages.BeginLoad(case_id=case_id, threads=threads, artifact=artifact))
        for threads, processes in [(number, 1) for number in at_once] + [(1, number) for number in at_once[1:]]
    ]
    return LoadLaunch(most=len(workers), levels=levels, cold_l2=captures)


def memory_read(worker: WorkerHandle, case_id: str, artifact: str | None, most: int, step: OnStep) -> MemoryReadings:
    """Let a fresh process load the case and read its memory while two threads call it, or one where `most` is 1.

    Raises LaunchError.
    """
    step("reading memory")
    worker.ask(messages.Load(case_id=case_id, artifact=artifact), messages.LoadedReply, "loading")
    request = load_messages.ReadMemory(case_id=case_id, threads=min(most, MEMORY_THREADS), artifact=artifact)
    return worker.ask(request, load_messages.MemoryReply, "reading memory").readings


def _level(
    workers: Sequence[WorkerHandle], request: load_messages.BeginLoad, pause: Callable[[float], None] = time.sleep
) -> LoadLevel:
    """Measure one level: the window begins when all threads are at work, and ends before any of them does."""
    at_once = (
        number_of(len(workers), "process", "processes") if len(workers) > 1 else number_of(request.threads, "thread")
    )
    doing = f"under load of {at_once}"
    for worker in workers:
        worker.send(request)
    call_s = max(worker.receive(load_messages.LoadBegun, doing).call_s for worker in workers)
    pause(max(SETTLING_S, call_s))
    began_s = time.perf_counter()
    pause(window_s(call_s))
    ended_s = time.perf_counter()
    for worker in workers:
        worker.send(load_messages.EndLoad(began_s=began_s, ended_s=ended_s))
    replies = [worker.receive(load_messages.LoadEnded, doing) for worker in workers]
    return level_of(replies, request.threads, ended_s - began_s)


def level_of(replies: Sequence[load_messages.LoadEnded], threads: int, seconds: float) -> LoadLevel:
    """Return what processes got together. Raises LaunchError where not one call ended in the window.

    A call that the end of the window found at work is one of those of the percentiles, with what it had taken by then,
    where that is longer than any that ended: what others keep waiting for all of the window never ends in it.
    """
    latencies_us = [us for reply in replies for us in reply.latencies_us]
    if not latencies_us:
        raise LaunchError("not one call ended while it was under load")
    longest_us = max(latencies_us)
    latencies_us += [us for reply in replies for us in reply.in_flight_us if us > longest_us]
    cuts = statistics.quantiles([*latencies_us, *latencies_us[: len(latencies_us) == 1]], n=100, method="inclusive")
    return LoadLevel(
        threads=threads,
        processes=len(replies),
        throughput_per_s=sum(reply.inferences for reply in replies) / seconds,
        p50_us=cuts[49],
        p99_us=cuts[98],
        calls=len(latencies_us),
    )
