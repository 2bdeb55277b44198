"""Which files the code under test was imported from, and whether they still hold what they held then."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")
"""Folders of packages that a checkout does not change."""


def digests(root: str) -> dict[str, str]:
    """Return path → SHA-256 of the modules under `root` that this process has imported; installed ones left out."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    within = Path(root).resolve()
    found = (Path(file).resolve() for file in files if file and file.endswith(".py"))
    ours = {path for path in found if path.is_relative_to(within) and not set(INSTALLED) & set(path.parts)}
    return {str(path): _digest(path) for path in sorted(ours) if path.is_file()}


def changed(pinned: Mapping[str, str]) -> list[str]:
    """Return the files that have another content now, or are gone. Raises OSError for what can't be read."""
    return [path for path, digest in pinned.items() if not Path(path).is_file() or _digest(Path(path)) != digest]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
