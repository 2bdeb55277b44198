"""File operations that fail: a file system that can't be written, and a single operation that goes wrong.

A test may run as root, whom no permission holds back, so the operations themselves fail.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trtgate

PACKAGE = str(Path(trtgate.__file__).parent)
CHANGING = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "link", "utime", "chmod")
READING = ("listdir", "scandir", "stat")

Hook = Callable[[str, Path], None]
"""Is told the name of an operation, with "+" where it opens for writing, and its path; raises what goes wrong."""


def watch(monkeypatch: pytest.MonkeyPatch, hook: Hook) -> None:
    """Let a hook see every file operation of this process before it is done."""

    def wrapped(name: str, original: Any) -> Any:
        def operation(path: Any = ".", *arguments: Any, **named: Any) -> Any:
            if isinstance(path, str | bytes | os.PathLike) and "dir_fd" not in named:
                hook(name + _writing(name, arguments, named), Path(os.path.abspath(os.fsdecode(path))))
            return original(path, *arguments, **named)

        return operation

    for name in (*CHANGING, *READING, "open"):
        monkeypatch.setattr(os, name, wrapped(name, getattr(os, name)))
    opened = wrapped("open", io.open)
    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr(builtins, "open", opened)


def _writing(name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
    mode = named.get("mode", arguments[0] if arguments else "r") if name == "open" else ""
    if isinstance(mode, str):
        return "+" * bool(set(mode) & set("wax+"))
    return "+" * bool(mode & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def read_only(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let nothing below a folder be written, made or removed."""

    def hook(name: str, path: Path) -> None:
        if (name in CHANGING or name == "open+") and path.is_relative_to(folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    watch(monkeypatch, hook)


def is_ours() -> bool:
    """Whether this package asked for the operation, itself or through the standard library."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            return True
        if "site-packages" in name:
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False
