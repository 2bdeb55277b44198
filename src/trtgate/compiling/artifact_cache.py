"""Compiled modules that were built before, by any run of this user: content-addressed, checked before they are loaded.

A compiled module is loaded by unpickling, so the cache is one folder that is this user's alone (0700), every file of an
entry has its SHA-256 in the entry's manifest, and what does not match is thrown away and built again. An entry appears
and goes by one rename, under a lock that ends with its process: a process that is killed leaves a folder that the next
one removes.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from ..common import sealed_folder, user_folders
from ..common.errors import PROBLEMS, TrtgateError, sentence_of
from ..common.explanations import bare
from ..common.files import is_there
from ..common.locks import ClaimedFolder, folder_locked, remove_abandoned
from . import sealed_store
from .sealed_store import MANIFEST, SealedManifest

ENTRIES, NEW, BUILDING = "entries", "new", "building"
BUILD_TIMEOUT_S = 3600.0
"""How long a build is waited for that another process makes."""
LIMIT_BYTES = 20 << 30
LOCK_TIMEOUT_S = 60.0
SIZE = re.compile(r"(\d+(?:\.\d+)?) *([KMGT]i?B?)?", re.IGNORECASE)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry, as `trtgate cache info` shows it."""

    key: str
    manifest: SealedManifest | None
    """None where it can't be read."""
    size_bytes: int
    used: float
    """When it was stored or last used, seconds since the epoch."""


class CacheRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which cache a run uses, so that its workers use the same: plain data."""

    folder: str
    limit_bytes: int = LIMIT_BYTES
    rebuild: bool = False

    def open(self) -> ArtifactCache:
        """Return the cache. Raises TrtgateError when its folder is not this user's alone."""
        return ArtifactCache(Path(self.folder), limit_bytes=self.limit_bytes, rebuild=self.rebuild)


def key_of(made_from: Mapping[str, str]) -> str:
    """Return the key of what a compiled module is made from."""
    return hashlib.sha256(msgspec.json.encode(dict(sorted(made_from.items())))).hexdigest()


def default_folder() -> Path:
    """Return TRTGATE_CACHE_DIR, or `trtgate/artifacts` under XDG_CACHE_HOME or ~/.cache.

    Raises TrtgateError where there is no home directory.
    """
    own = os.environ.get("TRTGATE_CACHE_DIR")
    if own:
        return Path(own).absolute()
    return user_folders.cache() / "artifacts"


def of_run(folder: Path, name: str) -> ArtifactCache | None:
    """Return the cache of that name beside a case's folder, which goes with the run; None without a name."""
    return ArtifactCache(folder.parent / name) if name else None


def size(text: str) -> int:
    """Return bytes of a text such as "20GiB" or "500M", in powers of 1024. Raises TrtgateError."""
    found = SIZE.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise TrtgateError(f"a size is a number with a unit, such as 20GiB, not {text!r}")
    unit = (found[2] or "B")[0].upper()
    return int(float(found[1]) * 1024 ** "BKMGT".index(unit))


def limit_of(text: str) -> int:
    """Return the bytes that the ini key trtgate_cache_size allows. Raises TrtgateError."""
    try:
        return size(text)
    except TrtgateError as error:
        raise TrtgateError(f"ini key trtgate_cache_size: {error}") from error


class ArtifactCache:
    """The cache in one folder, made if need be. Raises TrtgateError when the folder is not this user's alone.

    With `rebuild` nothing is taken from it; what is built takes the place of what is there.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES, rebuild: bool = False) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self._rebuild = rebuild
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            (folder / ENTRIES).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise TrtgateError(
                f"cache folder {folder} can't be made ({error.strerror}): set TRTGATE_CACHE_DIR to one that can, or "
                "add --trtgate-no-cache"
            ) from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise TrtgateError(
                f"cache folder {folder} must be a folder of this user alone (mode 0700, not "
                f"{stat.S_IMODE(found.st_mode):04o} of user {found.st_uid}), since what lies in it is unpickled: "
                "chmod 700 it if nobody else wrote there, or set TRTGATE_CACHE_DIR to another"
            )
        if not sealed_folder.is_mine(folder / ENTRIES):
            raise TrtgateError(
                f"cache folder {folder / ENTRIES} must be a folder that this user alone may write, since what lies in "
                "it is unpickled: remove it, and it is made anew"
            )

    def take(self, key: str, folder: Path) -> tuple[SealedManifest | None, str]:
        """Put the files of an entry into a private folder; returns what it is, and what was wrong if anything was.

        The files are checked after they are there, so whoever removes or replaces the entry meanwhile changes nothing.
        """
        place = self._place(key)
        if self._rebuild or not self._has(place):
            return None, ""
        try:
            with self._locked():
                manifest = _read(place)
                for name in manifest.sha256:
                    sealed_folder.link(place / name, folder / name)
                with contextlib.suppress(OSError):  # a cache that can only be read is used all the same
                    os.utime(place / MANIFEST)
                sealed = sealed_folder.is_private(place) and sealed_folder.is_private(folder)
            if sealed and sealed_folder.changed(folder, manifest.sha256) is None:
                return manifest, ""
            problem = "is not what was stored"
        except FileNotFoundError:
            if not is_there(place):  # another process was short of space
                sealed_folder.empty(folder)
                return None, ""
            problem = "lacks a file"
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            problem = f"can't be read ({type(error).__name__})"
        sealed_folder.empty(folder)
        try:
            self.remove(key)
        except PROBLEMS as error:
            why = bare(sentence_of(error))
            return None, f"the cached module {place} {problem}, and can't be removed ({why}): it is built again"
        return None, f"the cached module {place} {problem}: it was removed, and is built again"

    def put(self, key: str, folder: Path, manifest: SealedManifest) -> str:
        """Store copies of a folder's files that the manifest names; returns why that failed, if it did."""
        try:
            remove_abandoned(self.folder, NEW)
            claimed = ClaimedFolder(self.folder, NEW)
            try:
                made = claimed.path / "entry"
                made.mkdir(mode=0o700)
                for name in manifest.sha256:
                    sealed_folder.link(folder / name, made / name)
                sealed_store.seal(made, manifest)
                with self._locked():
                    sealed_store.put_in_place(self._place(key), made, self.folder)
                    self._shrink(keep=key)
            finally:
                claimed.remove()
        except PROBLEMS as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            return f"the compiled module of {manifest.case} could not be cached: {reason}"
        return ""

    def differing(self, case_id: str, made_from: Mapping[str, str]) -> list[str]:
        """Return in what a case differs from the newest entry of it; nothing where there is none."""
        created: dict[str, dict[str, str]] = {}
        with contextlib.suppress(OSError):
            manifests = (entry.manifest for entry in self.entries() if entry.manifest is not None)
            created = {manifest.created: manifest.made_from for manifest in manifests if manifest.case == case_id}
        if not created or self._rebuild:
            return []
        before = created[max(created)]
        return [name for name in dict.fromkeys((*made_from, *before)) if made_from.get(name) != before.get(name)]

    @contextlib.contextmanager
    def building(self, key: str) -> Iterator[None]:
        """Within: no other process builds this; who waited takes what was built. No lock is no reason not to build."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError, TrtgateError):
                place = self.folder / BUILDING / key
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
                stack.enter_context(folder_locked(place, BUILD_TIMEOUT_S))
                stack.callback(_remove_empty, place)
            yield

    def entries(self) -> list[Entry]:
        """Return all entries, the least lately used first."""
        found = []
        for place in (self.folder / ENTRIES).iterdir():
            with contextlib.suppress(OSError):
                try:
                    manifest = _read(place)
                except (OSError, msgspec.MsgspecError, ValueError):
                    manifest = None
                files = [file.stat() for file in place.iterdir()]
                used = max((file.stat().st_mtime for file in place.glob(MANIFEST)), default=place.stat().st_mtime)
                total = sum(one.st_size for one in files)
                found.append(Entry(key=place.name, manifest=manifest, size_bytes=total, used=used))
        return sorted(found, key=lambda entry: entry.used)

    def remove(self, key: str) -> None:
        """Remove an entry. Raises TrtgateError when others hold the cache's lock for too long."""
        with self._locked(), contextlib.suppress(FileNotFoundError):
            sealed_store.discard(self._place(key), self.folder)

    def _has(self, place: Path) -> bool:
        """Whether an entry is there: it is not, for a moment, while another process puts one in its place."""
        if is_there(place):
            return True
        with contextlib.suppress(OSError, TrtgateError), self._locked():
            return is_there(place)
        return False

    def _place(self, key: str) -> Path:
        return self.folder / ENTRIES / key

    def _shrink(self, keep: str) -> None:
        found = self.entries()
        total = sum(entry.size_bytes for entry in found)
        for entry in found:
            if total <= self._limit_bytes:
                return
            if entry.key != keep:
                sealed_store.discard(self._place(entry.key), self.folder)
                total -= entry.size_bytes

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with folder_locked(self.folder, LOCK_TIMEOUT_S):
            yield


def now() -> str:
    """Return the time, as a manifest has it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _read(place: Path) -> SealedManifest:
    manifest = sealed_store.read(place)
    if manifest.build is None:
        raise ValueError("no build")
    return manifest
