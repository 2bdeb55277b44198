"""A saved run while it grows: valid JSON after every case, and each case is written once.

A case takes the place of the file's last line, which ends the document, and that line follows it anew. A process that
is killed in the middle of that leaves a line cut short, and `repaired` leaves it out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .files import write_whole

TAIL = b"\n]}\n"
UNFINISHED = "unfinished"
"""The mark of a run that goes on, or was killed; in `trtgate`, which comes first."""
_HEAD = f'{{"trtgate": {{"{UNFINISHED}": true'.encode()


class GrowingRun:
    """A new file with what a document says of a run, without its benchmarks. Raises OSError."""

    def __init__(self, path: Path, document: Mapping[str, Any]) -> None:
        self.path = path
        self._empty = True
        others = {name: value for name, value in document.items() if name not in ("trtgate", "benchmarks")}
        marked = {"trtgate": {UNFINISHED: True, **document["trtgate"]}, **others}
        write_whole(path, _line(marked)[:-1] + b', "benchmarks": [' + TAIL)
        self._end = path.stat().st_size

    def add(self, benchmarks: Sequence[Any]) -> None:
        """Write benchmarks, a line each. Raises OSError; the file is then as it was."""
        content = b"".join(b",\n"[self._empty and not number :] + _line(one) for number, one in enumerate(benchmarks))
        start = self._end - len(TAIL)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            self._end = _write(descriptor, content + TAIL, start)
        except OSError:
            _write(descriptor, TAIL, start)
            os.ftruncate(descriptor, self._end)
            raise
        finally:
            os.close(descriptor)
        self._empty = self._empty and not benchmarks


def repaired(content: bytes) -> bytes:
    """Return a file's content; of a run whose last line a kill cut short, all lines that are whole."""
    if not content.startswith(_HEAD) or content.endswith(TAIL):
        return content
    head, *lines = content.decode(errors="replace").split("\n")
    whole = []
    for line in lines:
        try:
            whole.append(json.dumps(json.JSONDecoder().raw_decode(line)[0]))
        except (ValueError, RecursionError):
            continue
    return "\n".join((head, ",\n".join(whole))).encode() + TAIL


def _write(descriptor: int, content: bytes, start: int) -> int:
    """Write everything at a place of a file; returns where it ends. Raises OSError."""
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], start + written)
    return start + written


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=repr).encode()
