"""Measures cases on several cards at once, one process at a time on each: a thread a card, queues of cases before them.

What a stored latency is worth depends on the card that it was recorded on (another of the same key differs by up to
2.5 %), so a case that has sessions of some cards here, and not of all, is measured on one of them. The others go to
whichever card is free, those that took longest first (longest processing time first, Graham 1969: within a third of the
optimum). A card that may load several cases together takes as many at once, but no more of those that others could take
than its share of them (guided self-scheduling, Polychronopoulos and Kuck 1987).

Cards may be of other hosts. Then each builds its cases itself, several at once where its host has room, and nobody
builds on a host while a card of it is timed. What a card builds it also measures, so of the cards that could build now
the one that was given the least to measure takes the next case (list scheduling, Graham 1969). The cases of a card that
is lost go to others, once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import TypeVar

from ..common.errors import TrtgateError
from ..common.explanations import Explanation, explained
from ..common.steps import OnStep
from ..launches.prebuild import Prebuilt
from ..launches.session import NextCase
from .card_jobs import CardLostError, CardState, Job
from .case_result import CaseResult
from .device_workers import DeviceWorkers

POLL_S = 0.2
Given = TypeVar("Given")


Measure = Callable[[DeviceWorkers, Job, OnStep, Sequence[NextCase]], CaseResult]
"""How a job is done by the workers of a card, and which cases may be loaded with it: they are measured there next."""
BuildJob = Callable[[DeviceWorkers, Job, OnStep], Prebuilt]
"""How it is built there."""


class GpuQueue:
    """Begins to measure jobs, by any names, at once; `result` waits for one of them.

    Each of `workers` has a card of its own; `cards` says of which host each is, and what it may do at once; by default
    all are of one host, and do one thing. Jobs that are not built yet are built by `build`. `lost` is told once of each
    card that is lost why. `close` ends what is under way, however far it is.
    """

    def __init__(
        self, workers: Sequence[DeviceWorkers], jobs: Mapping[str, Job], measure: Measure,
        build: BuildJob | None = None, cards: Sequence[CardState] = (),
        lost: Callable[[str], None] = lambda _reason: None,
    ) -> None:  # fmt: skip
        self._workers = list(workers)
        self._tell_lost = lost
        self._measure = measure
        self._build = build
        self._jobs = dict(jobs)
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._changed = threading.Condition()
        names = [one.accelerator.uuid or f"device {number}" for number, one in enumerate(self._workers)]
        self.cards = dict(zip(names, cards or [CardState() for _ in names], strict=True))
        """What each card is at: by its UUID, or, of CPUs, by its number."""
        self._building, self._timing = Counter[str](), Counter[str]()
        """Host → how many cases are on its cards now."""
        self._at_home = {uuid: deque[Job]() for uuid in self.cards}
        self._anywhere: deque[Job] = deque()
        self._ready = {uuid: deque[Job]() for uuid in self.cards}
        """What was built on a card, and is to be measured there."""
        self._held = {uuid: deque[Job]() for uuid in self.cards}
        """What a card was given to load with the case that it measures, and measures next."""
        self._left = len(self._jobs)
        for job in sorted(self._jobs.values(), key=lambda job: -float("inf") if job.cost_s is None else -job.cost_s):
            self._at_home.get(job.home, self._anywhere).append(job)
            if job.home in self.cards:
                self.cards[job.home].given += job.cost_s or 1.0
        self._threads = [
            threading.Thread(target=self._work, args=(name, one, number == 0), daemon=True)
            for name, one in zip(names, self._workers, strict=True)
            for number in range(self.cards[name].builders)
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

    # The threads of a card: one that builds and measures, and others that build

    def _work(self, name: str, workers: DeviceWorkers, measures: bool) -> None:
        while (taken := self._next(name, measures=measures)) is not None:
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
                    state.steps.pop(job.case.id, None)
                    self._changed.notify_all()
            self._put_away(name, job)

    def _put_away(self, name: str, job: Job) -> None:
        """Count a job that is done; keep one that is built for its card, or, if that was lost meanwhile, for others."""
        state = self.cards[name]
        with self._changed:
            if job.result.done() or not job.timed:
                state.done += 1
                self._left -= 1
            elif state.lost:
                self._lose(name, job, state.lost)
            else:
                self._ready[name].append(job)
            self._changed.notify_all()

    def _do(self, name: str, workers: DeviceWorkers, job: Job, *, builds: bool) -> None:
        step = self._step_of(name, job.case.id)
        if not builds:
            with self._changed:
                after = [NextCase(one.case.id, one.artifact) for one in self._held[name]]
            job.result.set_result(self._measure(workers, job, step, after))
            return
        assert self._build is not None
        made = self._build(workers, job, step)
        job.home, job.artifact, job.build = name, made.artifact, made.build
        if not job.built.done():  # it may have been built before, on a card that is gone
            job.built.set_result(made)
        if job.timed:
            made.checked()

    def _next(self, name: str, *, measures: bool) -> tuple[Job, bool] | None:
        """Wait for something to do: return a job, and whether it is to be built first; None when all is done."""
        with self._changed:
            while not (self._ended.is_set() or not self._left or self.cards[name].lost):
                taken = self._taken(name, measures=measures)
                if taken is not None:
                    self._changed.notify_all()  # another card may be the next now
                    return taken
                if not self._may_get_more():
                    return None
                self._changed.wait()
        return None

    def _taken(self, name: str, *, measures: bool) -> tuple[Job, bool] | None:
        """Take what a card may do now; None where it has to wait."""
        state, own = self.cards[name], self._at_home[name]
        host, waiting = state.host, own or self._anywhere
        if waiting and self._builds(waiting[0]):
            if self._timing[host] or not (own or self._is_next(state)):
                return None
            self._building[host] += 1
            state.given += 0.0 if own else waiting[0].cost_s or 1.0
            job = waiting.popleft()
            state.steps[job.case.id] = ("", time.monotonic())
            return job, True
        mine = self._held[name] or waiting or self._ready[name]
        if not measures or not mine or self._building[host]:
            return None
        self._timing[host] += 1
        job = mine.popleft()
        if mine is not self._held[name]:
            self._hold(name, mine)
        return job, False

    def _hold(self, name: str, jobs: deque[Job]) -> None:
        """Give a card that took one of these jobs those that it loads with it."""
        left = sum(not state.lost for state in self.cards.values())
        share = -(-(len(jobs) + 1) // left) - 1 if jobs is self._anywhere else len(jobs)
        for _ in range(min(share, self.cards[name].together - 1)):
            if self._builds(jobs[0]):
                return
            self._held[name].append(jobs.popleft())

    def _is_next(self, state: CardState) -> bool:
        """Whether no other card that could build now was given less."""
        return all(
            other.given >= state.given
            for other in self.cards.values()
            if not other.lost and not self._timing[other.host] and len(other.steps) < other.builders
        )

    def _builds(self, job: Job) -> bool:
        return self._build is not None and job.build is None

    def _may_get_more(self) -> bool:
        """Whether another card may be lost, and leave its cases to this one: those of this host can't be."""
        return self._build is not None

    def _lose(self, name: str, under_way: Job, reason: str) -> None:
        """Give the cases of a card that is gone to others: each once."""
        with self._changed:
            if not self.cards[name].lost:
                self.cards[name].lost = reason
                self._tell_lost(reason)
            gone = [*self._held[name], *self._ready[name], *self._at_home[name]]
            self._held[name].clear()
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
            if text != state.steps.get(case_id, ("", 0.0))[0]:  # a node's step is told again and again
                state.steps[case_id] = (text, time.monotonic())
                self._said.put(f"{case_id}: {text}")

        return step
