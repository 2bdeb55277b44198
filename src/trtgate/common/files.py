"""Files are written whole or not at all, one process at a time, as JSON that diffs well."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from .errors import TrtgateError
from .explanations import Explanation, explained
from .locks import folder_locked, try_lock

LOCK_TIMEOUT_S = 60.0
LINE_LENGTH = 120
STAGE = "trtgate_stage"
"""Where a run has what a shard measured, or what a merge left to be confirmed: nobody reads it, so it is one line."""


def open_file(path: Path) -> io.BufferedReader:
    """Open a file to read it. Raises OSError, also for what is no regular file: reading a pipe would wait for ever."""
    return open(_opened(path, os.O_RDONLY), "rb")


def create(path: Path) -> io.BufferedWriter:
    """Open a new file, or one that is emptied, to write it. Raises OSError, also for what is no regular file."""
    return open(_opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb")


def _opened(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    os.set_blocking(descriptor, True)
    return descriptor


def read_bytes(path: Path) -> bytes:
    """Read a file, as `open_file` opens it. Raises OSError."""
    with open_file(path) as file:
        return file.read()


def decoded(content: bytes, kind: Any) -> Any:
    """Return JSON as a type. Raises msgspec.DecodeError, also for what is no UTF-8 or nested too deeply."""
    try:
        str(content, "utf-8")  # msgspec passes over the names that a type does not know
        return msgspec.json.decode(content, type=kind)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def key_twice(content: bytes) -> str:
    """Return a key that an object of valid JSON has twice, as a merge may leave it; empty where there is none.

    Readers take the last one, and the other would be lost.
    """
    found = ""

    def unique(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            found = found or max(names, key=names.count)

    json.loads(content, object_pairs_hook=unique)
    return found


def is_there(path: Path) -> bool:
    """Whether something has that name, a link to nothing too. Raises OSError where that can't be known."""
    try:
        path.lstat()
    except FileNotFoundError:
        _refuse_below_link_to_nothing(path)
        return False
    return True


def _refuse_below_link_to_nothing(path: Path) -> None:
    """Raise FileNotFoundError for what a folder would hold that is a link to nothing, as of a disk not mounted."""
    nearest = next((place for place in path.parents if os.path.lexists(place)), None)
    if nearest is not None and not nearest.exists():
        raise FileNotFoundError(errno.ENOENT, "a link to nothing", str(nearest))


def listed(folder: Path, pattern: str = "*") -> list[Path]:
    """Return what lies in a folder, sorted; nothing where there is none. Raises OSError for one that can't be read."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        if folder.is_symlink():
            raise
        _refuse_below_link_to_nothing(folder)
        return []
    return [folder / name for name in sorted(names) if fnmatch.fnmatchcase(name, pattern)]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary file beside it, synced, renamed; its mode is kept, a new one's is 0644.

    What a symbolic link names is written; the link stays. Raises OSError when that fails (no space left, no
    permission); what was there stays, and nothing else is left.
    """
    temporary = None
    try:
        path = Path(os.path.realpath(path))
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with _temporary_for(path) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        else:
            temporary.chmod(0o644)
        temporary.replace(path)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
        raise


def _temporary_for(path: Path) -> Any:
    """Return a new temporary file beside a path, open and locked: it is not abandoned. Raises OSError."""
    named: dict[str, Any] = {"dir": path.parent, "prefix": f".{path.name}-", "delete": False}
    while True:
        file = tempfile.NamedTemporaryFile(**named)  # noqa: SIM115 - who writes closes it
        with contextlib.suppress(OSError):  # a file system without locks: nothing is removed there either
            try_lock(file.fileno())
        if os.path.exists(file.name):
            return file
        file.close()  # another process took it for abandoned before it was locked


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of processes that were killed while they wrote a path."""
    with contextlib.suppress(OSError):
        for left in path.parent.glob(f".{glob.escape(path.name)}-????????"):
            descriptor = _opened(left, os.O_RDONLY | os.O_NOFOLLOW)
            with contextlib.closing(open(descriptor, "rb")):
                if try_lock(descriptor):
                    left.unlink()


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document atomically, as `pretty` has it.

    Raises TrtgateError when that fails (no space left, no permission, no JSON); what was there stays.
    """
    try:
        write_whole(path, (pretty(document) + "\n").encode())
    except RecursionError:
        said = f"{path} could not be written: what it would hold is nested too deeply"
        raise TrtgateError(explained(said, Explanation.FILE_FAULT)) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        said = f"{path} could not be written ({reason}); what was stored there before is unchanged"
        raise TrtgateError(explained(said, Explanation.FILE_FAULT)) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file that is read, changed and written back: that of its folder, which is made if need be.

    What processes that were killed left of such files in the folder is removed. Raises TrtgateError after
    LOCK_TIMEOUT_S, and where the folder can't be made or opened.
    """
    real = Path(os.path.realpath(path))
    with contextlib.ExitStack() as stack:
        try:
            real.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folder_locked(real.parent, LOCK_TIMEOUT_S))
        except OSError as error:
            said = f"{path} could not be written ({error.strerror}); nothing was changed"
            raise TrtgateError(explained(said, Explanation.FILE_FAULT)) from error
        for left in real.parent.glob(".*.json-????????"):  # whoever writes here holds the lock
            with contextlib.suppress(OSError):
                left.unlink()
        yield


def pretty(value: Any, indent: int = 0) -> str:
    """Return JSON that diffs well: what fits on a line, and lists of numbers, stand on one line."""
    compact = _compact(value)
    if not isinstance(value, dict | list) or not value or len(compact) + indent <= LINE_LENGTH:
        return compact
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return compact
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        shown = ((key, _compact(part) if key == STAGE else pretty(part, indent + 1)) for key, part in value.items())
        return (
            "{\n" + ",\n".join(f"{pad}{_compact(str(key))}: {text}" for key, text in shown) + "\n" + " " * indent + "}"
        )
    return "[\n" + ",\n".join(pad + pretty(item, indent + 1) for item in value) + "\n" + " " * indent + "]"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=repr)
