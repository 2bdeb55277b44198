"""Locks that end with their process: `flock` on a folder itself, or on a file that users share.

A lock on a folder leaves no file behind, lies with what it guards, and holds between containers that share the folder,
whose process ids mean nothing to each other. Network file systems that can't lock a folder get a file in it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import TrtgateError
from .explanations import Explanation, explained

POLL_S = 0.05
LOCK_FILE = ".trtgate-lock"
"""In a folder that can't be locked itself (NFS)."""
NOT_LOCKABLE = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP)
SHARED_FILE_MODE = 0o666


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file or folder if nobody holds it. Raises OSError where it can't be locked."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_shared(path: Path) -> int:
    """Open a lock file that all users of a machine share; returns a descriptor, which `try_lock` takes.

    It may lie in a folder that everybody may write, so a symbolic link is not followed, nothing but a regular file is
    opened, and no mode is changed but that of a file made here. A file of another user's that can only be read can be
    locked all the same. Raises OSError.
    """
    flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | flags)
        except FileNotFoundError:
            try:  # O_EXCL: where fs.protected_regular is set, O_CREAT may not open another user's file
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, SHARED_FILE_MODE)
            except FileExistsError:
                continue
            os.fchmod(descriptor, SHARED_FILE_MODE)  # what the umask took
        except PermissionError:
            descriptor = os.open(path, os.O_RDONLY | flags)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _try_lock_folder(folder: Path) -> int | None:
    """Return a descriptor that holds a folder's lock; None where another holds it. Raises OSError."""
    descriptor = _open_folder(folder)
    try:
        if try_lock(descriptor):
            return descriptor
    except OSError as error:
        os.close(descriptor)
        if error.errno not in NOT_LOCKABLE:
            raise
        descriptor = open_shared(folder / LOCK_FILE)
        if try_lock(descriptor):
            return descriptor
    os.close(descriptor)
    return None


@contextlib.contextmanager
def folder_locked(folder: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock of a folder. Raises TrtgateError after `timeout_s`, OSError for a folder that can't be opened."""
    deadline = time.monotonic() + timeout_s
    real = Path(os.path.realpath(folder))  # resolve() raises RuntimeError for a link to itself
    while (descriptor := _try_lock_folder(real)) is None:
        if time.monotonic() >= deadline:
            said = f"another process has been writing in {folder} for {timeout_s:.0f} s; try again"
            raise TrtgateError(explained(said, Explanation.DEVICE_BUSY))
        time.sleep(POLL_S)
    try:
        yield
    finally:
        os.close(descriptor)


class ClaimedFolder:
    """A new private folder (0700) `<kind>-*` in `parent`, held by a lock for as long as this process lives.

    `remove` removes it and what is in it. `remove_abandoned` removes those of processes that ended without. Raises
    OSError.
    """

    def __init__(self, parent: Path, kind: str) -> None:
        self._held: int | None = None
        while self._held is None:  # again where another process took it for abandoned before it was locked
            self.path = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=parent))
            with contextlib.suppress(FileNotFoundError):
                self._held = _try_lock_folder(self.path)
            if self._held is not None and not self.path.exists():
                os.close(self._held)
                self._held = None

    def remove(self) -> None:
        """Remove the folder, and let go of it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._held is not None:
            os.close(self._held)
            self._held = None


def remove_abandoned(parent: Path, kind: str) -> list[Path]:
    """Remove `<kind>-*` of processes that ended without removing them; returns what was removed."""
    gone = []
    for path in sorted(parent.glob(f"{kind}-*")):
        with contextlib.suppress(OSError):
            held = _try_lock_folder(path)
            if held is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(held)
                gone.append(path)
    return gone
