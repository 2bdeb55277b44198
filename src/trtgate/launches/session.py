"""Drives the workers: who measures when, interleaving, time limits; what dies is replaced."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec

from ..common.accelerator import Accelerator
from ..common.spent_time import Work, during
from ..common.steps import OnStep
from ..common.text_columns import number_of
from ..compiling.artifact_cache import CacheRequest
from ..records.coverage_record import Coverage
from ..records.measurement import CaseMeasurement, ColdStart, Launch, LoadLaunch
from ..suite.suite_source import SuiteSource
from ..timing.device_state import ONE
from . import load_launch, messages
from .builders import Builders
from .comparison_side import Side
from .worker_group import WorkerGroup
from .worker_handle import LaunchError, WorkerHandle
from .worker_pool import WorkerPool

COLD_AT_ONCE = 8  # so many import side by side, and start cold one after the other


class NextCase(NamedTuple):
    """A case that is measured later, and its artifact, if its frontend stores one."""

    case_id: str
    artifact: Path | None


class Session:
    """Resident workers on one device; `measure` gives a case to all of them.

    Parameters
    ----------
    launches
        Workers that measure a case, each a launch of its own.
    timeout_s
        The longest that a single step of a worker may take.
    tensorrt
        Whether there will be cases that need torch_tensorrt.
    cases_at_once
        How many cases are loaded together, each by workers of its own, and then measured one after the other: together
        they take little longer than one of them, and nobody loads while something is timed.
    streams
        The state of the GPU that device latency is measured in.
    builders
        How many cases may be built at once, by threads of the caller.

    """

    def __init__(
        self, source: SuiteSource, accelerator: Accelerator, folder: Path, *, launches: int, timeout_s: float,
        tensorrt: bool = False, cases_at_once: int = 1, streams: str = ONE, builders: int = 1,
    ) -> None:  # fmt: skip
        self._pool = WorkerPool(accelerator, folder, timeout_s=timeout_s)
        self._rng = random.Random()
        self._side = Side(name="candidate", source=source, streams=streams)
        self._tensorrt = tensorrt
        starts = range(0, cases_at_once * launches, launches)
        self._groups = [WorkerGroup(range(start, start + launches), self._pool, self._worker) for start in starts]
        own = accelerator.kind == "gpu"  # building leaves traces in a process that is to measure there
        self._builders = Builders(self._pool, self._builder, None if own else self._groups[0], builders)
        self._turn = threading.Lock()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _worker(self, number: int) -> WorkerHandle:
        return self._pool.start(self._side, f"worker-{number}", number=number, tensorrt=self._tensorrt)

    def _builder(self, name: str) -> WorkerHandle:
        return self._pool.start(self._side, name, number=-1, tensorrt=self._tensorrt, only_builds=True)

    def start(self, *, builder: bool = False) -> None:
        """Start the workers that are missing, and with `builder` one that builds or profiles.

        They import while the caller goes on.
        """
        for group in self._groups:
            group.start()
        if builder:
            self._builders.start_first()

    def renew(self) -> None:
        """Replace workers: a case that none has loaded is measured by fresh launches; what others have loaded stays."""
        self._groups[0].close()
        self._groups[0].start()

    def close(self) -> None:
        """End all workers."""
        self._pool.close()
        self._end_launches()
        self._builders.forget()

    def _end_launches(self) -> None:
        for group in self._groups:
            group.close()

    def stop(self) -> None:
        """End the processes under another thread's hands: it sees them gone, and is to call `close`."""
        self._pool.stop()

    def pids(self) -> list[int]:
        """Return the workers' process ids."""
        return self._pool.pids()

    def measure(
        self, case_id: str, artifact: Path | None, step: OnStep, after: Sequence[NextCase] = ()
    ) -> CaseMeasurement:
        """Load a case in a launch each, measure it in turns under the device's lock, unload it.

        `after`, in this order, may be loaded with it. What fails beside another case, for want of memory perhaps, is
        tried once more alone; if that helps, nothing is loaded ahead from then on.
        Raises LaunchError when a worker fails; it is replaced, and the session goes on with the next case.
        """
        return self._measure(case_id, artifact, step, after, device=True)

    def measure_host(
        self, case_id: str, artifact: Path | None, step: OnStep, after: Sequence[NextCase] = ()
    ) -> CaseMeasurement:
        """Measure what the host sees of a case on a GPU, and no device latency; as `measure` in all else."""
        return self._measure(case_id, artifact, step, after, device=False)

    def _measure(
        self, case_id: str, artifact: Path | None, step: OnStep, after: Sequence[NextCase], *, device: bool
    ) -> CaseMeasurement:
        start = time.monotonic()
        self._builders.end_spare()
        try:
            launches = self._measured_alone_if_need_be(case_id, artifact, step, after, device=device)
        except LaunchError as error:
            self._end_launches()
            raise LaunchError(f"{case_id}: {error}") from error
        except BaseException:
            self._end_launches()  # whatever state they are in, the next case starts clean
            raise
        return CaseMeasurement(
            case_id=case_id, launches=launches, uuid=self._pool.accelerator.uuid, seconds=time.monotonic() - start
        )

    def _measured_alone_if_need_be(
        self, case_id: str, artifact: Path | None, step: OnStep, after: Sequence[NextCase], *, device: bool
    ) -> list[Launch]:
        try:
            return self._measured(case_id, artifact, step, after, device=device)
        except LaunchError:
            if self._pool.stopped or not any(group.holds not in ("", case_id) for group in self._groups):
                raise
        self._end_launches()
        launches = self._measured(case_id, artifact, step, (), device=device)
        while len(self._groups) > 1:
            self._groups.pop().close()
        return launches

    def _measured(
        self, case_id: str, artifact: Path | None, step: OnStep, after: Sequence[NextCase], *, device: bool
    ) -> list[Launch]:
        holding = [group for group in self._groups if group.holds == case_id]
        group = holding[0] if holding else self._load(case_id, artifact, step, after)
        with self._pool.device(step), during(Work.MEASURING):
            return group.measure(self._rng, step, device=device)

    def _load(self, case_id: str, artifact: Path | None, step: OnStep, after: Sequence[NextCase]) -> WorkerGroup:
        """Let the first group load the case, and the others what comes after, as far as that is known."""
        loading = list(zip(self._groups, [NextCase(case_id, artifact), *after], strict=False))
        for group, _ in loading:
            group.start()
        for group in self._groups:
            group.greet(step)  # nobody imports while something is timed
        with self._pool.device(step, shared=True), during(Work.LOADING):
            step("loading in workers" if artifact else "building in workers")
            at_once = sum(len(group.workers) for group, _ in loading)
            for group, case in loading:
                group.begin_to_load(case.case_id, case.artifact, at_once)
            for group, _ in loading:
                group.loaded()
        return self._groups[0]

    def build(self, request: messages.BuildCase, step: OnStep) -> messages.BuiltReply:
        """Build a case where one was built before, or, if all are at work that may be, wait. Raises LaunchError."""
        with self._builders.at_work(request.case_id, step) as builder, self._pool.device(step, shared=True):
            step("building")
            with during(Work.BUILDING):
                return builder.build(request, self._turn, f"{request.case_id}: building")

    def profile(self, case_id: str, artifact: Path | None, step: OnStep) -> messages.ProfileReply:
        """Profile a case where it was built: there it may be kept. Raises LaunchError."""
        with self._builders.at_work(case_id, step) as builder, self._pool.device(step), during(Work.PROFILING):
            step("profiling")
            request = messages.RecordProfile(case_id=case_id, artifact=str(artifact) if artifact else None)
            return builder.ask(request, messages.ProfileReply, f"{case_id}: profiling")

    def check_fresh(self, case_id: str, artifact: Path, step: OnStep) -> dict[str, str]:
        """Load a case in a process of its own, and compare it with eager in all ways; returns them as `Build.ways`.

        Raises LaunchError.
        """
        with self._fresh("fresh") as (worker,), self._pool.device(step, shared=True), during(Work.CHECKING):
            step("checking it in a fresh process")
            request = messages.Load(case_id=case_id, artifact=str(artifact), lifecycle=True)
            return worker.ask(request, messages.LoadedReply, case_id).loaded.ways

    def cold_starts(
        self, case_id: str, artifact: Path | None, count: int, step: OnStep, *, kernels: bool = False
    ) -> tuple[list[ColdStart], list[ColdStart]]:
        """Load a case and run it once in so many fresh processes, one after the other. Raises LaunchError.

        With `kernels` in as many more, in turn with the others, which take kernels from the artifact's runtime cache;
        they are the second list.
        """
        ways, found = ([False, True] if kernels else [False]) * count, list[ColdStart]()
        try:
            for few in (ways[at : at + COLD_AT_ONCE] for at in range(0, len(ways), COLD_AT_ONCE)):
                step(f"starting {number_of(len(few), 'fresh process', 'fresh processes')}")
                fresh = self._fresh("cold", len(few), tensorrt=self._tensorrt)
                with fresh as workers, self._pool.device(step), during(Work.COLD_STARTS):
                    step("starting cold")
                    found += [self._cold_start(*one, case_id, artifact) for one in zip(workers, few, strict=True)]
        except LaunchError as error:
            raise LaunchError(f"{case_id}: {error}") from error
        return found[:: 1 + kernels], found[1::2] if kernels else []

    def _cold_start(self, worker: WorkerHandle, kernels: bool, case_id: str, artifact: Path | None) -> ColdStart:
        request = messages.StartCold(case_id=case_id, artifact=str(artifact) if artifact else None, kernels=kernels)
        found = worker.ask(request, messages.ColdReply, "starting cold").cold
        self._pool.end(worker)  # its memory is free for the next
        return found

    def under_load(
        self, case_id: str, artifact: Path | None, most: int, step: OnStep, *, launches: int
    ) -> list[LoadLaunch]:
        """Let up to `most` threads, and processes, call a case at once, in so many fresh sets of processes.

        They wait for each other as those that are timed alone do. The first of what is returned has the memory that a
        process of its own read. Raises LaunchError.
        """
        path, found = None if artifact is None else str(artifact), list[LoadLaunch]()
        gpu = self._pool.accelerator.kind == "gpu"
        try:
            for _ in range(launches):
                step(f"starting {number_of(most, 'process', 'processes')} for load")
                fresh = self._fresh("load", most, tensorrt=self._tensorrt, only_builds=False)
                with fresh as workers, self._pool.device(step), during(Work.UNDER_LOAD):
                    found.append(load_launch.measured(workers, case_id, path, step, gpu=gpu))
            fresh = self._fresh("memory", tensorrt=self._tensorrt)
            with fresh as (worker,), self._pool.device(step), during(Work.UNDER_LOAD):
                readings = load_launch.memory_read(worker, case_id, path, most, step)
        except LaunchError as error:
            raise LaunchError(f"{case_id}: {error}") from error
        return [msgspec.structs.replace(found[0], readings=readings), *found[1:]]

    def dry_run(self, case_id: str, step: OnStep) -> Coverage:
        """Ask in a process of its own what TensorRT would take of a case. Raises LaunchError."""
        with self._fresh("dry-run") as (worker,), self._pool.device(step, shared=True):
            step("a dry run")
            return worker.ask(messages.DryRun(case_id=case_id), messages.DryRunReply, f"{case_id}: dry run").coverage

    def build_fresh(
        self, case_id: str, folder: Path, imported: Callable[[], None], cache: CacheRequest | None = None
    ) -> messages.BuiltReply:
        """Build a case in a process of its own, once `imported` returns: others import first. Raises LaunchError."""
        request = messages.BuildCase(case_id=case_id, folder=str(folder), cache=cache)
        with self._fresh("rebuild") as (worker,):
            imported()
            with self._pool.device(shared=True):
                return worker.ask(request, messages.BuiltReply, f"{case_id}: building again")

    @contextmanager
    def _fresh(
        self, name: str, count: int = 1, *, tensorrt: bool = False, only_builds: bool = True
    ) -> Iterator[list[WorkerHandle]]:
        """Within: workers of its own, which have imported side by side, and end with it."""
        names = [name] if count == 1 else [f"{name}-{number}" for number in range(count)]
        workers = [
            self._pool.start(self._side, each, number=-1, tensorrt=tensorrt, only_builds=only_builds) for each in names
        ]
        try:
            for worker in workers:
                worker.greet()
            yield workers
        finally:
            self._pool.end(*workers)
