"""Drives the workers: who measures when, interleaving, time limits; what dies is replaced."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from . import protocol
from .accelerator import Accelerator
from .errors import TrtgateError
from .records import CaseMeasurement, Launch, Loaded
from .suite_source import SuiteSource
from .timing import loop
from .timing.lock import device_lock

Step = Callable[[str], None]


class LaunchError(TrtgateError):
    """A worker crashed, hung, ran out of memory or refused; the message says which, and it has been replaced."""


class WorkerHandle:
    """One worker process, seen from the session."""

    def __init__(self, number: int, hello: protocol.Hello, log: Path) -> None:
        self._log = log
        environment = dict(os.environ)
        if hello.uuid:
            environment["CUDA_VISIBLE_DEVICES"] = hello.uuid
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trtgate.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                start_new_session=True,
            )
        self.number = number
        self.greeted = False
        self._unread = b""
        self.send(hello)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, request: protocol.Request) -> None:
        """Send a request; a worker that is gone is noticed when its reply is awaited."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(protocol.encode(request))
            self._process.stdin.flush()

    def receive(self, timeout_s: float, doing: str) -> protocol.Reply:
        """Return the next reply. Raises LaunchError on a crash, a time-out or a Failed reply."""
        line = self._read_line(timeout_s, doing)
        reply = protocol.decode_reply(line)
        if isinstance(reply, protocol.Failed):
            raise LaunchError(f"{doing}: {reply.reason}")
        return reply

    def _read_line(self, timeout_s: float, doing: str) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0:
                raise LaunchError(
                    f"{doing}: no answer within {timeout_s:.0f} s; raise --trtgate-timeout if it needs longer"
                )
            if poller.poll(min(left, 1.0) * 1000):
                chunk = os.read(descriptor, 1 << 16)
                if not chunk:
                    raise LaunchError(f"{doing}: {self._epitaph()}")
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _epitaph(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            how = f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        else:
            how = f"ended with exit code {code}"
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").strip().splitlines()
            if lines:
                how += f"; last words: {lines[-1].strip()[:200]}"
        return f"the worker was {how}" if how.startswith("killed") else f"the worker {how}"

    def kill(self) -> None:
        """End the process and all its children, and reap it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()


class Session:
    """Resident workers on one device; `measure` gives a case to all of them.

    Parameters
    ----------
    launches
        Workers, each a launch of its own.
    timeout_s
        The longest that a single step of a worker may take.

    """

    def __init__(
        self, source: SuiteSource, accelerator: Accelerator, folder: Path, *, launches: int, timeout_s: float
    ) -> None:
        self._accelerator = accelerator
        self._folder = folder
        self._launches = launches
        self._timeout_s = timeout_s
        self._rng = random.Random()
        self._hello = protocol.Hello(
            source=source,
            device="cuda" if accelerator.kind == "gpu" else "cpu",
            uuid=accelerator.uuid,
            sys_path=[entry for entry in sys.path if entry],
        )
        self._workers: dict[int, WorkerHandle] = {}

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
                self._workers[number] = WorkerHandle(number, self._hello, log)

    def renew(self) -> None:
        """Replace all workers: what is measured next comes from fresh launches."""
        self.close()
        self.start()

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self._workers.popitem()[1].kill()

    def pids(self) -> list[int]:
        """Return the workers' process ids."""
        return [worker.pid for worker in self._workers.values()]

    def measure(self, case_id: str, artifact: Path | None, step: Step) -> CaseMeasurement:
        """Load a case in every worker, measure it in turns under the device's lock, unload it.

        Raises LaunchError when a worker fails; it is replaced, and the session goes on with the next case.
        """
        self.start()
        try:
            self._greet(step)
            launches = self._load(case_id, artifact, step)
            self._take_turns(launches, step)
            self._ask_all(protocol.Unload(), "unloading")
        except LaunchError as error:
            self.close()
            raise LaunchError(f"{case_id}: {error}") from error
        except BaseException:
            self.close()  # whatever state they are in, the next case starts clean
            raise
        return CaseMeasurement(case_id=case_id, launches=list(launches.values()))

    def _greet(self, step: Step) -> None:
        waiting = [worker for worker in self._workers.values() if not worker.greeted]
        if waiting:
            step(f"starting {len(waiting)} workers")
        for worker in waiting:
            worker.receive(self._timeout_s, f"starting worker {worker.number}")
            worker.greeted = True

    def _load(self, case_id: str, artifact: Path | None, step: Step) -> dict[int, Launch]:
        request = protocol.Load(case_id=case_id, artifact=None if artifact is None else str(artifact))
        step("loading in workers" if artifact else "building in workers")
        first, *others = self._workers.values()
        launches = {}
        # On a GPU the first alone: the device's memory then shows what one launch takes.
        groups = ([first], others) if self._accelerator.kind == "gpu" else ([first, *others],)
        for group in groups:
            for worker in group:
                worker.send(request)
            for worker in group:
                reply = worker.receive(self._timeout_s, "loading")
                assert isinstance(reply, protocol.LoadedReply)
                launches[worker.number] = Launch(
                    loaded=reply.loaded if worker is first else _without_memory(reply.loaded)
                )
        return launches

    def _take_turns(self, launches: dict[int, Launch], step: Step) -> None:
        plan = loop.ON_GPU if self._accelerator.kind == "gpu" else loop.ON_CPU
        waiting = lambda waited: step(f"waiting for the device, {waited:.0f} s")  # noqa: E731
        with device_lock(self._accelerator.lock_name, self._timeout_s, waiting):
            for number in range(plan.turns):
                step(f"measuring, turn {number + 1} of {plan.turns}")
                order = list(self._workers.values())
                self._rng.shuffle(order)
                for worker in order:
                    worker.send(protocol.Measure(plan=plan, seed=self._rng.getrandbits(32)))
                    reply = worker.receive(self._timeout_s, "measuring")
                    assert isinstance(reply, protocol.TurnReply)
                    launches[worker.number].turns.append(reply.turn)

    def _ask_all(self, request: protocol.Request, doing: str) -> None:
        for worker in self._workers.values():
            worker.send(request)
        for worker in self._workers.values():
            worker.receive(self._timeout_s, doing)


def _without_memory(loaded: Loaded) -> Loaded:
    return Loaded(seconds=loaded.seconds)
