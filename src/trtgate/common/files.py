"""Files are written whole or not at all, one process at a time, as JSON that diffs well."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import TrtgateError

LOCK_TIMEOUT_S = 60.0
LINE_LENGTH = 120


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary file beside it, synced, renamed; its mode is kept, a new one's is 0644.

    Raises OSError when that fails (no space left, no permission); what was there stays, and nothing else is left.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
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


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document atomically, as `pretty` has it.

    Raises TrtgateError when that fails (no space left, no permission); what was there stays.
    """
    try:
        write_whole(path, (pretty(document) + "\n").encode())
    except OSError as error:
        raise TrtgateError(
            f"{path} could not be written ({error.strerror}); what was stored there before is unchanged"
        ) from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file that is read, changed and written back. Raises TrtgateError after LOCK_TIMEOUT_S."""
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"trtgate-{os.getuid()}-{name}.lock")
    try:
        with lock.acquire(timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise TrtgateError(f"another process has been writing {path} for {LOCK_TIMEOUT_S:.0f} s; try again") from error


def pretty(value: Any, indent: int = 0) -> str:
    """Return JSON that diffs well: what fits on a line, and lists of numbers, stand on one line."""
    compact = json.dumps(value, ensure_ascii=False, allow_nan=False, default=repr)
    if not isinstance(value, dict | list) or not value or len(compact) + indent <= LINE_LENGTH:
        return compact
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return compact
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        rows = [f"{pad}{json.dumps(str(k), ensure_ascii=False)}: {pretty(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + pretty(item, indent + 1) for item in value) + "\n" + " " * indent + "]"
