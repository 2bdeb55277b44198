"""One process times on a device at a time, whatever else runs: a file lock per GPU UUID, or for the CPU."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import TrtgateError


def lock_file(device: str) -> Path:
    """Return the lock's path, the same for all users of the machine; TRTGATE_LOCK_DIR overrides the folder."""
    folder = os.environ.get("TRTGATE_LOCK_DIR") or tempfile.gettempdir()
    return Path(folder) / f"trtgate-{device.lower()}.lock"


def device_turn(device: str, timeout_s: float, step: Callable[[str], None]) -> AbstractContextManager[None]:
    """Hold the lock of a device, and say as a step how long it has been waited for; as `device_lock` otherwise."""
    return device_lock(device, timeout_s, lambda waited: step(f"waiting for the device, {waited:.0f} s"))


@contextmanager
def device_lock(device: str, timeout_s: float, waiting: Callable[[float], None]) -> Iterator[None]:
    """Hold the lock of a device (a GPU's UUID or "cpu"); `waiting` is told the seconds waited so far.

    Raises TrtgateError when another process keeps it longer than `timeout_s`, or the file can't be opened.
    """
    path = lock_file(device)
    lock = FileLock(path, mode=0o666)
    start = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=1)
            break
        except Timeout:
            waited = time.monotonic() - start
            if waited >= timeout_s:
                raise TrtgateError(
                    f"another trtgate process has been timing on {device} for {waited:.0f} s (lock {path}): "
                    "wait for it to end, or raise --trtgate-timeout"
                ) from None
            waiting(waited)
        except OSError as error:
            raise TrtgateError(
                f"lock {path} can't be opened ({error.strerror}): set TRTGATE_LOCK_DIR to a folder that all users "
                "of this device can write to"
            ) from error
    try:
        yield
    finally:
        lock.release()
