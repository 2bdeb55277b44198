"""Folders whose files are unpickled: this user's alone, and every file with the SHA-256 that it was stored with."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from .files import open_file


def digests(folder: Path) -> dict[str, str]:
    """Return file name → SHA-256 of all files of a folder."""
    return {file.name: digest(file) for file in sorted(folder.iterdir())}


def digest(file: Path) -> str:
    """Return the SHA-256 of a file. Raises OSError, also for what is no regular file."""
    with open_file(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def empty(folder: Path) -> None:
    """Remove all files of a folder."""
    for file in folder.iterdir():
        file.unlink()


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or, on another file system, a copy; whoever removes one leaves the other."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)
        target.chmod(0o600)


def make_private(folder: Path) -> None:
    """Take away what a umask such as 002 gave to others."""
    folder.chmod(0o700)
    for file in folder.iterdir():
        file.chmod(0o600)


def is_private(folder: Path) -> bool:
    """Whether a folder and its files are this user's, no links, and can be written by nobody else. Raises OSError."""
    return all(is_mine(path) for path in (folder, *folder.iterdir()))


def is_mine(path: Path) -> bool:
    """Whether a file or folder is this user's, no link, and can be written by nobody else. Raises OSError."""
    found = path.lstat()
    others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return found.st_uid == os.getuid() and not others_write and not stat.S_ISLNK(found.st_mode)


def changed(folder: Path, sha256: Mapping[str, str]) -> Path | None:
    """Return the first file that is not what was stored. Raises OSError for one that is gone."""
    return next((folder / name for name, stored in sha256.items() if digest(folder / name) != stored), None)
