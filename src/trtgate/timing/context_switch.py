"""A process that uses the GPU for a moment when it is asked: only another process's work sets the GPU's state anew.

`python -m trtgate.timing.context_switch NAME` serves until its standard input closes. NAME is of Linux's abstract
sockets: no file is left behind. It talks to processes of its own user alone, and talks CUDA's driver API itself:
importing torch would take seconds and half a gigabyte of the device. docs/gpu-states.md says what it is for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

PTX = b""".version 7.0
.target sm_50
.address_size 64
.visible .entry spin(.param .u64 cycles)
{
    .reg .pred %more;
    .reg .u64 %wanted, %begin, %now;
    ld.param.u64 %wanted, [cycles];
    mov.u64 %begin, %clock64;
again:
    mov.u64 %now, %clock64;
    sub.u64 %now, %now, %begin;
    setp.lt.u64 %more, %now, %wanted;
    @%more bra again;
    ret;
}
"""
KERNELS, CYCLES = 8, 200_000
"""About a millisecond of work."""
ANSWER_S = 60.0
"""For an answer; before the first the process takes the device."""
CONNECTING_S = 10.0
_CREDENTIALS = struct.Struct("3i")


class SwitchError(Exception):
    """No other process could use the GPU; the message says why."""


class ContextSwitcher:
    """The process, seen from who starts it; `name` is what `switch` takes. It ends with `close`, or with us."""

    def __init__(self, uuid: str) -> None:
        self.name = f"trtgate-{os.getpid()}-{secrets.token_hex(8)}"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "trtgate.timing.context_switch", self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": uuid, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            start_new_session=True,
        )

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def switch(name: str, ratio: float = 0.0) -> float:
    """Let the process called `name` run a few kernels, and wait for them.

    `ratio` is how far apart this process saw two states of the GPU; returned is the largest that any has told. Raises
    SwitchError.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_S)
            _connect(connection, "\0" + name)
            if _user_of(connection) != os.getuid():
                raise SwitchError("its socket is another user's")
            connection.sendall(f"{ratio!r}\n".encode())
            answer = connection.makefile("r").readline()
    except OSError as error:
        raise SwitchError(f"no process to switch to answers ({error.strerror or error})") from error
    kind, _, value = answer.strip().partition(" ")
    if kind != "largest":
        raise SwitchError(value or "the process to switch to ended")
    return float(value)


def _connect(connection: socket.socket, address: str) -> None:
    """Connect, waiting for a process that has just been started."""
    until = time.monotonic() + CONNECTING_S
    while True:
        try:
            return connection.connect(address)
        except ConnectionRefusedError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.02)


def _user_of(connection: socket.socket) -> int:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def serve(name: str, work: Callable[[], None]) -> None:
    """Answer one request after the other: do `work`, say the largest ratio that was told so far."""
    largest = 0.0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind("\0" + name)
        listening.listen(64)
        while True:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError, ValueError):
                connection.settimeout(5)
                if _user_of(connection) != os.getuid():
                    continue
                largest = max(largest, float(connection.makefile("r").readline()))
                try:
                    work()
                    answer = f"largest {largest!r}"
                except SwitchError as error:
                    answer = f"failed {error}"
                connection.sendall(f"{answer}\n".encode())


class Kernels:
    """A CUDA context of its own, taken at the first call, and a few spinning kernels in it."""

    def __init__(self) -> None:
        self._function: ctypes.c_void_p | None = None
        self._driver: ctypes.CDLL | None = None

    def __call__(self) -> None:
        """Run them, and wait. Raises SwitchError."""
        if self._function is None:
            self._function = self._taken()
        cycles = ctypes.c_uint64(CYCLES)
        parameters = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(cycles), ctypes.c_void_p))
        for _ in range(KERNELS):
            self._ask("cuLaunchKernel", self._function, 1, 1, 1, 1, 1, 1, 0, None, parameters, None)
        self._ask("cuCtxSynchronize")

    def _taken(self) -> ctypes.c_void_p:
        try:
            self._driver = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise SwitchError("there is no NVIDIA driver") from error
        device, context, module, function = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
        self._ask("cuInit", 0)
        self._ask("cuDeviceGet", ctypes.byref(device), 0)
        self._ask("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._ask("cuCtxSetCurrent", context)
        self._ask("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(PTX))
        self._ask("cuModuleGetFunction", ctypes.byref(function), module, b"spin")
        return function

    def _ask(self, name: str, *arguments: object) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code:
            raise SwitchError(f"{name} gave CUDA error {code}")


def main(name: str) -> None:
    """Serve in a thread until standard input closes: whoever started this has ended."""
    threading.Thread(target=serve, args=(name, Kernels()), daemon=True).start()
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
