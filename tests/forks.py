"""A fork server: the Python processes that tests start have imported torch, pytest and trtgate when they begin.

`forked()` replaces `subprocess.Popen`. A command of this Python (`-m pytest`, `-m trtgate.worker`, `-c ...`, a script
beside the interpreter) becomes a fork of the server; every other command is started as usual. A fork is a process of
its own, with its own modules, environment, signals and exit status: it saves the seconds in which an interpreter starts
and imports. Where its path leads to another trtgate than the server's, it forgets that one. `subprocess.Popen` is
replaced in a fork too, so workers of a forked pytest are forks; but not in one with a session of its own, since the
server can't put a process into that.

This is what asks for forks; `fork_server.py` is the server.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""For the server: a process with threads is not to be forked."""
SERVER = Path(__file__).with_name("fork_server.py")
SERVES = "import runpy, sys; sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
TORCH, TORCH_TENSORRT = "torch", "torch_tensorrt"
LONGEST_MESSAGE = 1 << 17
READY = "ready\n"
real_popen = subprocess.Popen
servers: dict[str, str] = {}
"""What was imported → the socket of the server that has."""
started: list[int] = []
"""The process ids of all forks that this process asked for."""


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """As `subprocess.Popen`; the process is a fork of the server where the command is one of this Python."""

    _connection: socket.socket | None = None

    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *others,
    ):  # fmt: skip
        known = None if shell or preexec_fn or pass_fds or executable else _python_arguments(args)
        if known is None:
            return super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
                p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *others,
            )  # fmt: skip
        message = {
            "arguments": known,
            "directory": os.fspath(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "new_session": bool(others[-2]),
            "servers": servers,
        }
        inherited = [own if given == -1 else given for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        self._connection = _asked(message, inherited)
        if not (pid := _received(self._connection)):
            raise RuntimeError("the server of forks is gone: what it printed says why")
        self.pid = int(pid)
        self._child_created = True
        started.append(self.pid)
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]
        return None

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._connection is None:
            return super()._try_wait(wait_flags)  # type: ignore[misc, no-any-return]
        if wait_flags & os.WNOHANG and not _readable(self._connection):
            return 0, 0
        status = _received(self._connection)
        self._connection.close()
        return self.pid, int(status or signal.SIGKILL)  # a server that is gone took its forks with it

    def _internal_poll(self, *arguments: Any, **keywords: Any) -> int | None:
        if self._connection is None:
            return super()._internal_poll(*arguments, **keywords)  # type: ignore[misc, no-any-return]
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                pid, status = (0, 0) if self.returncode is not None else self._try_wait(os.WNOHANG)
                if pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


def _python_arguments(command: Any) -> list[str] | None:
    """Return what this Python is asked to run, options first; None if that is another program, or not for a fork."""
    if isinstance(command, str | bytes | os.PathLike):
        return None
    first, *others = map(os.fspath, command)
    if Path(first).parent == Path(sys.executable).parent and _is_script(first):
        return [first, *others]
    at = next((at for at, text in enumerate(others) if text not in ("-P", "-u")), len(others))
    wanted = others[at] if first == sys.executable and at < len(others) else ""
    if wanted.startswith("-m") and len(wanted) > 2:
        return [*others[:at], "-m", wanted[2:], *others[at + 1 :]]
    return others if wanted in ("-m", "-c") else None


def _is_script(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(2) == b"#!" and b"python" in file.readline()
    except OSError:
        return False


def _asked(message: Mapping[str, Any], inherited: Sequence[int]) -> socket.socket:
    """Send a request to the server that has imported the most; returns the connection."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(servers.get(TORCH_TENSORRT) or servers[TORCH])
    socket.send_fds(connection, [json.dumps(message).encode()], inherited)
    return connection


def _received(connection: socket.socket) -> str:
    try:
        return connection.recv(64).decode()
    except ConnectionResetError:
        return ""


def _readable(connection: socket.socket) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        return bool(selector.select(0))


@contextlib.contextmanager
def served(folder: Path, imported: str) -> Iterator[str]:
    """Within: a server imports torch, or torch_tensorrt too, at the first request; returns its socket's path.

    It is a fork itself within `forked()`: a server of torch_tensorrt then has torch at once.
    """
    path = folder / f"{imported}.socket"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= ONE_THREAD | {"CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # every fork imports trtgate, which is compiled once
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", SERVES, str(SERVER), str(path), imported],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if process.stdout.readline() != READY:
            raise RuntimeError(f"the server of forks ended with {process.wait()}")
        yield str(path)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def forked(sockets: Mapping[str, str]) -> Iterator[None]:
    """Within: `subprocess.Popen` makes forks of the servers at the sockets."""
    before = dict(servers)
    servers.update(sockets)
    subprocess.Popen = Popen  # type: ignore[misc]
    try:
        yield
    finally:
        servers.clear()
        servers.update(before)
        subprocess.Popen = Popen if before else real_popen  # type: ignore[misc]
