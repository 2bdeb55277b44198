"""Builds many cases ahead of their tests, in several processes at once: nobody is timed meanwhile."""

from __future__ import annotations

import contextlib
import math
import queue
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from ..common import machine
from ..common.accelerator import GIB, Accelerator
from ..common.errors import FaultError, TrtgateError, is_fault, one_line
from ..compiling.artifact_cache import CacheRequest
from ..records.agreement_record import Agreement
from ..records.coverage_record import Coverage
from ..records.measurement import Build
from ..suite.cases import Case
from . import messages
from .comparison_side import Side
from .worker_handle import KilledError, WorkerHandle
from .worker_pool import WorkerPool

MOST, BYTES_EACH, HOST_BYTES_EACH = 8, 6 * GIB, 4 * GIB
"""How many builders there are at most unless a number is asked for, and the memory that one may need, a GPU's and the
host's."""


class Prebuilt(msgspec.Struct, kw_only=True):
    """What came of building a case: `problem` says why it could not be built; empty when it was."""

    case_id: str
    build: Build | None = None
    artifact: Path | None = None
    """Its folder; None where the frontend stores nothing."""
    coverage: Coverage | None = None
    agreement: Agreement | None = None
    notes: list[str] = []
    problem: str = ""
    fault: bool = False
    """Whether that is the machine's fault, and no failure of the case."""
    killed: bool = False
    """Whether something outside killed the builder."""

    def checked(self) -> Prebuilt:
        """Return this. Raises TrtgateError where it could not be built, FaultError where the machine is at fault."""
        if self.problem:
            raise (FaultError if self.fault else TrtgateError)(self.problem)
        return self

    @classmethod
    def of(cls, case_id: str, reply: messages.BuiltReply, folder: Path) -> Prebuilt:
        """Return what a worker replied that built into `folder`."""
        return cls(
            case_id=case_id,
            build=reply.build,
            artifact=folder if reply.stored else None,
            coverage=reply.coverage,
            agreement=reply.agreement,
            notes=reply.notes,
        )


class Prebuild(msgspec.Struct, frozen=True, kw_only=True):
    """Who builds what, and where it goes.

    Parameters
    ----------
    side
        Whose code is built.
    accelerators
        The devices; builders are spread over them.
    folder_for
        Makes a new private folder for a case's artifact.
    logs
        Where the builders' logs go.
    timeout_s
        The longest that one case may take.
    agreement_inputs
        Over how many inputs the accuracy of each case is asked; 0 for not at all.
    lifecycle
        Whether each case is compared in all ways in which it may be called.
    tensorrt
        Ids of cases that need torch_tensorrt: who begins with one of them imports it at once.
    imported
        Called at most once, by whoever takes the results, when all builders have imported what their first cases need.
    in_turn
        Whether what is in no cache is built one after the other, so that build times are what building alone takes;
        exporting, loading and comparing go on side by side.
    dry_runs
        Ids of cases whose coverage is asked; nothing of them is built.
    shared
        The name of the cache in which the shapes of a case find what one of them built, as `BuildCase` has it.

    """

    side: Side
    accelerators: Sequence[Accelerator]
    builders: int
    cache: CacheRequest | None
    folder_for: Callable[[str], Path]
    logs: Path
    timeout_s: float
    agreement_inputs: int = 0
    lifecycle: bool = False
    tensorrt: Collection[str] = ()
    imported: Callable[[], None] = lambda: None
    in_turn: bool = False
    dry_runs: frozenset[str] = frozenset()
    shared: str = messages.SHARED

    def run(self, case_ids: Sequence[str]) -> Iterator[Prebuilt]:
        """Build cases, begun in this order; yields each when it is ready, and ends all processes however it ends."""
        with contextlib.closing(run_sides([(self, case_ids)])) as running:
            for _, built in running:
                yield built


Wanted = Sequence[tuple[Prebuild, Sequence[str]]]
"""Who builds, and what, begun in this order."""


def run_sides(wanted: Wanted) -> Generator[tuple[Prebuild, Prebuilt]]:
    """Build the cases of all sides at once; yields each, and whose it is, as `Prebuild.run`.

    Where they build in turn, one case of each side is built at a time: each beside one of the other. TensorRT times its
    tactics on the GPU, which TensorRT-RTX does not: unless all sides have that, they share one turn.
    """
    done: _Done = queue.SimpleQueue()
    counts = [min(work.builders, len(case_ids)) for work, case_ids in wanted]
    apart = all(work.side.rtx for work, _ in wanted)
    turn, pools, made = threading.Lock(), list[WorkerPool](), list[_Builder]()
    for (work, case_ids), count in zip(wanted, counts, strict=True):
        turn = threading.Lock() if apart else turn
        pending: queue.SimpleQueue[str] = queue.SimpleQueue()
        for case_id in case_ids:
            pending.put(case_id)
        own = [WorkerPool(one, work.logs, timeout_s=work.timeout_s) for one in work.accelerators]
        made += [
            _Builder(work, own[number % len(own)], number, sum(counts), pending, done, turn) for number in range(count)
        ]
        pools += own
    try:
        for builder in made:
            builder.start()
        yield from _results(wanted, counts, done)
    finally:
        for pool in pools:
            pool.stop()  # the threads notice, and reap
        for builder in made:
            builder.join()


def _results(wanted: Wanted, counts: Sequence[int], done: _Done) -> Iterator[tuple[Prebuild, Prebuilt]]:
    starting = {id(work): count for (work, _), count in zip(wanted, counts, strict=True)}
    left = sum(len(case_ids) for _, case_ids in wanted)
    while left:
        work, built = done.get()
        if built is not None:
            left -= 1
            yield work, built
            continue
        starting[id(work)] -= 1
        if not starting[id(work)]:
            work.imported()


_Done = queue.SimpleQueue[tuple[Prebuild, Prebuilt | None]]
"""What came of each case, and, once for each builder, None when it has imported, or will not."""


class _Builder(threading.Thread):
    """Drives one process, case by case; one that fails is replaced."""

    def __init__(
        self,
        work: Prebuild,
        pool: WorkerPool,
        number: int,
        count: int,
        pending: queue.SimpleQueue[str],
        done: _Done,
        turn: threading.Lock,
    ) -> None:
        super().__init__(daemon=True)
        self._turn = turn
        self._work = work
        self._pool = pool
        self._number = number
        self._count = count
        self._pending = pending
        self._done = done
        self._worker: WorkerHandle | None = None
        self._imports = True

    def run(self) -> None:
        """Build until nothing is left."""
        while not self._pool.stopped:
            try:
                case_id = self._pending.get_nowait()
            except queue.Empty:
                break
            try:
                built = self._built(case_id)
            except TrtgateError as error:
                killed = isinstance(error, KilledError)
                built = Prebuilt(case_id=case_id, problem=str(error), fault=is_fault(error), killed=killed)
                self._kill()
            except Exception as error:
                built = Prebuilt(case_id=case_id, problem=f"case {case_id}: {one_line(error)}", fault=is_fault(error))
                self._kill()
            self._done.put((self._work, built))
        self._say_imported()
        self._kill()

    def _say_imported(self) -> None:
        if self._imports:
            self._imports = False
            self._done.put((self._work, None))

    def _built(self, case_id: str) -> Prebuilt:
        work = self._work
        if self._worker is None:
            self._worker = self._pool.start(
                work.side, f"builder-{self._number}", number=self._number,
                tensorrt=case_id in work.tensorrt, only_builds=True,
            )  # fmt: skip
        self._worker.greet()
        self._say_imported()
        if case_id in work.dry_runs:
            with self._pool.device(shared=True):
                ask = messages.DryRun(case_id=case_id)
                reply = self._worker.ask(ask, messages.DryRunReply, f"{case_id}: dry run")
            return Prebuilt(case_id=case_id, coverage=reply.coverage)
        folder = work.folder_for(case_id)
        request = messages.BuildCase(
            case_id=case_id, folder=str(folder), cache=work.cache, builders=self._count,
            agreement_inputs=work.agreement_inputs, lifecycle=work.lifecycle, shared=work.shared,
            in_turn=work.in_turn,
        )  # fmt: skip
        with self._pool.device(shared=True):
            built = self._worker.build(request, self._turn, f"{case_id}: building")
        return Prebuilt.of(case_id, built, folder)

    def _kill(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            self._pool.end(worker)


def builders_for(accelerators: Sequence[Accelerator], processes: int, most: int = MOST) -> int:
    """Return how many processes may build or load at once: at most `most` a device, as its memory allows.

    `processes` is how many the host has room for.
    """
    memory = [one.memory_bytes // BYTES_EACH if one.kind == "gpu" else processes for one in accelerators]
    return max(1, min(processes, sum(min(most, room) for room in memory)))


def builders_here(accelerators: Sequence[Accelerator], *, in_turn: bool) -> int:
    """Return how many processes may build at once on this machine.

    Where one builds while the others export, these leave it half of the CPUs.
    """
    room = builders_for(accelerators, machine.processes(HOST_BYTES_EACH))
    return max(1, min(room, machine.cpus() // 2)) if in_turn else room


def order(cases: Iterable[Case], seconds: Callable[[str], float | None]) -> list[str]:
    """Return the ids of cases as they are best begun: the unknown first, TensorRT's before others; then the longest.

    `seconds` says how long a case took before. Of cases that share what is built one comes at its place, and the others
    at the end: they would wait for it.
    """

    def longest_first(case: Case) -> tuple[float, bool, str]:
        known = seconds(case.id)
        return -math.inf if known is None else -known, not case.settings.uses_tensorrt, case.id

    builds: dict[str, list[str]] = {}
    for case in sorted(cases, key=longest_first):
        builds.setdefault(case.built_as, []).append(case.id)
    return [ids[0] for ids in builds.values()] + [case_id for ids in builds.values() for case_id in ids[1:]]
