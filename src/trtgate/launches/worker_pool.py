"""Worker processes on one device: started, ended, stopped under another thread's hands; whoever drives them has one."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path

from ..common.accelerator import Accelerator
from ..common.steps import OnStep
from ..timing.context_switch import ContextSwitcher
from ..timing.device_lock import device_turn
from .comparison_side import Side
from .worker_handle import LaunchError, WorkerHandle


class WorkerPool:
    """The workers of a session, of pairs, of builders or of a sweep; `folder` gets their logs.

    Whoever holds a worker replaces it: ends it, and starts another. `timeout_s` is the longest that a single step of
    one may take. Threads may share a pool.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, *, timeout_s: float) -> None:
        self.accelerator = accelerator
        self.stopped = False
        self._folder = folder
        self._timeout_s = timeout_s
        self._workers: list[WorkerHandle] = []
        self._guard = threading.Lock()
        self._switcher: ContextSwitcher | None = None

    def start(
        self, side: Side, name: str, *, number: int = 0, tensorrt: bool = False, only_builds: bool = False
    ) -> WorkerHandle:
        """Start a worker, and return while it imports; `name` is its log's. Raises LaunchError after `stop`."""
        with self._guard:
            self._refuse()
            if self._switcher is None and self.accelerator.kind == "gpu":
                self._switcher = ContextSwitcher(self.accelerator.uuid)
            switcher = self._switcher.name if self._switcher else ""
            hello = side.hello(self.accelerator, tensorrt=tensorrt, switcher=switcher)
            self._folder.mkdir(parents=True, exist_ok=True)
            log = self._folder / f"{name}.log"
            made = WorkerHandle(number, side, hello, log, timeout_s=self._timeout_s, only_builds=only_builds)
            self._workers.append(made)
        return made

    def end(self, *workers: WorkerHandle) -> None:
        """End workers and reap them; those that were ended before are gone, and their process ids may be others'."""
        with self._guard:
            ending = [one for one in self._workers if one in workers]
            self._workers = [one for one in self._workers if one not in workers]
        for worker in ending:
            worker.stop()  # all at once: a process that has a GPU takes a while to end
        for worker in ending:
            worker.kill()

    def stop(self) -> None:
        """End all processes under other threads' hands: they see them gone, and no other is started."""
        with self._guard:
            self.stopped = True
            for worker in self._workers:
                worker.stop()

    def close(self) -> None:
        """End all workers and reap them."""
        self.end(*list(self._workers))
        with self._guard:
            switcher, self._switcher = self._switcher, None
        if switcher is not None:
            switcher.close()

    def pids(self) -> list[int]:
        """Return their process ids."""
        return [worker.pid for worker in self._workers]

    def device(self, step: OnStep = lambda _waiting: None, *, shared: bool = False) -> AbstractContextManager[None]:
        """Within: no other trtgate process times on the device, nor, unless it is `shared`, builds there.

        Raises LaunchError when the pool is stopped while it waits.
        """

        def waiting(text: str) -> None:
            self._refuse()
            step(text)

        return device_turn(self.accelerator.lock_name, self._timeout_s, waiting, shared=shared)

    def _refuse(self) -> None:
        if self.stopped:
            raise LaunchError("the run ended")
