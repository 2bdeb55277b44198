"""The saved runs of a folder or a store, however they lie there: one by one, or compacted into rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec

from ..common.errors import TrtgateError
from ..common.run_places import Folder
from ..common.run_store import RunStore
from . import compacted_runs, history
from .compacted_runs import Wanted
from .history import SavedRun


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs: `key` is an accelerator's, `since` an ISO date, empty is any."""

    key: str = ""
    since: str = ""
    branch: str = ""


class SavedRuns:
    """The saved runs of a folder, of one key or all: those that are compacted, and the others, read one by one.

    `wanted` says which cases are kept. Raises TrtgateError for a file, and StoreError.
    """

    def __init__(self, folder: Folder, wanted: Callable[[str], bool], key: str = "") -> None:
        self._store, self._answered = filesystem(folder), answered_by(folder)
        self._parts, self.skipped = self._answered(lambda: compacted_runs.parts(self._store))
        compacted = frozenset[str]().union(*(part.runs for part in self._parts))
        self._runs, skipped = history.read_runs(folder, wanted, key, compacted)
        self.skipped += skipped
        self.keys = {run.key for run in self._runs} | {key for part in self._parts for key in part.cases}

    def case_ids(self, key: str) -> set[str]:
        """Return the ids of all cases of an accelerator."""
        found = {case_id for run in self._runs if run.key == key for case_id in run.case_ids}
        return found.union(*(part.cases.get(key, ()) for part in self._parts))

    def runs(self, asked: Asked, cases: Collection[str]) -> list[SavedRun]:
        """Return the runs of an accelerator that have some of these cases, of a branch and since a date.

        Raises TrtgateError where runs are compacted, and DuckDB is not installed.
        """
        wanted = Wanted(key=asked.key, since=asked.since, branch=asked.branch, most=history.MOST_RUNS)
        compacted = self._answered(lambda: compacted_runs.read(self._store, self._parts, cases, wanted))
        return [*(_within(run, asked) for run in self._runs if run.key == asked.key), *compacted]


def _within(run: SavedRun, asked: Asked) -> SavedRun:
    cases = {
        case_id: saved
        for case_id, saved in run.cases.items()
        if saved.point.recorded >= asked.since and asked.branch in ("", saved.point.branch)
    }
    return msgspec.structs.replace(run, cases=cases)


def answered_by(folder: Folder) -> Callable[[Callable[[], Any]], Any]:
    """Return what calls a store within its limits and says what it refuses; a folder is called at once."""
    return folder.answer if isinstance(folder, RunStore) else lambda call: call()


def filesystem(folder: Folder) -> Any:
    """Return what compacted runs are read from, and written to. Raises TrtgateError for a file, and StoreError."""
    if isinstance(folder, RunStore):
        return folder.filesystem
    if folder.is_file():
        raise TrtgateError(f"{folder} is a file, and --runs is the folder of saved runs: name the one that it lies in")
    import fsspec
    from fsspec.implementations.dirfs import DirFileSystem

    return DirFileSystem(str(folder.absolute()), fsspec.filesystem("file"))
