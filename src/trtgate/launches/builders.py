"""The processes that build for a session: one, or several at once. What is kept of a case stays with who built it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..common.steps import OnStep
from .worker_group import WorkerGroup
from .worker_handle import WorkerHandle
from .worker_pool import WorkerPool


class Builders:
    """Up to `count` builders of a pool, each started when it is first needed.

    `start` starts one by the name of its log. With `launches` the first builder is the first launch of that group: so
    it is on a CPU, where each launch builds for itself what is not stored.
    """

    def __init__(
        self, pool: WorkerPool, start: Callable[[str], WorkerHandle], launches: WorkerGroup | None, count: int
    ) -> None:
        self._pool = pool
        self._start = start
        self._launches = launches
        self._changed = threading.Condition()
        self._idle = list(range(count))
        self._workers: dict[int, WorkerHandle] = {}
        self._built: dict[int, str] = {}
        """Builder → the case that it was at last."""

    @contextmanager
    def at_work(self, case_id: str, step: OnStep) -> Iterator[WorkerHandle]:
        """Within: a builder that has imported its suite; the one that was at the case last, else one that is idle."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle)
            number = min(self._idle, key=lambda one: (self._built.get(one) != case_id, one))
            self._idle.remove(number)
        try:
            builder = self._builder(number)
            try:
                if builder.cases is None:
                    step("starting a builder")
                    builder.greet()
                yield builder
                self._built[number] = case_id
            finally:
                if builder.ended:
                    self._end(number, builder)
        finally:
            with self._changed:
                self._idle.append(number)
                self._changed.notify()

    def start_first(self) -> None:
        """Start the first, who imports until it is needed."""
        with self._changed:
            self._builder(0)

    def end_spare(self) -> None:
        """End those beside the first that are idle: what is timed now has the device and its memory for itself."""
        with self._changed:
            for number in set(self._idle) & self._workers.keys() - {0}:
                self._end(number, self._workers[number])

    def forget(self) -> None:
        """Have none any more: all workers of the pool have ended."""
        self._workers.clear()
        self._built.clear()

    def _builder(self, number: int) -> WorkerHandle:
        if self._launches is not None and number == 0:
            return self._launches.first()
        if number not in self._workers:
            self._workers[number] = self._start("builder" if number == 0 else f"builder-{number}")
        return self._workers[number]

    def _end(self, number: int, builder: WorkerHandle) -> None:
        self._pool.end(builder)
        if self._launches is not None:
            self._launches.forget(builder)
        self._workers.pop(number, None)
        self._built.pop(number, None)
