"""Drives the workers: who measures when, interleaving, time limits; what dies is replaced."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from . import protocol
from .accelerator import Accelerator
from .records import Build, CaseMeasurement, Launch
from .side import Side
from .suite_source import SuiteSource
from .timing import loop
from .timing.lock import device_turn
from .worker_handle import LaunchError, WorkerHandle

Step = Callable[[str], None]


class Session:
    """Resident workers on one device; `measure` gives a case to all of them.

    Parameters
    ----------
    launches
        Workers, each a launch of its own.
    timeout_s
        The longest that a single step of a worker may take.
    tensorrt
        Whether there will be cases that need torch_tensorrt.

    """

    def __init__(
        self, source: SuiteSource, accelerator: Accelerator, folder: Path, *, launches: int, timeout_s: float,
        tensorrt: bool = False,
    ) -> None:  # fmt: skip
        self._accelerator = accelerator
        self._folder = folder
        self._launches = launches
        self._timeout_s = timeout_s
        self._rng = random.Random()
        self._side = Side(name="candidate", source=source)
        self._tensorrt = tensorrt
        self._workers: dict[int, WorkerHandle] = {}
        self._builder: WorkerHandle | None = None
        self._stopped = False

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the workers that are missing; they import while the caller goes on."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in range(self._launches):
            if number not in self._workers:
                log = self._folder / f"worker-{number}.log"
                hello = self._side.hello(self._accelerator, tensorrt=self._tensorrt)
                self._workers[number] = WorkerHandle(number, self._side, hello, log)

    def renew(self) -> None:
        """Replace all workers: what is measured next comes from fresh launches."""
        self.close()
        self.start()

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self._workers.popitem()[1].kill()

    def stop(self) -> None:
        """End the processes under another thread's hands: it sees them gone, and is to call `close`."""
        self._stopped = True
        for worker in [*self._workers.values(), self._builder]:
            if worker is not None:
                worker.stop()

    def pids(self) -> list[int]:
        """Return the workers' process ids."""
        return [worker.pid for worker in self._workers.values()]

    def measure(self, case_id: str, artifact: Path | None, step: Step) -> CaseMeasurement:
        """Load a case in every worker, measure it in turns under the device's lock, unload it.

        Raises LaunchError when a worker fails; it is replaced, and the session goes on with the next case.
        """
        start = time.monotonic()
        self.start()
        try:
            self._greet(step)
            with device_turn(self._accelerator.lock_name, self._timeout_s, step, shared=True):
                launches = self._load(case_id, artifact, step)
            with device_turn(self._accelerator.lock_name, self._timeout_s, step):
                self._take_turns(launches, step)
                self._unload(launches)
        except LaunchError as error:
            self.close()
            raise LaunchError(f"{case_id}: {error}") from error
        except BaseException:
            self.close()  # whatever state they are in, the next case starts clean
            raise
        return CaseMeasurement(
            case_id=case_id, launches=list(launches.values()), uuid=self._accelerator.uuid,
            seconds=time.monotonic() - start,
        )  # fmt: skip

    def build_fresh(self, case_id: str, folder: Path) -> Build:
        """Build a case in a process of its own, which ends with it. Raises LaunchError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        log = self._folder / "builder.log"
        hello = self._side.hello(self._accelerator)
        worker = self._builder = WorkerHandle(-1, self._side, hello, log, only_builds=True)
        try:
            self._go_on("")
            worker.greet(self._timeout_s)
            request = protocol.BuildCase(case_id=case_id, folder=str(folder))
            with device_turn(self._accelerator.lock_name, self._timeout_s, self._go_on, shared=True):
                return worker.ask(request, protocol.BuiltReply, self._timeout_s, "building again").build
        except LaunchError as error:
            raise LaunchError(f"{case_id}: {error}") from error
        finally:
            self._builder = None
            worker.kill()

    def _go_on(self, _waiting: str) -> None:
        if self._stopped:
            raise LaunchError("the run ended")

    def _greet(self, step: Step) -> None:
        waiting = [worker for worker in self._workers.values() if worker.cases is None]
        if waiting:
            step(f"starting {len(waiting)} workers")
        for worker in waiting:
            worker.greet(self._timeout_s)

    def _load(self, case_id: str, artifact: Path | None, step: Step) -> dict[int, Launch]:
        path = None if artifact is None else str(artifact)
        step("loading in workers" if artifact else "building in workers")
        launches = {}
        for worker in self._workers.values():
            worker.send(protocol.Load(case_id=case_id, artifact=path))
        for worker in self._workers.values():
            loaded = worker.receive(protocol.LoadedReply, self._timeout_s, "loading").loaded
            launches[worker.number] = Launch(loaded=loaded)
        return launches

    def _take_turns(self, launches: dict[int, Launch], step: Step) -> None:
        plan = loop.ON_GPU if self._accelerator.kind == "gpu" else loop.ON_CPU
        for number in range(plan.turns):
            step(f"measuring, turn {number + 1} of {plan.turns}")
            order = list(self._workers.values())
            self._rng.shuffle(order)
            for worker in order:
                request = protocol.Measure(plan=plan, seed=self._rng.getrandbits(32))
                reply = worker.ask(request, protocol.TurnReply, self._timeout_s, "measuring")
                launches[worker.number].turns.append(reply.turn)

    def _unload(self, launches: dict[int, Launch]) -> None:
        """Unload everywhere; the last is alone then, and what it frees is what one launch took of the device."""
        *others, last = self._workers.values()
        for worker in others:
            worker.send(protocol.Unload())
        for worker in others:
            worker.receive(protocol.UnloadedReply, self._timeout_s, "unloading")
        request = protocol.Unload(measure_memory=True)
        freed = last.ask(request, protocol.UnloadedReply, self._timeout_s, "unloading").gpu_memory_bytes
        launches[last.number].loaded.gpu_memory_bytes = freed
