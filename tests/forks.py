"""A fork server: the Python processes that tests start have imported torch and pytest when they begin.

`forked()` replaces `subprocess.Popen`. A command of this Python (`-m pytest`, `-m trtgate.worker`, `-c ...`, a script
beside the interpreter) becomes a fork of the server; every other command is started as usual. A fork is a process of
its own, with its own modules, environment, signals and exit status, and it imports trtgate itself: it saves the seconds
in which an interpreter starts and imports torch. `subprocess.Popen` is replaced in a fork too, so workers of a forked
pytest are forks; but not in one with a session of its own, since the server can't put a process into that.

Run as a script this file is the server: `python -P forks.py SOCKET torch|torch_tensorrt`.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

IMPORTED = (
    "torch", "numpy", "scipy.stats", "msgspec", "rich.console", "rich.table", "typer", "filelock", "iniconfig",
    "packaging.requirements", "pynvml", "psutil", "pytest", "_pytest.junitxml", "_pytest.pytester", "_pytest.unittest",
    "pdb", "pytest_benchmark.plugin", "pytest_benchmark.storage.file", "pytest_timeout", "execnet.gateway",
    "xdist.plugin", "xdist.looponfail", "xml.etree.ElementTree",
)  # fmt: skip
"""What the server imports; nothing of trtgate, whose tests these are."""
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""For the server: a process with threads is not to be forked."""
PR_SET_PDEATHSIG = 1
TORCH, TORCH_TENSORRT = "torch", "torch_tensorrt"
LONGEST_MESSAGE = 1 << 17
real_popen = subprocess.Popen
servers: dict[str, str] = {}
"""What was imported → the socket of the server that has."""
started: list[int] = []
"""The process ids of all forks that this process asked for."""


# In the processes that start others


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
        self.pid = int(_received(self._connection))
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
    """Within: a server is at work that has imported torch, or torch_tensorrt too; returns its socket's path."""
    path = folder / f"{imported}.socket"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= ONE_THREAD | {"CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # every fork imports trtgate, which is compiled once
    process = real_popen(
        [sys.executable, "-P", __file__, str(path), imported],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
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


# The server

READY = "ready\n"


def serve(path: str, imported: str) -> NoReturn:
    """Fork for every request; who asked is told the process id, and the status when the fork has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for name in IMPORTED:
        importlib.import_module(name)
        package = sys.modules[name.partition(".")[0]]
        package.__doc__ = f"{package.__doc__} PYTEST_DONT_REWRITE"  # else pytest warns that it comes too late for that
    if imported == TORCH_TENSORRT:
        _import_torch_tensorrt()
    gc.collect()
    gc.freeze()  # for good: a collection that passed over all of torch would take a fork 0.2 s, and pytest asks for two
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(path)
    listening.listen(64)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    sys.stdout.write(READY)
    sys.stdout.flush()
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                _fork(listening, selector)
            else:
                _tell_the_end(key, selector)


def _tell_the_end(key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
    pid, connection = key.data
    _, status = os.waitpid(pid, 0)
    selector.unregister(key.fileobj)
    os.close(key.fd)
    with contextlib.suppress(OSError), connection:
        connection.send(str(status).encode())


def _import_torch_tensorrt() -> None:
    """Import it as trtgate does where there is no GPU, and forget trtgate."""
    dry = importlib.import_module("trtgate.torch_trt.dry")
    with dry.stand_in():
        importlib.import_module("torch_tensorrt")
    for name in [name for name in sys.modules if name.partition(".")[0] == "trtgate"]:
        del sys.modules[name]


def _fork(listening: socket.socket, selector: selectors.BaseSelector) -> None:
    connection, _ = listening.accept()
    content, inherited, _, _ = socket.recv_fds(connection, LONGEST_MESSAGE, 3)
    pid = os.fork()
    if pid == 0:
        message = json.loads(content)
        if message["new_session"]:
            os.setsid()
        connection.send(str(os.getpid()).encode())  # now it can be killed, as a session too
        connection.close()
        for key in list(selector.get_map().values()):
            os.close(key.fd)
            if key.data is not None:
                key.data[1].close()
        selector.close()
        _become(message, inherited)
    for descriptor in inherited:
        os.close(descriptor)
    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, connection))


# A fork


def _become(message: dict[str, Any], inherited: Sequence[int]) -> NoReturn:
    """Be the process that was asked for, and end as it does."""
    for own, given in enumerate(inherited):
        os.dup2(given, own)
        os.close(given)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(message["directory"])
    os.environ.clear()
    os.environ.update(message["environment"])
    sys.path[:0] = [
        entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry not in ("", *sys.path)
    ]
    if not message["new_session"]:
        servers.update(message["servers"])
        subprocess.Popen = Popen  # type: ignore[misc]
    status = 1
    try:
        _run(message["arguments"])
        status = 0
    except SystemExit as error:
        status = _status_of(error)
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)


def _run(command: list[str]) -> None:
    safe_path = "-P" in command[:2]
    what, *arguments = command = [text for text in command[:2] if text not in ("-P", "-u")] + command[2:]
    if what == "-m":
        name, *sys.argv[1:] = arguments
        sys.path[:0] = [] if safe_path else [str(Path.cwd())]
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif what == "-c":
        code, *arguments = arguments
        sys.argv = ["-c", *arguments]
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    else:
        sys.argv = command
        sys.path.insert(0, str(Path(what).parent))
        runpy.run_path(what, run_name="__main__")


def _status_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    serve(*sys.argv[1:])
