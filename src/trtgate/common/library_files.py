"""The libraries that compile and run a module, by what their files hold: an edit in place is no other version.

An installed distribution lists its files with digests (RECORD). Files that were written since are read, large ones only
where they have another size or were written much later: copying an installation gives all files new times, and reading
its gigabytes would keep every process waiting. Whoever edits a file, and gives it its old size and time again, is not
found out. What is imported from elsewhere (an editable install, a folder of sources) has no list, and is Unlisted.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import importlib.util
import os
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

COMPILING = re.compile(
    r"(torch|torch[-_]tensorrt.*|tensorrt.*|triton|nvidia[-_](?!ml[-_]py|modelopt).*)", re.IGNORECASE
)
"""Distributions that compile engines, or hold kernels that run beside them."""
PACKAGES = ("torch", "torch_tensorrt", "tensorrt", "tensorrt_rtx", "triton")
"""What these distributions are imported as."""
NOT_CODE = re.compile(r"(\.dist-info/|__pycache__/|^\.\./)")
"""Files that say how and where something was installed, and caches."""


LARGE_BYTES = 16 << 20
"""Above it a file is a library or its kernels."""
COPYING_S = 600.0
"""So long after the list a file may be written by whoever copies an installation."""


class Unlisted(Exception):  # noqa: N818
    """A distribution without a list of its files."""


@functools.cache
def digests(further: tuple[str, ...] = ()) -> dict[str, str]:
    """Return distribution → digest of its files, of all that COMPILING names and some further ones; read once.

    Raises Unlisted, naming it, for one that does not say which files it has.
    """
    found: dict[str, str] = {}
    listed: set[Path] = set()
    for distribution in metadata.distributions():
        name = str(distribution.metadata["Name"])
        if name not in found and (COMPILING.fullmatch(name) or name in further):
            files = distribution.files or []  # read and taken apart at each look
            found[name] = _digest(distribution, name, files)
            listed |= {_real(distribution.locate_file(file)) for file in files if _is_package(file)}
    for package in PACKAGES:
        origin = _origin(package)
        if origin is not None and _real(origin) not in listed:
            raise Unlisted(f"{package} is imported from {origin.parent}, and no installed package lists that file")
    return found


def _is_package(file: metadata.PackagePath) -> bool:
    return len(file.parts) == 2 and file.name == "__init__.py"


def _real(path: object) -> Path:
    return Path(os.path.realpath(str(path)))


def _origin(package: str) -> Path | None:
    """Return the file of a package that is importable, without importing it."""
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            return Path(spec.origin)
    return None


def _digest(distribution: metadata.Distribution, name: str, files: Sequence[metadata.PackagePath]) -> str:
    if not files:
        raise Unlisted(f"{name} has no list of its files")
    root = Path(str(distribution.locate_file("")))
    lists = [file for file in files if file.name == "RECORD" and ".dist-info" in str(file)]
    installed_s = max(((root / file).stat().st_mtime for file in lists if (root / file).is_file()), default=0.0)
    named = ((str(file), file) for file in files)  # some ten thousand: paths of text take a third of the time of Path
    lines = [_line(name, file, f"{root}/{name}", installed_s) for name, file in named if not NOT_CODE.search(name)]
    return hashlib.sha256("\n".join(sorted(filter(None, lines))).encode()).hexdigest()


def _line(name: str, file: metadata.PackagePath, path: str, installed_s: float) -> str:
    listed = file.hash.value if file.hash is not None else ""
    try:
        found = os.stat(path)
    except OSError:
        return f"{name} is gone"
    old = found.st_mtime <= installed_s + COPYING_S * (found.st_size > LARGE_BYTES)
    as_listed = listed and found.st_size == file.size and old
    return f"{name} {listed if as_listed else _sha256(Path(path))}"


def _sha256(path: Path) -> str:
    """Return a file's SHA-256 as a list of files has it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
