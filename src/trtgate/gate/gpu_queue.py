"""Measures cases on several cards at once, one process at a time on each: a thread a card, queues of cases before them.

What a stored latency is worth depends on the card that it was recorded on (another of the same key differs by up to
2.5 %), so a case that has sessions of some cards here, and not of all, is measured on one of them. The others go to
whichever card is free, those that took longest first (longest processing time first, Graham 1969: within a third of the
optimum).

Cards may be of other hosts. Then each builds its cases itself, and nobody builds on a host while a card of it is timed.
The cases of a card that is lost go to others, once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..common.errors import TrtgateError
from ..common.explanations import Explanation, explained
from ..common.steps import OnStep
from ..launches.prebuild import Prebuilt
from ..records.measurement import Build
from ..suite.cases import Case
from .case_result import CaseResult
from .device_workers import DeviceWorkers

POLL_S = 0.2
Given = TypeVar("Given")


class CardLostError(TrtgateError):
    """A card, or its host, is gone: what it was at may be done elsewhere."""


@dataclass
class Job:
    """A case that is to be measured; `artifact` holds what was built of it if its frontend stores one."""

    case: Case
    artifact: Path | None = None
    build: Build | None = None
    """What building gave; None where the card that measures it is to build it first."""
    cost_s: float | None = None
    """What measuring it took before; None where that is not known."""
    home: str = ""
    """The card that it is to be measured on; empty where any will do."""
    timed: bool = True
    """Whether it is measured at all, once it is built."""
    lost: str = ""
    """Why the card that had it first is gone."""
    built: Future[Prebuilt] = field(default_factory=Future)
    result: Future[CaseResult] = field(default_factory=Future)

    def fail(self, error: BaseException) -> None:
        """Let whoever waits for it have the error."""
        for future in (self.built, self.result):
            if not future.done():
                future.set_exception(error)


Measure = Callable[[DeviceWorkers, Job, OnStep], CaseResult]
"""How a job is done by the workers of a card."""
BuildJob = Callable[[DeviceWorkers, Job, OnStep], Prebuilt]
"""How it is built there."""


@dataclass
class CardState:
    """What a card is at: the case, its step, since when (`time.monotonic`), and how many cases it has done."""

    host: str
    case_id: str = ""
    text: str = ""
    since: float = 0.0
    done: int = 0
    lost: str = ""


class GpuQueue:
    """Begins to measure jobs, by any names, at once; `result` waits for one of them.

    Each of `workers` has a card of its own; `hosts` says of which host it is, where they are of several. Jobs that are
    not built yet are built by `build`. `close` ends what is under way, however far it is.
    """

    def __init__(
        self, workers: Sequence[DeviceWorkers], jobs: Mapping[str, Job], measure: Measure,
        build: BuildJob | None = None, hosts: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._workers = list(workers)
        self._measure = measure
        self._build = build
        self._jobs = dict(jobs)
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._changed = threading.Condition()
        of_hosts = hosts or [""] * len(self._workers)
        names = [one.accelerator.uuid or f"device {number}" for number, one in enumerate(self._workers)]
        self.cards = {name: CardState(host) for name, host in zip(names, of_hosts, strict=True)}
        """What each card is at: by its UUID, or, of CPUs, by its number."""
        self._building, self._timing = Counter[str](), Counter[str]()
        """Host → how many of its cards do so now."""
        self._at_home = {uuid: deque[Job]() for uuid in self.cards}
        self._anywhere: deque[Job] = deque()
        self._ready = {uuid: deque[Job]() for uuid in self.cards}
        """What was built on a card, and is to be measured there."""
        self._left = len(self._jobs)
        for job in sorted(self._jobs.values(), key=lambda job: -float("inf") if job.cost_s is None else -job.cost_s):
            self._at_home.get(job.home, self._anywhere).append(job)
        self._threads = [
            threading.Thread(target=self._work, args=given, daemon=True)
            for given in zip(names, self._workers, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def __contains__(self, name: str) -> bool:
        return name in self._jobs

    def result(self, name: str, step: OnStep) -> CaseResult:
        """Wait for a job, and tell meanwhile what all cards are at. Raises what measuring it raised."""
        return self._awaited(self._jobs[name].result, step)

    def built(self, case_id: str, step: OnStep) -> Prebuilt:
        """Wait until a case is built, and tell meanwhile as `result`. Raises TrtgateError where nobody has it."""
        job = next((job for job in self._jobs.values() if job.case.id == case_id), None)
        if job is None:
            raise TrtgateError(f"{case_id}: no test of it was collected that the cluster's cards take")
        return self._awaited(job.built, step)

    def card_of(self, case_id: str) -> DeviceWorkers | None:
        """Return the workers that built a case; None where nobody has yet."""
        homes = {job.home for job in self._jobs.values() if job.case.id == case_id}
        return next((one for name, one in zip(self.cards, self._workers, strict=True) if name in homes), None)

    def _awaited(self, future: Future[Given], step: OnStep) -> Given:
        while True:
            while not self._said.empty():
                step(self._said.get())
            try:
                return future.result(timeout=POLL_S)
            except NotYet:
                if future.done():  # just now, or measuring it raised a time-out of its own
                    return future.result()

    def idle(self) -> list[str]:
        """Return the cards that had nothing to do from the start: all cases belong to others."""
        if any(job.home not in self._at_home for job in self._jobs.values()):
            return []
        homes = {job.home for job in self._jobs.values()}
        return [uuid for uuid in self._at_home if uuid not in homes]

    @property
    def progress(self) -> tuple[int, int]:
        """How many jobs are done, and of how many."""
        return len(self._jobs) - self._left, len(self._jobs)

    def close(self) -> None:
        """End all workers and wait for the threads; who waits for a result that is not there gets an error."""
        with self._changed:
            self._ended.set()
            self._changed.notify_all()
        for workers in self._workers:
            workers.stop()
        for thread in self._threads:
            thread.join()
        for workers in self._workers:
            workers.close()
        for job in self._jobs.values():
            job.built.cancel()
            job.result.cancel()

    # A card's thread

    def _work(self, name: str, workers: DeviceWorkers) -> None:
        while (taken := self._next(name)) is not None:
            job, builds = taken
            state = self.cards[name]
            try:
                self._do(name, workers, job, builds=builds)
            except CardLostError as error:
                self._lose(name, job, str(error))
                return
            except BaseException as error:
                job.fail(error)
            finally:
                with self._changed:
                    (self._building if builds else self._timing)[state.host] -= 1
                    state.case_id = state.text = ""
                    self._changed.notify_all()
            if job.result.done() or not job.timed:
                with self._changed:
                    state.done += 1
                    self._left -= 1
                    self._changed.notify_all()
            else:
                with self._changed:
                    self._ready[name].append(job)

    def _do(self, name: str, workers: DeviceWorkers, job: Job, *, builds: bool) -> None:
        step = self._step_of(name, job.case.id)
        if not builds:
            job.result.set_result(self._measure(workers, job, step))
            return
        assert self._build is not None
        made = self._build(workers, job, step)
        job.home, job.artifact, job.build = name, made.artifact, made.build
        if not job.built.done():  # it may have been built before, on a card that is gone
            job.built.set_result(made)
        if job.timed:
            made.checked()

    def _next(self, name: str) -> tuple[Job, bool] | None:
        """Wait for something to do: return a job, and whether it is to be built first; None when all is done."""
        host = self.cards[name].host
        with self._changed:
            while not (self._ended.is_set() or not self._left):
                waiting = self._at_home[name] or self._anywhere
                if waiting and self._builds(waiting[0]):
                    if not self._timing[host]:
                        self._building[host] += 1
                        return waiting.popleft(), True
                elif mine := waiting or self._ready[name]:
                    if not self._building[host]:
                        self._timing[host] += 1
                        return mine.popleft(), False
                elif not self._may_get_more():
                    return None
                self._changed.wait()
        return None

    def _builds(self, job: Job) -> bool:
        return self._build is not None and job.build is None

    def _may_get_more(self) -> bool:
        """Whether another card may be lost, and leave its cases to this one: those of this host can't be."""
        return self._build is not None

    def _lose(self, name: str, under_way: Job, reason: str) -> None:
        """Give the cases of a card that is gone to others: each once."""
        with self._changed:
            self.cards[name].lost = reason
            gone = [*self._ready[name], *self._at_home[name]]
            self._ready[name].clear()
            self._at_home[name].clear()
            others = [state for state in self.cards.values() if not state.lost]
            for job in (under_way, *gone):
                self._move(job, reason, began=job is under_way or job.build is not None, others=bool(others))
            if not others:
                while self._anywhere:
                    self._move(self._anywhere.popleft(), reason, began=False, others=False)
            self._changed.notify_all()

    def _move(self, job: Job, reason: str, *, began: bool, others: bool) -> None:
        if not others or (began and job.lost):
            before = f"; before that {job.lost}" if job.lost else ""
            rest = "" if others else "; no card is left"
            said = f"{job.case.id}: {reason}{before}{rest}"
            job.fail(TrtgateError(explained(said, Explanation.CLUSTER_PROBLEM)))
            self._left -= 1
            return
        job.home, job.artifact, job.build = "", None, None
        job.lost = reason if began else job.lost
        self._anywhere.append(job)

    def _step_of(self, name: str, case_id: str) -> OnStep:
        state = self.cards[name]

        def step(text: str) -> None:
            if self._ended.is_set():
                raise TrtgateError(f"{case_id}: the run ended")
            if (case_id, text) != (state.case_id, state.text):  # a node's step is told again and again
                state.case_id, state.text, state.since = case_id, text, time.monotonic()
                self._said.put(f"{case_id}: {text}")

        return step
