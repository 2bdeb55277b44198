"""One process times on a device at a time, and none builds meanwhile: a file lock per GPU UUID, or for the CPU."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ..common.errors import TrtgateError
from ..common.explanations import Explanation, explained
from ..common.locks import open_shared, try_lock
from ..common.spent_time import Work, during
from ..common.steps import OnStep
from ..common.time_limit import option_of

POLL_S, SAY_S = 0.2, 1.0
SHARED_FOLDERS = ("/run/lock", "/tmp")  # noqa: S108
"""Where all users of a machine may make files, and remove their own alone."""


def lock_file(device: str) -> Path:
    """Return the lock's path, the same for all users of the machine; TRTGATE_LOCK_DIR overrides the folder.

    TMPDIR does not: users and jobs that have a temporary folder of their own would not see each other.
    """
    own = os.environ.get("TRTGATE_LOCK_DIR")
    folder = own or next((one for one in SHARED_FOLDERS if _all_may_write(one)), None) or tempfile.gettempdir()
    return Path(folder) / f"trtgate-{device.lower()}.lock"


def _all_may_write(folder: str) -> bool:
    try:
        mode = os.stat(folder).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and mode & 0o1007 == 0o1007  # and nobody but its owner may remove a file


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
            more = f", or raise {option}" if (option := option_of(timeout_s)) else ""
            text = f"other trtgate processes have been timing or building on {device} for {waited:.0f} s (lock {path})"
            raise TrtgateError(explained(f"{text}: wait for them to end{more}", Explanation.DEVICE_BUSY))
        if now - said >= SAY_S:
            said = now
            waiting(waited)

    with contextlib.ExitStack() as stack:
        try:
            with during(Work.WAITING), _held(path.with_suffix(".queue"), blocked):
                stack.enter_context(_held(path, blocked, shared=shared))
        except OSError as error:
            text = f"lock {error.filename or path} can't be used ({error.strerror}): let its owner remove it, or set"
            text = f"{text} TRTGATE_LOCK_DIR to a folder that all users of this device can write to"
            raise TrtgateError(explained(text, Explanation.DEVICE_BUSY)) from error
        yield


@contextmanager
def _held(path: Path, blocked: Callable[[], None], *, shared: bool = False) -> Iterator[None]:
    descriptor = open_shared(path)
    try:
        while not try_lock(descriptor, shared=shared):
            time.sleep(POLL_S)
            blocked()
        yield
    finally:
        os.close(descriptor)  # which also unlocks it
