"""Where the user's own files go, by the XDG Base Directory Specification."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import TrtgateError


def cache() -> Path:
    """Return `trtgate` below XDG_CACHE_HOME or ~/.cache. Raises TrtgateError where there is no home directory."""
    return _below("XDG_CACHE_HOME", ".cache")


def state() -> Path:
    """Return `trtgate` below XDG_STATE_HOME or ~/.local/state. Raises TrtgateError where there is no home directory."""
    return _below("XDG_STATE_HOME", ".local/state")


def _below(variable: str, usual: str) -> Path:
    base = os.environ.get(variable)
    try:
        return Path(base if base else Path.home() / usual).absolute() / "trtgate"
    except RuntimeError as error:
        raise TrtgateError(
            f"this user has no home directory: set {variable}, or HOME, to a folder that can be written"
        ) from error
