"""Builds and measures many points around a default, interleaved: every launch measures all of them, in random order.

Launches load at the same time and measure one at a time.

What is done is written down at once, so a sweep that was interrupted goes on where it was.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from . import availability, protocol
from .accelerator import Accelerator
from .agreement_record import Agreement
from .artifact_cache import CacheRequest
from .cases import Case
from .prebuild import Prebuild
from .records import Build, Launch
from .run_folder import RunFolder
from .session import Step
from .side import Side
from .suite_source import SuiteSource
from .sweep_journal import Built, Journal, Timed, header_of
from .timing import loop
from .timing.lock import device_turn
from .worker_handle import LaunchError, WorkerHandle

FOLDER = "sweeps"


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a point; `problem` says why it is not whole, `unavailable` why it was not tried."""

    case: Case
    build: Build | None = None
    agreement: Agreement | None = None
    launches: list[Launch] = []
    problem: str = ""
    unavailable: str = ""


class Sweep:
    """Builds and measures cases on one device.

    Parameters
    ----------
    launches
        Processes that measure each point.
    builders
        Processes that build at once; more than one, and what building takes says nothing.
    inputs
        Over how many inputs the accuracy of each point is asked.

    """

    def __init__(
        self, source: SuiteSource, accelerator: Accelerator, folder: Path, *, launches: int, builders: int,
        inputs: int, cache: CacheRequest | None, timeout_s: float, fresh: bool = False,
    ) -> None:  # fmt: skip
        self._source = source
        self._accelerator = accelerator
        self._folder = RunFolder(folder)
        self._launches = launches
        self._builders = builders
        self._inputs = inputs
        self._cache = cache
        self._timeout_s = timeout_s
        self._rng = random.Random()
        self._tensorrt = False
        self._outcomes: dict[str, Outcome] = {}
        self.journal = Journal(folder / FOLDER, header_of(source, accelerator), fresh=fresh)

    def close(self) -> None:
        """Remove what goes with the run; what was measured stays."""
        self.journal.close()
        self._folder.close()

    def run(self, cases: Sequence[Case], step: Step) -> None:
        """Do what is missing. Ctrl-C leaves what is done in the journal, and in the outcomes."""
        outcomes = self._outcomes = {case.id: Outcome(case=case) for case in cases}
        for case in cases:
            outcomes[case.id].unavailable = availability.unavailable(case.settings, self._accelerator)
        wanted = [case.id for case in cases if not outcomes[case.id].unavailable and self._missing(case.id)]
        artifacts = self._build(wanted, outcomes, step)
        self._tensorrt = any(case.settings.uses_tensorrt for case in cases if case.id in artifacts)
        self._measure(artifacts, outcomes, step)

    def outcomes(self) -> list[Outcome]:
        """Return what came of every case, in order: also where Ctrl-C ended it before all launches were through."""
        for case_id, outcome in self._outcomes.items():
            built = self.journal.built.get(case_id)
            if built is not None:
                outcome.build, outcome.agreement = built.build, built.agreement
            launches = self.journal.launches(case_id)[: self._launches]
            if len(launches) == self._launches:
                outcome.launches = launches
            elif not outcome.unavailable and not outcome.problem:
                outcome.problem = f"{case_id}: measured by {len(launches)} of {self._launches} launches"
        return list(self._outcomes.values())

    def _missing(self, case_id: str) -> bool:
        timed = sum((case_id, number) in self.journal.timed for number in range(self._launches))
        return not self._is_built(case_id) or timed < self._launches

    def _is_built(self, case_id: str) -> bool:
        """Whether it was built before, with as much asked of it and as few beside it as now."""
        built = self.journal.built.get(case_id)
        if built is None or (self._builders == 1 and built.build.builders > 1 and not built.build.cached):
            return False
        return self._inputs <= (built.agreement.inputs if built.agreement else 0)

    def _build(self, wanted: Sequence[str], outcomes: dict[str, Outcome], step: Step) -> dict[str, Path | None]:
        """Return the artifacts of what could be built: None where a frontend stores nothing."""
        if not wanted:
            return {}
        work = Prebuild(
            source=self._source, accelerators=[self._accelerator], builders=self._builders, cache=self._cache,
            folder_for=lambda _case_id: self._folder.private("point"), logs=self._folder.logs,
            timeout_s=self._timeout_s, agreement_inputs=self._inputs,
        )  # fmt: skip
        artifacts: dict[str, Path | None] = {}
        step(f"building {len(wanted)} points")
        for done, built in enumerate(work.run(wanted), 1):
            step(f"built {done} of {len(wanted)}: {built.case_id}")
            outcomes[built.case_id].problem = built.problem
            if built.problem or built.build is None:
                continue
            artifacts[built.case_id] = built.artifact
            if not self._is_built(built.case_id):
                self.journal.add(Built(case_id=built.case_id, build=built.build, agreement=built.agreement))
        return artifacts

    def _measure(self, artifacts: dict[str, Path | None], outcomes: dict[str, Outcome], step: Step) -> None:
        """Let every launch measure what it lacks, and end all of them however that ends."""
        launches, ended = [], threading.Event()
        for number in range(self._launches):
            pending = [name for name in artifacts if (name, number) not in self.journal.timed]
            self._rng.shuffle(pending)
            if pending:
                launches.append(_Launching(self, number, pending, artifacts, outcomes, step, ended))
        try:
            for launch in launches:
                launch.start()
            for launch in launches:
                launch.join()
        finally:
            for launch in launches:
                launch.end()
        for launch in launches:
            if launch.error is not None:
                raise launch.error

    def worker(self, number: int) -> WorkerHandle:
        """Start a process that measures."""
        self._folder.logs.mkdir(parents=True, exist_ok=True)
        side = Side(name="candidate", source=self._source, tensorrt=self._tensorrt)
        return WorkerHandle(number, side, side.hello(self._accelerator), self._folder.logs / f"sweep-{number}.log")

    def measured(self, worker: WorkerHandle, case_id: str, artifact: Path | None, step: Step) -> Launch:
        """Return what a process measured of a point; loading is shared with others, measuring is not.

        Raises LaunchError.
        """
        lock, timeout_s = self._accelerator.lock_name, self._timeout_s
        worker.greet(timeout_s)
        request = protocol.Load(case_id=case_id, artifact=None if artifact is None else str(artifact))
        with device_turn(lock, timeout_s, step, shared=True):
            loaded = worker.ask(request, protocol.LoadedReply, timeout_s, "loading").loaded
        launch = Launch(loaded=loaded)
        plan = loop.ON_GPU if self._accelerator.kind == "gpu" else loop.ON_CPU
        with device_turn(lock, timeout_s, step):
            for _ in range(plan.turns):
                measure = protocol.Measure(plan=plan, seed=self._rng.getrandbits(32))
                launch.turns.append(worker.ask(measure, protocol.TurnReply, timeout_s, "measuring").turn)
            unload = protocol.Unload(measure_memory=True)
            freed = worker.ask(unload, protocol.UnloadedReply, timeout_s, "unloading").gpu_memory_bytes
        launch.loaded.gpu_memory_bytes = freed
        if not any(capture.blocks_us for turn in launch.turns for capture in turn.captures):
            raise LaunchError("not one block counts: the device was disturbed all the time")
        return launch


class _Launching(threading.Thread):
    """Drives one launch: a process that measures points in their order; one that fails is replaced."""

    def __init__(
        self, sweep: Sweep, number: int, pending: list[str], artifacts: dict[str, Path | None],
        outcomes: dict[str, Outcome], step: Step, ended: threading.Event,
    ) -> None:  # fmt: skip
        super().__init__(daemon=True)
        self.error: BaseException | None = None
        """What ended it before it was through."""
        self._sweep = sweep
        self._number = number
        self._pending = pending
        self._artifacts = artifacts
        self._outcomes = outcomes
        self._step = step
        self._worker: WorkerHandle | None = None
        self._ended = ended

    def run(self) -> None:
        """Measure one point after the other, each written down at once."""
        try:
            for done, case_id in enumerate(self._pending, 1):
                self._say(f"launch {self._number + 1}, {done} of {len(self._pending)}: {case_id}")
                try:
                    self._worker = self._worker or self._sweep.worker(self._number)
                    self._go_on("")
                    launch = self._sweep.measured(self._worker, case_id, self._artifacts[case_id], self._go_on)
                except LaunchError as error:
                    self._outcomes[case_id].problem = f"{case_id}: {error}"
                    self._kill()
                else:
                    self._sweep.journal.add(Timed(case_id=case_id, number=self._number, launch=launch))
        except _EndedError:
            pass
        except BaseException as error:
            self.error = error
            self._ended.set()  # the others need not go on
        finally:
            self._kill()

    def end(self) -> None:
        """End the process, and wait until nothing is done any more."""
        self._ended.set()
        worker = self._worker
        if worker is not None:
            worker.stop()  # the thread notices, and reaps it
        if self.ident is not None:
            self.join()

    def _say(self, said: str) -> None:
        self._go_on(said)
        self._step(said)

    def _go_on(self, _waiting: str) -> None:
        if self._ended.is_set():
            raise _EndedError

    def _kill(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()


class _EndedError(Exception):
    """The sweep was ended under this launch's hands."""
