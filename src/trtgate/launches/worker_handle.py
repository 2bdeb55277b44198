"""One worker process, seen from the process that started it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from ..common import files
from ..common.errors import FaultError, TrtgateError
from ..common.explanations import Explanation, explained
from ..common.spent_time import Work, during
from ..common.time_limit import option_of
from . import messages
from .comparison_side import Side

Answer = TypeVar("Answer", bound=messages.Reply)

ASLEEP = {"OMP_WAIT_POLICY": "passive"}
"""How threads of PyTorch's CPU operators wait for each other in a process that is not alone.

Spinning, as is usual, takes CPUs from the others: three processes on two CPUs made the suite's models in 6.3 s, and in
3.0 s waiting asleep.
"""

ONE_ORDER = {"PYTHONHASHSEED": "0"}
"""Sets are in the same order in every process, so that what is counted there is the same."""


def environment_of(
    side: Side, hello: messages.Hello, variables: dict[str, str], *, only_builds: bool
) -> dict[str, str]:
    """Return the environment variables of a worker, made from this process's."""
    found = side.environment(variables)
    if hello.uuid:
        found["CUDA_VISIBLE_DEVICES"] = hello.uuid
    if hello.device == "cuda" or only_builds:  # what is timed on a CPU keeps what is usual
        found = {**ASLEEP, **found}
    if only_builds:
        found = {**ONE_ORDER, **found}
    return found


class LaunchError(TrtgateError):
    """A worker crashed, hung, ran out of memory or refused; the message says which, and it has been replaced."""


class KilledError(LaunchError):
    """Something outside killed a worker, such as the kernel, for want of memory: no code of its own did."""


FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Return codes of a process that something outside killed."""


def _failed(text: str, kind: type[LaunchError] = LaunchError) -> LaunchError:
    return kind(explained(text, Explanation.WORKER_FAILED))


class WorkerHandle:
    """One worker process, seen from the session."""

    def __init__(
        self, number: int, side: Side, hello: messages.Hello, log: Path, *, timeout_s: float, only_builds: bool = False
    ) -> None:
        self._timeout_s = timeout_s
        self._log = log
        environment = environment_of(side, hello, dict(os.environ), only_builds=only_builds)
        with files.create(log) as stderr:
            self._process = subprocess.Popen(
                [side.python, "-P", "-m", "trtgate.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                cwd=side.working_folder(),
                start_new_session=True,
            )
        self.number = number
        self.cases: list[str] | None = None
        """The cases of its suite, once it has greeted."""
        self.ended = False
        """Whether it is no good any more, as far as its last reply tells."""
        self._unread = b""
        self._said_before = 0
        """Bytes of the log that were written before the last request: last words are of this one."""
        self.send(hello)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, request: messages.Request) -> None:
        """Send a request; a worker that is gone is noticed when its reply is awaited."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._said_before = self._log.stat().st_size
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(messages.encode(request))
            self._process.stdin.flush()

    def greet(self) -> list[str]:
        """Wait, the first time, until it has imported its suite; returns the suite's cases. Raises LaunchError."""
        if self.cases is None:
            with during(Work.STARTING):
                self.cases = self.receive(messages.Greeting, f"starting worker {self.number}").cases
        return self.cases

    def receive(self, kind: type[Answer], doing: str) -> Answer:
        """Return the next reply. Raises LaunchError on a crash, a time-out or any reply of another kind."""
        reply = self._receive((kind,), doing)
        assert isinstance(reply, kind)
        return reply

    def receive_or_prepared(self, kind: type[Answer], doing: str) -> Answer | messages.Prepared:
        """Return the next reply, which may be that it waits for its turn. Raises LaunchError as `receive`."""
        reply = self._receive((kind, messages.Prepared), doing)
        assert isinstance(reply, (kind, messages.Prepared))
        return reply

    def ask(self, request: messages.Request, kind: type[Answer], doing: str) -> Answer:
        """Send a request and return its reply. Raises LaunchError."""
        self.send(request)
        return self.receive(kind, doing)

    def build(
        self, request: messages.BuildCase, turn: AbstractContextManager[object], doing: str
    ) -> messages.BuiltReply:
        """Let it build a case; where it is to build in turn, it compiles within `turn`. Raises LaunchError."""
        self.send(request)
        reply = self.receive_or_prepared(messages.BuiltReply, doing)
        if not isinstance(reply, messages.Prepared):
            return reply
        with turn:
            self.ask(messages.GoOn(), messages.Compiled, doing)
        return self.receive(messages.BuiltReply, doing)

    def _receive(self, kinds: tuple[type, ...], doing: str) -> messages.Reply:
        self.ended = True  # a crash or a time-out gives no reply
        line = self._read_line(doing)
        reply = messages.decode_reply(line)
        if isinstance(reply, messages.Failed):
            self.ended = reply.ended
            said = reply.reason if reply.names_case else f"{doing}: {reply.reason}"
            raise LaunchError(said) from (FaultError(reply.reason) if reply.fault else None)
        self.ended = not isinstance(reply, kinds)
        if self.ended:
            raise _failed(f"{doing}: the worker answered with {type(reply).__name__}")
        return reply

    def _read_line(self, doing: str) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + self._timeout_s
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0:
                option = option_of(self._timeout_s)
                advice = f"; raise {option} if it needs longer" if option else ""
                raise _failed(f"{doing}: no answer within {self._timeout_s:.0f} s{advice}")
            if poller.poll(min(left, 1.0) * 1000):
                chunk = os.read(descriptor, 1 << 16)
                if not chunk:
                    raise self._gone(doing)
                self._unread += chunk
            elif self._process.poll() is not None:  # a child that it forked keeps the pipe open
                raise self._gone(doing)
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _gone(self, doing: str) -> LaunchError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        kind = KilledError if self._process.returncode in FROM_OUTSIDE else LaunchError
        return _failed(f"{doing}: {self._epitaph()}", kind)

    def _epitaph(self) -> str:
        code = self._process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            how = f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        else:
            how = f"ended with exit code {code}"
        with contextlib.suppress(OSError):
            said = self._log.read_bytes()[self._said_before :]
            lines = said.decode(errors="replace").strip().splitlines()
            if lines:
                how += f"; last words: {lines[-1].strip()[:200]}"
        return f"the worker was {how}" if how.startswith("killed") else f"the worker {how}"

    def stop(self) -> None:
        """End the process and all its children; whoever awaits its reply sees it gone, and calls `kill`."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the process and all its children, and reap it."""
        self.stop()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()
