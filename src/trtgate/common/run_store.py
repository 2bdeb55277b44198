"""Runs outside of this machine: objects below any URL that fsspec knows, written once and never changed."""

from __future__ import annotations

import posixpath
import queue
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from .errors import TrtgateError
from .escaping import printable
from .urls import secrets_of, told_without, without_secrets

PAUSES_S = (1.0, 5.0)
"""Before a call that failed is made a second and a third time."""
LIMIT_S = 120.0
"""Longest that a call may take, all its attempts together."""
FINAL = (
    FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, TypeError,
    ImportError, NotImplementedError, TrtgateError,
)  # fmt: skip
"""Errors that another attempt would not mend."""

Answer = TypeVar("Answer")


class StoreError(TrtgateError):
    """What a store refused or did not answer, without what is secret in its URL."""


class MissingError(StoreError):
    """What was asked for does not exist: an object, a folder, or the whole store."""


class RunStore:
    """A folder of a store. Nothing is asked of the store before a method is called.

    Raises TrtgateError, on construction, for a URL of a protocol that is unknown, or whose package is not installed.
    """

    def __init__(self, url: str) -> None:
        _check_protocol(url)
        self._url = url
        self._secrets = secrets_of(url)
        self._silent = False
        """Whether it once did not answer within the limit: it is not waited for again."""

    def __str__(self) -> str:
        return printable(without_secrets(self._url))

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        """fsspec's file system and the path in it; for some protocols that connects."""
        import fsspec

        found, path = fsspec.core.url_to_fs(self._url)
        return found, path.rstrip("/") if path.strip("/") else path

    @property
    def filesystem(self) -> Any:
        """What is below the URL as a fsspec file system of its own. Raises StoreError."""
        from fsspec.implementations.dirfs import DirFileSystem

        system, path = self.answer(lambda: self._opened)
        return DirFileSystem(path, system)

    # What is there

    def is_object(self) -> bool:
        """Whether the URL names an object, not a folder. Raises StoreError, also where nothing is there."""

        def ask() -> bool:
            system, path = self._opened
            return system.info(path)["type"] == "file"

        return self.answer(ask)

    def object(self) -> StoredObject:
        """Return the object that the URL names; it may not exist."""
        return StoredObject(self, self.answer(lambda: self._opened[1]), self._url)

    def matching(self) -> list[StoredObject]:
        """Return the objects that the URL, a pattern, names; sorted. Raises StoreError."""

        def ask() -> list[str]:
            system, path = self._opened
            system.invalidate_cache()
            return sorted(system.glob(path))

        return [StoredObject(self, path, self._url_of(path)) for path in self.answer(ask)]

    def entries(self, below: str = "") -> list[tuple[str, bool, str]]:
        """Return what lies in a folder below the URL: (name, whether it is a folder, path in the store); sorted.

        Raises StoreError, or MissingError where there is no such folder.
        """

        def ask() -> list[dict[str, Any]]:
            system, path = self._opened
            system.invalidate_cache()
            return list(system.ls(below or path, detail=True))

        found = ((str(one["name"]).rstrip("/"), one["type"] == "directory") for one in self.answer(ask))
        return sorted((posixpath.basename(path), folder, path) for path, folder in found)

    def at(self, path: str) -> StoredObject:
        """Return the object at a path in the store."""
        return StoredObject(self, path, self._url_of(path))

    def _url_of(self, path: str) -> str:
        return str(self._opened[0].unstrip_protocol(path))

    # Reading and writing

    def read(self, path: str, most: int, shown: str) -> bytes:
        """Return an object, which errors call `shown`. Raises StoreError, also for one of more than `most` bytes."""

        def ask() -> bytes:
            with self._opened[0].open(path, "rb") as file:
                size = getattr(file, "size", None)  # as the store says
                told = isinstance(size, int) and size > most
                content = b"" if told else _start_of(file, most + 1)
                if told or len(content) > most:
                    raise StoreError(f"{shown} is larger than {most >> 20} MiB: no run of trtgate's is")
                return content

        return self.answer(ask, shown)

    def put(self, name: str, content: bytes) -> str:
        """Write a new object below the URL; returns its URL, as it may be shown. Raises StoreError.

        An object that has the name already stays: it is an error, unless it holds the same.
        """
        path = ""

        def write() -> None:
            nonlocal path
            path = f"{self._opened[1].rstrip('/')}/{name}"
            try:
                self._create(path, content)
            except FileExistsError:
                if self._read_now(path, len(content) + 1) != content:
                    raise StoreError(f"{self.at(path)}: another run has that name") from None
                # else an earlier attempt arrived, whose answer did not

        self.answer(write)
        return str(self.at(path))

    def _read_now(self, path: str, most: int) -> bytes:
        with self._opened[0].open(path, "rb") as file:
            return _start_of(file, most)

    def _create(self, path: str, content: bytes) -> None:
        system, root = self._opened
        try:
            self._pipe(path, content)
        except FileNotFoundError:
            if not system.exists(root):  # never made: a bucket of a misspelt name would be made as well
                raise
            system.makedirs(posixpath.dirname(path), exist_ok=True)  # a system that has folders
            self._pipe(path, content)

    def _pipe(self, path: str, content: bytes) -> None:
        """Write a new object, and leave it to the store, where it can, that nobody else does at the same time."""
        system = self._opened[0]
        try:
            system.pipe_file(path, content, mode="create")
        except (OSError, TypeError, NotImplementedError) as error:
            said = str(error).lower().replace(" ", "")  # S3's word, and the sentence that comes with it
            if isinstance(error, FileExistsError) or (isinstance(error, OSError) and "notimplemented" not in said):
                raise
            if system.exists(path):
                raise FileExistsError(path) from None
            system.pipe_file(path, content)

    def answer(self, call: Callable[[], Answer], shown: str = "") -> Answer:
        """Return what a call of the store returns; it is made again while that may help. Raises StoreError."""
        if self._silent:
            raise StoreError(f"{shown or self}: it did not answer before")
        deadline = time.monotonic() + LIMIT_S
        for pause in (*PAUSES_S, None):
            try:
                return _within(call, max(deadline - time.monotonic(), 0.0))
            except TrtgateError:
                raise
            except Exception as error:
                self._silent = isinstance(error, _SilentError)
                if pause is None or _is_final(error) or time.monotonic() + pause >= deadline:
                    refused = MissingError if isinstance(error, FileNotFoundError) else StoreError
                    raise refused(f"{shown or self}: {self._why(error)}") from None
                time.sleep(pause)
        raise AssertionError

    def _why(self, error: Exception) -> str:
        """Return what went wrong, in one line, and nothing secret."""
        if isinstance(error, _SilentError):
            return f"no answer within {LIMIT_S:g} s"
        said = told_without(f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": "), self._secrets)
        if isinstance(error, PermissionError):
            return f"permission denied ({said}): see which credentials this process has"
        if isinstance(error, FileNotFoundError):
            return f"it does not exist ({said})"
        return said


class _SilentError(Exception):
    """No answer within the limit."""


class StoredObject:
    """One object of a store, as a path is to a file."""

    def __init__(self, store: RunStore, path: str, url: str) -> None:
        self._store = store
        self._path = path
        self._url = url

    @property
    def name(self) -> str:
        """The last part of its path."""
        return posixpath.basename(self._path)

    def __str__(self) -> str:
        return printable(without_secrets(self._url))

    def read(self, most: int) -> bytes:
        """Return what it holds. Raises StoreError, also where that is more than `most` bytes."""
        return self._store.read(self._path, most, str(self))


def _is_final(error: Exception) -> bool:
    return isinstance(error, FINAL) or "Credentials" in type(error).__name__


def _start_of(file: Any, most: int) -> bytes:
    """Return the first `most` bytes of a file; of a stream, `read` gives what has arrived."""
    found = bytearray()
    while len(found) < most and (part := file.read(most - len(found))):
        found += part
    return bytes(found)


def _within(call: Callable[[], Answer], seconds: float) -> Answer:
    """Return what a call returns; raises what it raises, and _SilentError when it takes longer: it is left behind."""
    done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        answer, error = done.get(timeout=seconds)
    except queue.Empty:
        raise _SilentError from None
    if error is not None:
        raise error
    return answer


def _check_protocol(url: str) -> None:
    shown = printable(without_secrets(url))
    try:
        import fsspec
    except ImportError:
        raise TrtgateError(f"{shown}: runs at a URL need fsspec: pip install 'trtgate[store]'") from None
    for part in url.split("::"):
        protocol, mark, _ = part.partition("://")
        if not mark and "/" in part:
            continue  # a file, which another part of the URL is about
        try:
            fsspec.get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            raise TrtgateError(f"{shown}: {told_without(str(error), secrets_of(url))}") from None
