"""Workers that hold one case at a time, each a launch of it: they load at once, and measure one after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ..common.steps import OnStep
from ..records.measurement import Launch, Loaded, Turn
from ..timing import plans
from . import messages
from .worker_handle import WorkerHandle
from .worker_pool import WorkerPool


class WorkerGroup:
    """Some workers of a session, by number; `start_worker` makes one of the pool. Raises LaunchError when one fails."""

    def __init__(self, numbers: Sequence[int], pool: WorkerPool, start_worker: Callable[[int], WorkerHandle]) -> None:
        self._numbers = numbers
        self._pool = pool
        self._start_worker = start_worker
        self.workers: dict[int, WorkerHandle] = {}
        self.holds = ""
        """The case that all of them have loaded; empty where there is none."""
        self._loaded: dict[int, Loaded] = {}

    def start(self) -> None:
        """Start the workers that are missing; they import while the caller goes on."""
        for number in self._numbers:
            if number not in self.workers:
                self.workers[number] = self._start_worker(number)

    def first(self) -> WorkerHandle:
        """Return the first worker, started if it is missing."""
        number = self._numbers[0]
        if number not in self.workers:
            self.workers[number] = self._start_worker(number)
        return self.workers[number]

    def forget(self, worker: WorkerHandle) -> None:
        """Have it no more, if it is one of these: it has ended, and `start` starts another."""
        self.workers = {number: one for number, one in self.workers.items() if one is not worker}

    def close(self) -> None:
        """End all workers."""
        self.holds = ""
        self._pool.end(*self.workers.values())
        self.workers.clear()

    def greet(self, step: OnStep) -> None:
        """Wait until all have imported their suite."""
        waiting = [worker for worker in self.workers.values() if worker.cases is None]
        if waiting:
            step(f"starting {len(waiting)} workers")
        for worker in waiting:
            worker.greet()

    def begin_to_load(self, case_id: str, artifact: Path | None, at_once: int) -> None:
        """Let all of them load or build a case, beside others: `at_once` in all; `loaded` waits for it."""
        self.holds = case_id
        path = None if artifact is None else str(artifact)
        request = messages.Load(case_id=case_id, artifact=path, at_once=at_once, in_turn=path is None)
        for worker in self.workers.values():
            worker.send(request)

    def loaded(self) -> None:
        """Wait until all have loaded. Those that built the case compare one by one: threads of several would spin."""
        replies = [worker.receive_or_prepared(messages.LoadedReply, "loading") for worker in self.workers.values()]
        for worker, reply in zip(self.workers.values(), replies, strict=True):
            if isinstance(reply, messages.Prepared):
                reply = worker.ask(messages.GoOn(), messages.LoadedReply, "loading")
            self._loaded[worker.number] = reply.loaded

    def measure(self, rng: random.Random, step: OnStep, *, device: bool = True) -> list[Launch]:
        """Measure in turns, unload, and return the launches; without `device` what the host sees of a GPU alone."""
        plan = plans.ON_GPU if self._pool.accelerator.kind == "gpu" else plans.ON_CPU
        plan = plan if device else plans.HOST_ALONE
        turns: dict[int, list[Turn]] = {number: [] for number in self.workers}
        for number in range(plan.turns):
            step(f"measuring, turn {number + 1} of {plan.turns}")
            order = list(self.workers.values())
            rng.shuffle(order)
            for worker in order:
                request = messages.Measure(plan=plan.of_turn(number), seed=rng.getrandbits(32))
                reply = worker.ask(request, messages.TurnReply, "measuring")
                turns[worker.number].append(reply.turn)
        self._unload()
        return [Launch(loaded=self._loaded[number], turns=turns[number]) for number in self.workers]

    def _unload(self) -> None:
        """Unload everywhere; the last is alone then, and what it frees is what one launch took of the device."""
        self.holds = ""
        *others, last = self.workers.values()
        for worker in others:
            worker.send(messages.Unload())
        for worker in others:
            worker.receive(messages.UnloadedReply, "unloading")
        request = messages.Unload(measure_memory=True)
        freed = last.ask(request, messages.UnloadedReply, "unloading").gpu_memory_bytes
        loaded = self._loaded[last.number]
        self._loaded[last.number] = msgspec.structs.replace(loaded, gpu_memory_bytes=freed)
