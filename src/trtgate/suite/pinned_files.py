"""Which files the code under test was imported from, and whether they still hold what they held then."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from ..common import module_files
from ..common.sealed_folder import digest as digest_of

INSTALLED = ("site-packages", "dist-packages")
"""Folders of packages that a checkout does not change."""


def digests(root: str) -> dict[str, str]:
    """Return path → SHA-256 of the modules under `root` that this process has imported; installed ones left out."""
    within, follow = os.path.join(os.path.realpath(root), ""), module_files.followed()
    installed = functools.cache(functools.partial(_is_installed, follow))
    modules = [sys.modules.get(name) for name in list(sys.modules) if "." not in name or not installed(_top(name))]
    files = {file for module in modules if (file := getattr(module, "__file__", None)) and file.endswith(".py")}
    ours = sorted({Path(path) for path in map(follow, files) if path.startswith(within)})
    return {str(path): digest_of(path) for path in ours if not set(INSTALLED) & set(path.parts) and path.is_file()}


def _top(name: str) -> str:
    return name[: name.index(".")]


def _is_installed(follow: Callable[[str], str], package: str) -> bool:
    """Whether a package's modules are installed with it: torch alone has 2000 of them, none of which is looked at then.

    A package without a file may lie in several folders, one with a file may have a checkout's folder beside its own,
    and one that is installed as a link lies where that leads.
    """
    known = getattr(sys.modules.get(package), "__dict__", {})  # some modules make up what they do not have
    file = known.get("__file__")
    places = [file, *(known.get("__path__") or ())]
    return file is not None and all(not set(INSTALLED).isdisjoint(follow(place).split(os.sep)) for place in places)


def changed(pinned: Mapping[str, str]) -> list[str]:
    """Return the files that have another content now, or are gone. Raises OSError for what can't be read."""
    return [path for path, digest in pinned.items() if not Path(path).is_file() or digest_of(Path(path)) != digest]
