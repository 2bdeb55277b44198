"""Saved runs, compacted: a row a case, with what history needs, in Parquet files that DuckDB reads where runs are kept.

`trtgate runs compact` writes a file of rows, sorted by case, and beside it a JSON file that names the runs it has rows
of. Neither is changed later. A file of rows without its JSON file is none: the writer was killed, and its runs are read
one by one until they are compacted again. Where two writers took the same runs, the first file by name counts. Small
files are made into one with what comes next, so that there are few. A file whose runs are all in another one counts no
more, and goes when the runs are compacted later: until then others may still read it.

Nothing in them is believed: DuckDB loads no extension, reads no other file, and a column that is missing or of another
type, or a latency that can't be one, leaves the file or the row out, as do more rows than its runs can have.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..common.errors import TrtgateError, one_line
from ..common.files import decoded
from ..common.urls import told_without
from . import compacted_database
from .history import HistoryPoint, SavedCase, SavedRun
from .plausibility import LONGEST_US, SHORTEST_US

FOLDER = "_compacted"
"""In the folder of the runs; no accelerator's key begins so."""
COLUMNS = {
    "accelerator": "VARCHAR", "card": "VARCHAR", "case_id": "VARCHAR", "metric": "VARCHAR", "clock": "VARCHAR",
    "recorded": "VARCHAR", "run": "VARCHAR", "commit_id": "VARCHAR", "branch": "VARCHAR", "dirty": "BOOLEAN",
    "latency_us": "DOUBLE", "verdict": "VARCHAR", "beside_base": "BOOLEAN", "disturbed": "BOOLEAN",
}  # fmt: skip
VERSION = 1
MOST_BYTES, MOST_VALUES = 256 << 20, 6_000_000
"""Of a JSON file: a million runs have 80 MB of names."""
LONGEST_TEXT = 10_000
"""Bytes of a name in a row: gigabytes of one letter take some kilobytes in a file."""
_NAME = re.compile(rf"{FOLDER}/\d{{8}}T\d{{6}}-[\w-]+", re.ASCII)


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file of rows: its name without suffix, the runs that it has rows of, and accelerators with their cases."""

    name: str
    runs: frozenset[str]
    cases: dict[str, frozenset[str]]
    rows: int
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON file beside the rows."""

    trtgate_compacted: int
    rows: int
    bytes: int
    runs: list[str]
    cases: dict[str, list[str]]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows: empty is any. `since` is an ISO date, `most` so many of the newest of each series."""

    key: str = ""
    since: str = ""
    branch: str = ""
    most: int = sys.maxsize


def parts(store: Any) -> tuple[list[Part], list[str]]:
    """Return the files of rows in a store (a fsspec filesystem) that count, by name, and a line for each other.

    Raises TrtgateError where there are some, and DuckDB is not installed.
    """
    found, problems = all_parts(store)
    no_more = {part.name for part, _ in superseded(found)}
    return [part for part in found if part.name not in no_more], problems


def all_parts(store: Any) -> tuple[list[Part], list[str]]:
    """Return as `parts`, with those that are superseded."""
    names = names_of(store, ".json")
    if names:
        with compacted_database.database(store):
            pass  # it is said at once where there is none
    found, problems = list[Part](), list[str]()
    for name in names:
        try:
            found.append(part_at(store, name))
        except FileNotFoundError:
            if name not in names_of(store, ".json"):
                return all_parts(store)  # it went into another file meanwhile
            problems.append(f"{name}.json is left out: its rows are missing; delete it")
        except (OSError, ValueError, msgspec.MsgspecError, TrtgateError) as error:
            problems.append(
                f"{name}.json is left out: {one_line(error)}; delete it, and trtgate runs compact writes its runs anew"
            )
    return found, problems


def part_at(store: Any, name: str) -> Part:
    """Return a file of rows, by its name without suffix. Raises OSError, ValueError, MsgspecError or TrtgateError."""
    if store.size(f"{name}.json") > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES >> 20} MiB")
    content = store.cat_file(f"{name}.json")
    if content.count(b",") > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")
    manifest = decoded(content, Manifest)
    if manifest.trtgate_compacted != VERSION:
        raise ValueError(f"this version of trtgate reads {VERSION}, and it is {manifest.trtgate_compacted}")
    part = Part(
        name=name, runs=frozenset(manifest.runs), rows=manifest.rows, bytes=manifest.bytes,
        cases={key: frozenset(map(sys.intern, some)) for key, some in manifest.cases.items()},
    )  # fmt: skip
    if store.size(f"{name}.parquet") != manifest.bytes:
        raise ValueError("its rows are not those that were written")
    place = f"parquet_file_metadata('{_url(part)}')"
    counted = asked(store, part, f"SELECT num_rows FROM {place}", [])  # noqa: S608
    most = len(part.runs) * max(map(len, part.cases.values()), default=0)
    if counted != [(part.rows,)] or part.rows > most:
        raise ValueError("it has other rows than its runs can have")
    asked(store, part, f"DESCRIBE {rows_from(part)[1:-1]}", [])
    return part


def superseded(found: Sequence[Part]) -> list[tuple[Part, Part]]:
    """Return the parts whose runs are all in another one, with that one; of two that are equal the first counts."""
    by_size = sorted(found, key=lambda part: (-len(part.runs), part.name))
    pairs = list[tuple[Part, Part]]()
    kept = list[Part]()
    for part in by_size:
        other = next((one for one in kept if part.runs <= one.runs), None)
        if other is None:
            kept.append(part)
        else:
            pairs.append((part, other))
    return pairs


def names_of(store: Any, suffix: str) -> list[str]:
    """Return the names of ours that files with a suffix have, sorted."""
    try:
        store.invalidate_cache()
        paths = store.ls(FOLDER, detail=False)
    except FileNotFoundError:
        return []
    names = (path.removesuffix(suffix) for path in paths if path.endswith(suffix))
    return sorted(name for name in names if _NAME.fullmatch(name))


def read(store: Any, some: Sequence[Part], cases: Iterable[str], wanted: Wanted) -> list[SavedRun]:
    """Return the runs that have rows of these cases, without those that an earlier part has. Raises TrtgateError."""
    chosen, seen, count = sorted(cases), set[str](), 0
    runs: dict[tuple[str, str], dict[str, SavedCase]] = {}
    for part in some:
        twice, seen = sorted(part.runs & seen), seen | part.runs
        query = (
            f"SELECT {', '.join(COLUMNS)} FROM {rows_from(part)} "  # noqa: S608
            "WHERE case_id IN (SELECT unnest(?)) AND ? IN ('', accelerator) AND recorded >= ? AND ? IN ('', branch) "
            "AND run NOT IN (SELECT unnest(?)) "
            "QUALIFY row_number() OVER (PARTITION BY accelerator, card, case_id, metric, clock, beside_base, disturbed "
            "ORDER BY recorded DESC, run DESC) <= ?"
        )
        given = [chosen, wanted.key, wanted.since, wanted.branch, twice, wanted.most]
        rows = asked(store, part, query, given)
        count += len(rows)
        if count > compacted_database.MOST_ROWS:
            most = f"more than {compacted_database.MOST_ROWS:,} points of compacted runs"
            raise TrtgateError(f"{most}: ask for fewer cases, or with --since or --branch")
        for row in rows:
            saved, key, run = _saved(dict(zip(COLUMNS, row, strict=True)))
            runs.setdefault((key, run), {})[row[2]] = saved
    return [SavedRun(key=key, case_ids=frozenset(found), cases=found) for (key, _), found in runs.items()]


def _saved(row: dict[str, Any]) -> tuple[SavedCase, str, str]:
    intern = {name: sys.intern(value) for name, value in row.items() if isinstance(value, str)}
    point = HistoryPoint(
        recorded=intern["recorded"], run=intern["run"].rpartition("/")[2], commit=intern["commit_id"],
        branch=intern["branch"], dirty=row["dirty"], latency_us=row["latency_us"], verdict=intern["verdict"],
    )  # fmt: skip
    saved = SavedCase(
        metric=intern["metric"], clock=intern["clock"], card=intern["card"], beside_base=row["beside_base"],
        disturbed=row["disturbed"], point=point,
    )  # fmt: skip
    return saved, intern["accelerator"], intern["run"]


def rows_from(part: Part) -> str:
    """Return what to select from: the columns by their types, and only rows that a run can have."""
    columns = ", ".join(f"TRY_CAST({name} AS {kind}) AS {name}" for name, kind in COLUMNS.items())
    typed = f"(SELECT {columns} FROM read_parquet('{_url(part)}'))"  # noqa: S608
    complete = [f"{name} IS NOT NULL" for name in COLUMNS]
    short = [f"strlen({name}) <= {LONGEST_TEXT}" for name, kind in COLUMNS.items() if kind == "VARCHAR"]
    real = [f"latency_us BETWEEN {SHORTEST_US} AND {LONGEST_US}", "TRY_CAST(recorded AS TIMESTAMP) IS NOT NULL"]
    return f"(SELECT * FROM {typed} WHERE {' AND '.join((*complete, *short, *real))})"  # noqa: S608


def _url(part: Part) -> str:
    return f"dir://{part.name}.parquet"


def asked(store: Any, part: Part, query: str, given: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return what a query of a part's rows gives. Raises TrtgateError, which names the part."""
    try:
        return compacted_database.asked(store, query, given)
    except Exception as error:
        why = told_without(one_line(error), ())
        advice = f"take it and {part.name}.json away, and its runs are read one by one"
        raise TrtgateError(f"{part.name}.parquet can't be read ({why}): {advice}") from error
