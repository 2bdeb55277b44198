"""Which files the code under test was imported from, and whether they still hold what they held then."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ..common import module_files

INSTALLED = ("site-packages", "dist-packages")
"""Folders of packages that a checkout does not change."""


def digests(root: str) -> dict[str, str]:
    """Return path → SHA-256 of the modules under `root` that this process has imported; installed ones left out."""
    within, follow = os.path.join(os.path.realpath(root), ""), module_files.followed()
    modules = [sys.modules.get(name) for name in list(sys.modules) if not _is_of_installed_package(name, follow)]
    files = {file for module in modules if (file := getattr(module, "__file__", None)) and file.endswith(".py")}
    ours = sorted({Path(path) for path in map(follow, files) if path.startswith(within)})
    return {str(path): _digest(path) for path in ours if not set(INSTALLED) & set(path.parts) and path.is_file()}


def _is_of_installed_package(name: str, follow: Callable[[str], str]) -> bool:
    """Whether a module is one of a package's, and that one is installed: torch alone has 2000 of them.

    A package without a file may lie in several folders, and one that is installed as a link lies where that leads.
    """
    top, _, below = name.partition(".")
    file = getattr(sys.modules.get(top), "__file__", None) if below else None
    return file is not None and not set(INSTALLED).isdisjoint(follow(file).split(os.sep))


def changed(pinned: Mapping[str, str]) -> list[str]:
    """Return the files that have another content now, or are gone. Raises OSError for what can't be read."""
    return [path for path, digest in pinned.items() if not Path(path).is_file() or _digest(Path(path)) != digest]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
