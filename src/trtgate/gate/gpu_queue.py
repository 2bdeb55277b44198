"""Measures cases on several cards at once, one process at a time on each: a thread a card, queues of cases before them.

What a stored latency is worth depends on the card that it was recorded on (another of the same key differs by up to
2.5 %), so a case that has sessions of some cards here, and not of all, is measured on one of them. The others go to
whichever card is free, those that took longest first (longest processing time first, Graham 1969: within a third of the
optimum).
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from pathlib import Path

from ..common.errors import TrtgateError
from ..common.steps import OnStep
from ..records.measurement import Build
from ..suite.cases import Case
from .case_result import CaseResult
from .measurers import Workers

POLL_S = 0.2


@dataclass
class Job:
    """A case that is to be measured: built already, `artifact` holds it if its frontend stores one."""

    case: Case
    artifact: Path | None
    build: Build
    cost_s: float | None = None
    """What measuring it took before; None where that is not known."""
    home: str = ""
    """The card that it is to be measured on; empty where any will do."""
    result: Future[CaseResult] = field(default_factory=Future)


Measure = Callable[[Workers, Job, OnStep], CaseResult]
"""How a job is done by the workers of a card."""


class GpuQueue:
    """Begins to measure jobs, by any names, at once; `result` waits for one of them.

    Each of `workers` has a card of its own. `close` ends what is under way, however far it is.
    """

    def __init__(self, workers: Sequence[Workers], jobs: Mapping[str, Job], measure: Measure) -> None:
        self._workers = list(workers)
        self._measure = measure
        self._jobs = dict(jobs)
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._guard = threading.Lock()
        ranked = sorted(self._jobs.values(), key=lambda job: -float("inf") if job.cost_s is None else -job.cost_s)
        self._at_home = {one.accelerator.uuid: deque[Job]() for one in self._workers}
        self._anywhere: deque[Job] = deque()
        for job in ranked:
            self._at_home.get(job.home, self._anywhere).append(job)
        self._threads = [threading.Thread(target=self._work, args=(one,), daemon=True) for one in self._workers]
        for thread in self._threads:
            thread.start()

    def __contains__(self, name: str) -> bool:
        return name in self._jobs

    def result(self, name: str, step: OnStep) -> CaseResult:
        """Wait for a job, and tell meanwhile what all cards are at. Raises what measuring it raised."""
        job = self._jobs[name]
        while True:
            while not self._said.empty():
                step(self._said.get())
            try:
                return job.result.result(timeout=POLL_S)
            except NotYet:
                if job.result.done():  # just now, or measuring it raised a time-out of its own
                    return job.result.result()

    def idle(self) -> list[str]:
        """Return the cards that had nothing to do from the start: all cases belong to others."""
        if any(job.home not in self._at_home for job in self._jobs.values()):
            return []
        homes = {job.home for job in self._jobs.values()}
        return [uuid for uuid in self._at_home if uuid not in homes]

    def close(self) -> None:
        """End all workers and wait for the threads; who waits for a result that is not there gets an error."""
        self._ended.set()
        for workers in self._workers:
            workers.stop()
        for thread in self._threads:
            thread.join()
        for workers in self._workers:
            workers.close()
        for job in self._jobs.values():
            job.result.cancel()

    def _next(self, uuid: str) -> Job | None:
        with self._guard:
            waiting = self._at_home[uuid] or self._anywhere
            return waiting.popleft() if waiting else None

    def _work(self, workers: Workers) -> None:
        while not self._ended.is_set():
            job = self._next(workers.accelerator.uuid)
            if job is None:
                return
            try:
                job.result.set_result(self._measure(workers, job, self._step_of(job.case.id)))
            except BaseException as error:
                job.result.set_exception(error)

    def _step_of(self, case_id: str) -> OnStep:
        def step(text: str) -> None:
            if self._ended.is_set():
                raise TrtgateError(f"{case_id}: the run ended")
            self._said.put(f"{case_id}: {text}")

        return step
