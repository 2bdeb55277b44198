"""The file of `trtgate selfcheck --json`: what was measured so far, to which later rounds may be added."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path

import msgspec

from ..common.errors import TrtgateError
from ..common.files import decoded, is_there, locked, read_bytes, write_json
from ..gate.plausibility import LONGEST_US, SHORTEST_US
from .selfcheck_findings import Selfcheck, SelfComparison

MOST_APART = math.log(LONGEST_US / SHORTEST_US)
"""Two latencies lie no further apart, as a difference of logarithms."""


class SelfcheckFile:
    """Where a check is written, if a path is given.

    With `add` it goes on with the rounds there, and others may add theirs meanwhile.
    """

    def __init__(self, path: Path | None, *, add: bool) -> None:
        self._path, self._add = path, add
        self._known = self._known_problems = 0

    def begin(self, new: Selfcheck) -> Selfcheck:
        """Return the check that goes on with what is there.

        Raises TrtgateError as `with_earlier`, for a file of something else, and for one that can't be made: before
        anything is measured.
        """
        if self._path is None:
            return new
        if self._path.is_dir():
            raise TrtgateError(f"--json {self._path} is a folder: name a file")
        with locked(self._path):
            found = with_earlier(new, self._path) if self._add else new
            if not self._add and is_there(self._path) and _content(self._path):
                _decoded(self._path, "holds something else than a selfcheck, which would be lost")
        self._known, self._known_problems = len(found.comparisons), len(found.problems)
        return found

    def save(self, found: Selfcheck) -> bool:
        """Write what was measured, and return whether there was anything: if not, what is there stays.

        Of a check that adds its rounds, those since the last save are added to what is there now. Raises TrtgateError
        where that is of another check by now, or can't be written; it is then as it was.
        """
        if self._path is None or not found.comparisons:
            return False
        with locked(self._path):
            write_json(self._path, msgspec.to_builtins(self._added(found, self._path) if self._add else found))
        self._known, self._known_problems = len(found.comparisons), len(found.problems)
        return True

    def _added(self, found: Selfcheck, path: Path) -> Selfcheck:
        if not is_there(path):
            return found
        there = with_earlier(found, path)
        new = [one for one in found.comparisons[self._known :] if one not in there.comparisons]  # Ctrl-C: may be there
        return msgspec.structs.replace(
            found,
            comparisons=[*there.comparisons, *new],
            problems=[*there.problems, *found.problems[self._known_problems :]],
            too_short=list(dict.fromkeys((*there.too_short, *found.too_short))),
            failed=there.failed or found.failed,
        )


def with_earlier(new: Selfcheck, path: Path) -> Selfcheck:
    """Return a check that goes on with the one in a file, where there is one.

    Raises TrtgateError where that can't be read, holds what no check measures, or another card, versions, cases, limits
    or delay were asked for.
    """
    if not is_there(path):
        return new
    old = _decoded(path, "holds no selfcheck that rounds can be added to")
    different = {
        "another card": (old.accelerator.key, old.accelerator.uuid) != (new.accelerator.key, new.accelerator.uuid),
        "other versions": old.accelerator.versions != new.accelerator.versions,
        "other cases": sorted(old.cases) != sorted(new.cases),
        "other limits": old.limits != new.limits,
        "another delay": old.wanted_delay != new.wanted_delay,
        "another --streams": old.streams != new.streams,
    }
    for what in (name for name, is_so in different.items() if is_so):
        raise TrtgateError(f"{path} has rounds of {what}: name another file, or leave out --add")
    for one in old.comparisons:
        if one.case_id not in old.cases or not _possible(one):
            raise TrtgateError(f"{path} has a comparison of {one.case_id} that no check measures: name another file")
    return msgspec.structs.replace(
        new, comparisons=old.comparisons, problems=old.problems, too_short=old.too_short, failed=old.failed
    )


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise TrtgateError(f"{path} can't be read: {error.strerror}") from error


def _decoded(path: Path, otherwise: str) -> Selfcheck:
    """Return the check in a file. Raises TrtgateError; `otherwise` says of a file that it has none."""
    try:
        found: Selfcheck = decoded(_content(path), Selfcheck)
    except msgspec.MsgspecError as error:
        raise TrtgateError(f"{path} {otherwise}: name another file") from error
    return found


def _possible(one: SelfComparison) -> bool:
    logs = chain(one.d_mean.values(), one.d_sd.values())
    return one.d_mean.keys() == one.d_sd.keys() and all(abs(value) <= MOST_APART for value in logs)
