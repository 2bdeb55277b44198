"""Builds and measures many points around a default, interleaved: every launch measures all of them, in random order.

Launches load at the same time and measure one at a time.

What is done is written down at once, so a sweep that was interrupted goes on where it was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..common.accelerator import Accelerator
from ..common.explanations import Explanation, explained
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..common.text_columns import number_of
from ..compiling import availability
from ..compiling.artifact_cache import CacheRequest
from ..records.agreement_record import Agreement
from ..records.measurement import Build, Launch, Loaded
from ..suite.cases import Case
from ..suite.suite_source import SuiteSource
from ..timing import plans
from . import messages
from .comparison_side import Side
from .prebuild import Prebuild, Prebuilt
from .sweep_journal import BuiltPoint, SweepJournal, TimedPoint, header_of
from .worker_handle import LaunchError, WorkerHandle
from .worker_pool import WorkerPool

FOLDER = "sweeps"


class PointOutcome(msgspec.Struct, frozen=True, kw_only=True):
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
        self, source: SuiteSource, accelerator: Accelerator, folder: Path, cases: Sequence[Case], *, launches: int,
        builders: int, inputs: int, cache: CacheRequest | None, timeout_s: float, fresh: bool = False,
    ) -> None:  # fmt: skip
        self._source = source
        self._accelerator = accelerator
        self._folder = RunFolder(folder)
        self._cases = {case.id: case for case in cases}
        self._problems: dict[str, str] = {}
        self._unavailable: dict[str, str] = {}
        self._launches = launches
        self._builders = builders
        self._inputs = inputs
        self._cache = cache
        self._timeout_s = timeout_s
        self._pool = WorkerPool(accelerator, self._folder.logs, timeout_s=timeout_s)
        self._rng = random.Random()
        self._workers: dict[int, WorkerHandle] = {}
        self.journal = SweepJournal(folder / FOLDER, header_of(source, accelerator), fresh=fresh)
        self._notes = {case_id: _notes_of(built) for case_id, built in self.journal.built.items()}
        self.earlier = sum(map(self._timed, self._cases))
        """How many of its launches were measured by an earlier run."""

    def close(self) -> None:
        """End all processes, and remove what goes with the run; what was measured stays."""
        self._pool.close()
        self.journal.close()
        self._folder.close()

    def run(self, step: OnStep) -> None:
        """Do what is missing. Ctrl-C leaves what is done in the journal, and in the outcomes."""
        for name, case in self._cases.items():
            if reason := availability.unavailable(case.settings, self._accelerator):
                self._unavailable[name] = reason
        wanted = [name for name in self._cases if name not in self._unavailable and self._missing(name)]
        if wanted and self._builders > 1:  # they import meanwhile; where build seconds count, that would disturb them
            for number in range(self._launches):
                self._start(number)
        artifacts = self._build(wanted, step)
        pending = {number: self._pending(number, artifacts) for number in range(self._launches)}
        while left := sum(map(len, pending.values())):
            step(f"{left} measurements left")
            self._round({number: names.pop() for number, names in pending.items() if names}, artifacts, step)

    @property
    def notes(self) -> list[str]:
        """What went wrong with storing what was built, in this run or an earlier one, and was got over."""
        count, path = self.journal.unreadable, self.journal.path
        said = f"{number_of(count, 'line')} of {path} can't be read: what they said is done again"
        return [said] * bool(count) + [note for case_id in self._cases for note in self._notes.get(case_id, [])]

    def outcomes(self) -> list[PointOutcome]:
        """Return what came of every case, in order: also where Ctrl-C ended it before all launches were through."""
        return [self._outcome(case) for case in self._cases.values()]

    def _outcome(self, case: Case) -> PointOutcome:
        built = self.journal.built.get(case.id)
        launches = self.journal.launches(case.id)[: self._launches]
        whole = len(launches) == self._launches
        problem, unavailable = self._problems.get(case.id, ""), self._unavailable.get(case.id, "")
        if not whole and not unavailable and not problem:
            problem = f"{case.id}: measured by {len(launches)} of {self._launches} launches"
        return PointOutcome(
            case=case, build=built.build if built else None, agreement=built.agreement if built else None,
            launches=launches if whole else [], problem=problem, unavailable=unavailable,
        )  # fmt: skip

    def _missing(self, case_id: str) -> bool:
        return not self._is_built(case_id) or self._timed(case_id) < self._launches

    def _timed(self, case_id: str) -> int:
        """Return how many of the launches that are asked for have measured a case."""
        return sum((case_id, number) in self.journal.timed for number in range(self._launches))

    def _is_built(self, case_id: str) -> bool:
        """Whether it was built before, with as much asked of it and as few beside it as now."""
        built = self.journal.built.get(case_id)
        if built is None or (self._builders == 1 and built.build.builders > 1 and not built.build.cached):
            return False
        return self._inputs <= (built.agreement.inputs if built.agreement else 0)

    def _build(self, wanted: Sequence[str], step: OnStep) -> dict[str, Path | None]:
        """Return the artifacts of what could be built: None where a frontend stores nothing."""
        if not wanted:
            return {}
        work = Prebuild(
            side=Side(name="builder", source=self._source), accelerators=[self._accelerator],
            builders=self._builders, cache=self._cache,
            folder_for=lambda _case_id: self._folder.private("point"), logs=self._folder.logs,
            timeout_s=self._timeout_s, agreement_inputs=self._inputs,
        )  # fmt: skip
        artifacts: dict[str, Path | None] = {}
        step(f"building {number_of(len(wanted), 'point')}")
        for done, built in enumerate(work.run(wanted), 1):
            step(f"built {done} of {len(wanted)}: {built.case_id}")
            self._notes[built.case_id] = _notes_of(built)
            if built.problem:
                self._problems[built.case_id] = explained(built.problem, Explanation.BUILD_FAILED)
            if built.problem or built.build is None:
                continue
            artifacts[built.case_id] = built.artifact
            if not self._is_built(built.case_id):
                entry = BuiltPoint(
                    case_id=built.case_id, build=built.build, agreement=built.agreement, notes=built.notes
                )  # fmt: skip
                self.journal.add(entry)
        return artifacts

    def _pending(self, number: int, artifacts: dict[str, Path | None]) -> list[str]:
        """Return what a launch has yet to measure, in random order."""
        found = [name for name in artifacts if (name, number) not in self.journal.timed]
        self._rng.shuffle(found)
        return found

    def _round(self, points: dict[int, str], artifacts: dict[str, Path | None], step: OnStep) -> None:
        """Let every launch load its next point, all at once, and then measure it, one after the other.

        A launch that fails is replaced, and its point has a problem.
        """
        with self._pool.device(step, shared=True):
            step(f"loading {', '.join(points.values())}")
            for number in points:
                self._start(number)
            for number, case_id in points.items():
                artifact = artifacts[case_id]
                request = messages.Load(
                    case_id=case_id, artifact=None if artifact is None else str(artifact), at_once=len(points)
                )
                self._workers[number].send(request)
            loaded = {number: found for number in points if (found := self._loaded(number, points[number]))}
        order = list(loaded)
        self._rng.shuffle(order)
        with self._pool.device(step):
            for number in order:
                case_id = points[number]
                step(f"measuring {case_id}, launch {number + 1} of {self._launches}")
                try:
                    launch = self._taken(self._workers[number], loaded[number])
                except LaunchError as error:
                    self._failed(number, case_id, error)
                else:
                    self.journal.add(TimedPoint(case_id=case_id, number=number, launch=launch))

    def _start(self, number: int) -> None:
        if number in self._workers:
            return
        wanted = [case for case in self._cases.values() if case.id not in self._unavailable]
        tensorrt = any(case.settings.uses_tensorrt for case in wanted)
        side = Side(name="candidate", source=self._source)
        self._workers[number] = self._pool.start(side, f"sweep-{number}", number=number, tensorrt=tensorrt)

    def _loaded(self, number: int, case_id: str) -> Loaded | None:
        """Wait until a launch has loaded its point; None when it failed."""
        worker = self._workers[number]
        try:
            worker.greet()
            return worker.receive(messages.LoadedReply, "loading").loaded
        except LaunchError as error:
            self._failed(number, case_id, error)
            return None

    def _taken(self, worker: WorkerHandle, loaded: Loaded) -> Launch:
        """Measure and unload. Raises LaunchError."""
        plan = plans.ON_GPU if self._accelerator.kind == "gpu" else plans.ON_CPU
        turns = []
        for number in range(plan.turns):
            measure = messages.Measure(plan=plan.of_turn(number), seed=self._rng.getrandbits(32))
            turns.append(worker.ask(measure, messages.TurnReply, "measuring").turn)
        unload = messages.Unload(measure_memory=True)
        reply = worker.ask(unload, messages.UnloadedReply, "unloading")
        if not any(capture.blocks_us for turn in turns for capture in turn.captures):
            said = "not one block counts: the device was disturbed all the time"
            raise LaunchError(explained(said, Explanation.VOID_BLOCKS))
        loaded = msgspec.structs.replace(loaded, gpu_memory_bytes=reply.gpu_memory_bytes)
        return Launch(loaded=loaded, turns=turns)

    def _failed(self, number: int, case_id: str, error: LaunchError) -> None:
        self._problems[case_id] = explained(f"{case_id}: {error}", Explanation.BUILD_FAILED)
        self._pool.end(self._workers.pop(number))


def _notes_of(built: Prebuilt | BuiltPoint) -> list[str]:
    remarks = () if built.build is None else built.build.remarks
    return built.notes + [f"{built.case_id}: {text}" for text in remarks]
