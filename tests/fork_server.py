"""The server of `forks.py`: imports what is slow when first asked, forks for every request, and says when that ended.

`fork_server.py SOCKET torch|torch_tensorrt`
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import ctypes
import functools
import gc
import importlib
import importlib.machinery
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parent))
forks = importlib.import_module("forks")
del sys.path[0]

IMPORTED = (
    "torch", "torch._dynamo", "torch.export._trace", "torch._inductor.compile_fx",
    "numpy", "scipy.stats", "msgspec", "rich.console", "rich.table", "typer", "iniconfig",
    "packaging.requirements", "pynvml", "psutil", "pytest", "_pytest.junitxml", "_pytest.pytester", "_pytest.unittest",
    "pdb", "pytest_benchmark.plugin", "pytest_benchmark.storage.file", "pytest_timeout", "execnet.gateway",
    "xdist.plugin", "xdist.looponfail", "xdist.newhooks", "xml.etree.ElementTree", "pytest_benchmark.hookspec",
    "_pytest._argcomplete", "_pytest.faulthandler", "_pytest.helpconfig", "_pytest.pastebin", "_pytest.setuponly",
    "_pytest.setupplan", "_pytest.skipping", "_pytest.threadexception", "_pytest.tracemalloc",
    "_pytest.unraisableexception", "_pytest.warnings", "rich._emoji_codes", "_pytest.stepwise", "anyio.pytest_plugin",
    "pydantic.json_schema",
)  # fmt: skip
"""What the server imports, of others."""
LEFT_OUT = ("trtgate.__main__", "trtgate.worker", "trtgate.commands")
"""Of trtgate: what `python -m` runs, and commands, which import what few need."""
PR_SET_PDEATHSIG = 1


def serve(path: str, imported: str) -> NoReturn:
    """Fork for every request; who asked is told the process id, and the status when the fork has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(path)
    listening.listen(64)
    sys.stdout.write(forks.READY)
    sys.stdout.flush()
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    selector.select()
    _import_what_is_slow(imported)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                _fork(listening, selector)
            else:
                _tell_the_end(key, selector)


def _import_what_is_slow(imported: str) -> None:
    gc.disable()  # what is imported is no garbage
    for name in IMPORTED:
        importlib.import_module(name)
        package = sys.modules[name.partition(".")[0]]
        package.__doc__ = f"{package.__doc__} PYTEST_DONT_REWRITE"  # else pytest warns that it comes too late for that
    if imported == forks.TORCH_TENSORRT:
        _import_torch_tensorrt()
    _ask_for_the_cpu_once()
    _import_trtgate()
    _leave_the_end_to_forks()
    gc.collect()
    gc.freeze()  # for good: a collection that passed over all of torch would take a fork 0.2 s, and pytest asks for two
    gc.enable()


def _tell_the_end(key: selectors.SelectorKey, selector: selectors.BaseSelector) -> None:
    pid, connection = key.data
    _, status = os.waitpid(pid, 0)
    selector.unregister(key.fileobj)
    os.close(key.fd)
    with contextlib.suppress(OSError), connection:
        connection.send(str(status).encode())


def _leave_the_end_to_forks() -> None:
    """Let no fork take down, when it ends, what the server's imports made in torch: a quarter of what it does.

    What a fork itself registers or makes is called as ever.
    """
    for one in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        one.atexit = False  # torch's libraries of operators
    atexit.unregister(importlib.import_module("torch._dynamo.utils").dump_compile_times)


def _ask_for_the_cpu_once() -> None:
    """Let every fork know what this CPU is: pytest-benchmark asks, and that takes three processes."""
    cpuinfo = importlib.import_module("cpuinfo")
    cpuinfo.get_cpu_info = functools.partial(copy.deepcopy, cpuinfo.get_cpu_info())


def _import_torch_tensorrt() -> None:
    """Import it as trtgate does where there is no GPU, and forget trtgate, which may have patched something."""
    gpu = importlib.import_module("trtgate.torch_trt.gpu_stand_in")
    with gpu.stand_in():
        importlib.import_module("torch_tensorrt")
    _forget_trtgate()


def _import_trtgate() -> None:
    """Import the modules of trtgate that a run or a worker needs, a third of what a short run costs; nothing is called.

    A fork that would import it from elsewhere forgets them.
    """
    trtgate = importlib.import_module("trtgate")
    for module in pkgutil.walk_packages(trtgate.__path__, "trtgate."):
        if not module.name.startswith(LEFT_OUT):
            importlib.import_module(module.name)
    trtgate.__doc__ = f"{trtgate.__doc__} PYTEST_DONT_REWRITE"


def _forget_trtgate() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "trtgate"]:
        del sys.modules[name]


def _forget_trtgate_of_elsewhere() -> None:
    found = importlib.machinery.PathFinder.find_spec("trtgate", sys.path)
    if found is None or found.origin != sys.modules["trtgate"].__file__:
        _forget_trtgate()


def _fork(listening: socket.socket, selector: selectors.BaseSelector) -> None:
    connection, _ = listening.accept()
    content, inherited, _, _ = socket.recv_fds(connection, forks.LONGEST_MESSAGE, 3)
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


def _become(message: dict[str, Any], inherited: Sequence[int]) -> NoReturn:
    """Be the process that was asked for, and end as it does."""
    for own, given in enumerate(inherited):
        os.dup2(given, own)
        os.close(given)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(message["directory"])
    os.environ.clear()
    os.environ.update(message["environment"])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = [os.path.abspath(entry) for entry in given if entry]  # as Python's site does
    sys.path[:0] = [entry for entry in absolute if entry not in sys.path]
    if not message["new_session"]:
        forks.servers.update(message["servers"])
        subprocess.Popen = forks.Popen  # type: ignore[misc]
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
        _forget_trtgate_of_elsewhere()
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif what == "-c":
        code, *arguments = arguments
        sys.argv = ["-c", *arguments]
        sys.path[:0] = [] if safe_path else [""]
        _forget_trtgate_of_elsewhere()
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), main.__dict__)
    else:
        sys.argv = command
        sys.path.insert(0, str(Path(what).parent))
        _forget_trtgate_of_elsewhere()
        runpy.run_path(what, run_name="__main__")


def _status_of(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    serve(*sys.argv[1:])
