"""The libraries that compile and run a module, by what their files hold: an edit in place is no other version.

An installed distribution lists its files with digests (RECORD). Files that were written since are read, large ones only
where they have another size or were written much later: copying an installation gives all files new times, and reading
its gigabytes would keep every process waiting. Whoever edits a file, and gives it its old size and time again, is not
found out. What is imported from elsewhere (an editable install, a folder of sources) has no list, and is Unlisted.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import functools
import hashlib
import importlib.util
import os
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

COMPILING = re.compile(
    r"(torch|torch[-_]tensorrt.*|tensorrt.*|triton|nvidia[-_](?!ml[-_]py|modelopt).*)", re.IGNORECASE
)
"""Distributions that compile engines, or hold kernels that run beside them."""
PACKAGES = ("torch", "torch_tensorrt", "tensorrt", "tensorrt_rtx", "triton")
"""What these distributions are imported as."""
NOT_CODE = re.compile(r"(\.dist-info/|__pycache__/|^\.\./)")
"""Files that say how and where something was installed, and caches."""
PACKAGE = re.compile(r"[^/]+/__init__\.py")
LIST = re.compile(r"\.dist-info/RECORD$")

LARGE_BYTES = 16 << 20
"""Above it a file is a library or its kernels."""
COPYING_S = 600.0
"""So long after the list a file may be written by whoever copies an installation."""


class Unlisted(Exception):  # noqa: N818
    """A distribution without a list of its files."""


class _File(NamedTuple):
    """A row of a list of files; `digest` is empty, and `size` too, for what the list does not know."""

    name: str
    digest: str = ""
    size: str = ""


@functools.cache
def digests(further: tuple[str, ...] = ()) -> dict[str, str]:
    """Return distribution → digest of its files, of all that COMPILING names and some further ones; read once.

    Raises Unlisted, naming it, for one that does not say which files it has.
    """
    found: dict[str, str] = {}
    packages: set[Path] = set()
    for distribution in metadata.distributions():
        name = str(distribution.metadata["Name"])
        if name not in found and (COMPILING.fullmatch(name) or name in further):
            files = _listed(distribution, name)
            root = str(distribution.locate_file(""))
            found[name] = _digest(files, root)
            packages |= {_real(f"{root}/{file.name}") for file in files if PACKAGE.fullmatch(file.name)}
    for package in PACKAGES:
        origin = _origin(package)
        if origin is not None and _real(origin) not in packages:
            raise Unlisted(f"{package} is imported from {origin.parent}, and no installed package lists that file")
    return found


@functools.cache
def of_no_index(name: str) -> str:
    """Return the digest of a distribution's files if it came from a folder, a file or a repository; else empty.

    Its version stays as it is while its code changes. Raises Unlisted, naming it, where it has no list of its files.
    """
    distribution = metadata.distribution(name)
    if distribution.read_text("direct_url.json") is None:
        return ""
    return _digest(_listed(distribution, name), str(distribution.locate_file("")))


def _listed(distribution: metadata.Distribution, name: str) -> list[_File]:
    """Return the rows of RECORD: `distribution.files` makes a path of each of some ten thousand, which takes longer."""
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    files = [_File(row[0], *(text.partition("=")[2] or text for text in row[1:3])) for row in rows if row]
    if not files:
        raise Unlisted(f"{name} has no list of its files")
    return files


def _real(path: object) -> Path:
    return Path(os.path.realpath(str(path)))


def _origin(package: str) -> Path | None:
    """Return the file of a package that is importable, without importing it."""
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            return Path(spec.origin)
    return None


def _digest(files: Sequence[_File], root: str) -> str:
    lists = [f"{root}/{file.name}" for file in files if LIST.search(file.name)]
    installed_s = max((os.stat(path).st_mtime for path in lists if os.path.isfile(path)), default=0.0)
    lines = [_line(file, f"{root}/{file.name}", installed_s) for file in files if not NOT_CODE.search(file.name)]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _line(file: _File, path: str, installed_s: float) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return f"{file.name} is gone"
    old = found.st_mtime <= installed_s + COPYING_S * (found.st_size > LARGE_BYTES)
    as_listed = file.digest and str(found.st_size) == file.size and old
    return f"{file.name} {file.digest if as_listed else _sha256(Path(path))}"


def _sha256(path: Path) -> str:
    """Return a file's SHA-256 as a list of files has it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
