"""One process times on a device at a time, and none builds meanwhile: a file lock per GPU UUID, or for the CPU."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..common.errors import TrtgateError
from ..common.steps import OnStep
from ..common.time_limit import option_of

POLL_S, SAY_S = 0.2, 1.0


def lock_file(device: str) -> Path:
    """Return the lock's path, the same for all users of the machine; TRTGATE_LOCK_DIR overrides the folder."""
    folder = os.environ.get("TRTGATE_LOCK_DIR") or tempfile.gettempdir()
    return Path(folder) / f"trtgate-{device.lower()}.lock"


def device_turn(device: str, timeout_s: float, step: OnStep, *, shared: bool = False) -> AbstractContextManager[None]:
    """Hold the lock of a device, and say as a step how long it has been waited for; as `device_lock` otherwise."""
    return device_lock(device, timeout_s, lambda waited: step(f"waiting for the device, {waited:.0f} s"), shared=shared)


@contextmanager
def device_lock(
    device: str, timeout_s: float, waiting: Callable[[float], None], *, shared: bool = False
) -> Iterator[None]:
    """Hold the lock of a device (a GPU's UUID or "cpu"); `waiting` is told the seconds waited so far.

    Who times holds it alone; who builds or loads shares it with others who do. They queue at a second lock, so that
    builders who come one after the other keep no one from timing for ever.
    Raises TrtgateError when others keep it longer than `timeout_s`, or the file can't be opened.
    """
    path = lock_file(device)
    start = said = time.monotonic()

    def blocked() -> None:
        nonlocal said
        now = time.monotonic()
        waited = now - start
        if waited >= timeout_s:
            raise TrtgateError(
                f"other trtgate processes have been timing or building on {device} for {waited:.0f} s (lock {path}): "
                f"wait for them to end{f', or raise {option}' if (option := option_of(timeout_s)) else ''}"
            )
        if now - said >= SAY_S:
            said = now
            waiting(waited)

    with contextlib.ExitStack() as stack:
        try:
            with _queued(path.with_suffix(".queue"), blocked):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                stack.callback(os.close, descriptor)  # which also unlocks it
                while not _locked(descriptor, shared=shared):
                    time.sleep(POLL_S)
                    blocked()
        except OSError as error:
            raise TrtgateError(
                f"lock {path} can't be opened ({error.strerror}): set TRTGATE_LOCK_DIR to a folder that all users "
                "of this device can write to"
            ) from error
        yield


@contextmanager
def _queued(path: Path, blocked: Callable[[], None]) -> Iterator[None]:
    lock = FileLock(path, mode=0o666)
    while True:
        try:
            lock.acquire(timeout=POLL_S)
            break
        except Timeout:
            blocked()
    try:
        yield
    finally:
        lock.release()


def _locked(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
