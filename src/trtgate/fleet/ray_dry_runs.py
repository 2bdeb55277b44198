"""Dry runs on any node of a Ray cluster: tasks of Ray's, whose processes have a worker each."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec

from ..common import accelerator, user_folders
from ..common.run_folder import RunFolder
from ..common.time_limit import TimeLimit
from ..launches import messages
from ..launches.comparison_side import Side
from ..launches.worker_handle import WorkerHandle
from ..launches.worker_pool import WorkerPool
from ..records.coverage_record import Coverage
from .ray_card import as_the_node_has_it, enter
from .ray_messages import Open, answered

IDLE_S = 10.0
"""A worker for dry runs that has none for so long gives its memory back: cases are timed meanwhile."""


class DryRuns:
    """The one worker that a process of Ray's has for dry runs; it ends with that process."""

    def __init__(self) -> None:
        self._worker: WorkerHandle | None = None
        self._pool: WorkerPool | None = None
        self._guard = threading.Lock()
        self._idle: threading.Timer | None = None

    def ask(self, asked: Open, case_id: str) -> Coverage:
        """Return the coverage of a case. Raises LaunchError. The worker ends where nothing more comes for a while."""
        with self._guard:
            if self._idle is not None:
                self._idle.cancel()
            try:
                return self._asked(asked, case_id)
            finally:
                self._idle = threading.Timer(IDLE_S, self._rest)
                self._idle.daemon = True
                self._idle.start()

    def _rest(self) -> None:
        with self._guard:
            if self._worker is not None and self._pool is not None:
                self._pool.end(self._worker)
                self._worker = None

    def _asked(self, asked: Open, case_id: str) -> Coverage:
        if self._pool is None:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
            as_the_node_has_it()
            found = asked.here(Path.cwd())
            enter(found)
            limit = TimeLimit(asked.timeout_s, "--trtgate-timeout")
            self._folder = RunFolder(user_folders.state() / "ray")
            self._pool = WorkerPool(accelerator.detect(), self._folder.own_logs, timeout_s=limit)
            self._side = Side(name="builder", source=found.source)
        if self._worker is None or self._worker.ended:
            if self._worker is not None:
                self._pool.end(self._worker)
            self._worker = self._pool.start(self._side, "dry-run", tensorrt=True, only_builds=True)
            self._worker.greet()
        request = messages.DryRun(case_id=case_id)
        return self._worker.ask(request, messages.DryRunReply, f"{case_id}: dry run").coverage


_dry_runs = DryRuns()


def dry_run(suite: bytes, case_id: str) -> bytes:
    """Ask for the coverage of a case; takes the `Open` suite as JSON and returns a `Reply` with a `Coverage`."""
    return answered(lambda: _dry_runs.ask(msgspec.json.decode(suite, type=Open), case_id))
