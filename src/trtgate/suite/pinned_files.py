"""Which files the code under test was imported from, and whether they still hold what they held then."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")
"""Folders of packages that a checkout does not change."""


def digests(root: str) -> dict[str, str]:
    """Return path → SHA-256 of the modules under `root` that this process has imported; installed ones left out."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    within = os.path.join(os.path.realpath(root), "")
    real = functools.cache(os.path.realpath)  # a process that imported torch has 2000 modules, in 300 folders
    found = (_resolved(file, real) for file in files if file and file.endswith(".py"))
    ours = sorted({Path(path) for path in found if path.startswith(within)})
    return {str(path): _digest(path) for path in ours if not set(INSTALLED) & set(path.parts) and path.is_file()}


def _resolved(file: str, real: Callable[[str], str]) -> str:
    """Return a file's path without links; `real` says so of the folder that it lies in."""
    folder, name = os.path.split(file)
    path = os.path.join(real(folder), name)
    return os.path.realpath(path) if os.path.islink(path) else path


def changed(pinned: Mapping[str, str]) -> list[str]:
    """Return the files that have another content now, or are gone. Raises OSError for what can't be read."""
    return [path for path, digest in pinned.items() if not Path(path).is_file() or _digest(Path(path)) != digest]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
