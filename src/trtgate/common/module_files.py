"""Where the modules that this process has imported lie: thousands, once torch is one of them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable


def followed() -> Callable[[str], str]:
    """Return a function from a file's path to its path without links, which follows those of each folder once."""

    @functools.cache
    def folder_of(path: str) -> str:
        above, name = os.path.split(path)
        if not name or name in (".", ".."):
            return os.path.realpath(path)
        return _below(folder_of(above), name)

    def follow(file: str) -> str:
        folder, name = os.path.split(file)
        return _below(folder_of(folder), name)

    return follow


def _below(folder: str, name: str) -> str:
    path = os.path.join(folder, name)
    return os.path.realpath(path) if os.path.islink(path) else path
