"""A case over its saved runs: which of them may be compared, and what changed among those. Needs no torch, no pytest.

A series is one metric by one clock on one card: two cards of a kind lie up to 2.5 % apart, which would be a step
wherever another one ran. `level_changes.py` has what is looked for in a series, and how well it is found.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..common.errors import TrtgateError
from ..common.escaping import printable
from ..common.run_places import Folder, Place, runs_in
from . import level_changes
from .baseline_record import typical_us
from .baselines import Run, read
from .level_changes import Drift, LevelShift

MOST_RUNS = 1000
"""Of a series: what is looked through, the newest ones."""


LONGEST_CASE_S = 86400.0
"""A run that is not finished, and got no case for so long, was killed."""


class HistoryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A case in one saved run; `commit` and `branch` are empty where git knew none."""

    recorded: str
    run: str
    commit: str
    branch: str
    dirty: bool
    latency_us: float
    verdict: str


class SavedCase(msgspec.Struct, frozen=True, kw_only=True):
    """A case in a saved run, with what decides which series it belongs to, if to any."""

    metric: str
    clock: str
    card: str
    beside_base: bool
    disturbed: bool
    point: HistoryPoint


class SavedRun(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a saved run: its accelerator's key, the ids of all its cases, and those that were wanted."""

    key: str
    case_ids: frozenset[str]
    cases: dict[str, SavedCase]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Points, the oldest first, that may be compared: one metric by one clock on one card."""

    metric: str
    clock: str
    card: str
    points: list[HistoryPoint]
    steps: list[LevelShift]
    drift: Drift | None


class CaseHistory(msgspec.Struct, frozen=True, kw_only=True):
    """One case on one accelerator; the series with the newest run comes first."""

    case_id: str
    series: list[Series]
    beside_base: int
    """Runs left out because they were made by `trtgate ab`."""
    disturbed: int
    """Runs left out because too many of their blocks did not count."""


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """A revision as pytest-benchmark found it; what git did not know is empty."""

    id: str = ""
    time: str = ""
    branch: str = ""
    dirty: bool = False


class _CommitInfo(msgspec.Struct):
    id: str = ""
    time: str | None = None
    branch: str = ""
    dirty: bool = False


# Saved runs


def read_runs(
    folder: Folder, wanted: Callable[[str], bool], key: str = "", without: Collection[str] = ()
) -> tuple[list[SavedRun], list[str]]:
    """Return the saved runs in a folder, the oldest first, and one line for each file that is none.

    Without shards, which a merge judges, without those of some paths in the folder, and, with `key`, without folders of
    other accelerators. Only the wanted cases are kept: all of 200 runs of 2,000 take gigabytes.
    """
    runs, skipped = list[SavedRun](), list[str]()
    for path in runs_in(folder, key=key, without=without):
        try:
            run = read(path)
            runs += [] if run.stage else [_saved(run, wanted)]
            skipped += run.unused
        except TrtgateError as error:
            skipped.append(str(error))
    return runs, skipped


def read_run(path: Place) -> SavedRun | None:
    """Return a saved run with all its cases; None for a shard.

    Raises TrtgateError for what is none, and for one that may go on: it would be known by a part of its cases.
    """
    run = read(path)
    if run.unfinished and isinstance(path, Path) and time.time() - path.stat().st_mtime < LONGEST_CASE_S:
        raise TrtgateError(f"{path} may go on, and is read one by one")
    return None if run.stage else _saved(run, lambda _case_id: True)


def _saved(run: Run, wanted: Callable[[str], bool]) -> SavedRun:
    commit = commit_of(run.document.get("commit_info"))
    cases = {sys.intern(case_id): _point(run, case_id, commit) for case_id in run.cases if wanted(case_id)}
    return SavedRun(key=run.accelerator.key, case_ids=frozenset(map(sys.intern, run.cases)), cases=cases)


def collect(runs: Iterable[SavedRun], case_id: str) -> CaseHistory:
    """Return a case's history in runs of one key. Raises TrtgateError when Apache Otava is needed and not installed."""
    left_out: dict[str, set[tuple[Any, ...]]] = {"beside_base": set(), "disturbed": set()}
    found: dict[tuple[str, str, str], dict[tuple[str, float], HistoryPoint]] = {}
    for run in runs:
        saved = run.cases.get(case_id)
        if saved is None:
            continue
        point, of_series = saved.point, (saved.metric, saved.clock, saved.card)
        # The same run is in several files where it was merged again, or lies in two places.
        once = (point.recorded, point.latency_us)
        if saved.beside_base or saved.disturbed:
            left_out["beside_base" if saved.beside_base else "disturbed"].add((*of_series, *once))
        else:
            found.setdefault(of_series, {})[once] = point
    series = [
        analysed(*of_series, sorted(points.values(), key=lambda point: (point.recorded, point.run))[-MOST_RUNS:])
        for of_series, points in found.items()
    ]
    series.sort(key=lambda one: one.points[-1].recorded, reverse=True)
    return CaseHistory(case_id=case_id, series=series, **{why: len(some) for why, some in left_out.items()})


def _point(run: Run, case_id: str, commit: Commit) -> SavedCase:
    record = run.cases[case_id]
    last = record.sessions[-1]
    point = HistoryPoint(
        recorded=_in_order(run, last.recorded),
        run=run.path.name.encode(errors="backslashreplace").decode(),
        commit=commit.id,
        branch=commit.branch,
        dirty=commit.dirty,
        latency_us=typical_us(record.sessions),
        verdict=sys.intern(record.verdict),
    )
    metric, clock = sys.intern(next(iter(last.metrics))), sys.intern(last.clock)
    return SavedCase(
        metric=metric, clock=clock, card=sys.intern(last.uuid), beside_base=bool(record.base),
        disturbed=record.disturbed, point=point,
    )  # fmt: skip


def utc(recorded: str) -> datetime.datetime:
    """Return when something was recorded, UTC; a time without a zone is one. Raises ValueError or OverflowError."""
    found = datetime.datetime.fromisoformat(recorded)
    return found.replace(tzinfo=found.tzinfo or datetime.UTC).astimezone(datetime.UTC)


def _in_order(run: Run, recorded: str) -> str:
    """Return a time so that texts sort as times do. Raises TrtgateError where it is none."""
    try:
        return utc(recorded).isoformat()
    except (ValueError, OverflowError) as error:
        raise TrtgateError(f"{run.path} was recorded at {printable(recorded)!r}, which is no time") from error


def commit_of(stored: Any) -> Commit:
    """Return pytest-benchmark's `commit_info`, without what it writes where git knows nothing."""
    try:
        commit = msgspec.convert(stored, _CommitInfo)
    except msgspec.ValidationError:
        return Commit()
    return Commit(
        id="" if commit.id in ("unknown", "unversioned") else commit.id,
        time=commit.time or "",
        branch="" if commit.branch.startswith("(") else commit.branch,
        dirty=commit.dirty,
    )


def analysed(metric: str, clock: str, card: str, points: list[HistoryPoint]) -> Series:
    """Return a series with its steps and its drift. Raises TrtgateError when Apache Otava is not installed."""
    steps, drift = level_changes.found(np.log([point.latency_us for point in points]))
    return Series(metric=metric, clock=clock, card=card, points=points, steps=steps, drift=drift)
