"""Saved runs, compacted: a row a case, with what history needs, in Parquet files that DuckDB reads where runs are kept.

`trtgate runs compact` writes a file of rows, sorted by case, and beside it a JSON file that names the runs it has rows
of. Neither is changed later. A file of rows without its JSON file is none: the writer was killed, and its runs are read
one by one until they are compacted again. Where two writers took the same runs, the first file by name counts. Small
files are made into one with what comes next, so that there are few.

Nothing in them is believed: DuckDB loads no extension, reads no other file, and a column that is missing or of another
type, or a latency that can't be one, leaves the file or the row out.
"""

from __future__ import annotations

import datetime
import json
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..common.errors import TrtgateError, one_line
from ..common.files import decoded
from ..common.urls import told_without
from .history import HistoryPoint, SavedCase, SavedRun

FOLDER = "_compacted"
"""In the folder of the runs; no accelerator's key begins so."""
COLUMNS = {
    "accelerator": "VARCHAR", "card": "VARCHAR", "case_id": "VARCHAR", "metric": "VARCHAR", "clock": "VARCHAR",
    "recorded": "VARCHAR", "run": "VARCHAR", "commit_id": "VARCHAR", "branch": "VARCHAR", "dirty": "BOOLEAN",
    "latency_us": "DOUBLE", "verdict": "VARCHAR", "beside_base": "BOOLEAN", "disturbed": "BOOLEAN",
}  # fmt: skip
SMALL = 4
"""A file with fewer rows than so many times those that are added is made into one with them."""
MEMORY = "2GB"
"""What DuckDB may take; beyond, it writes to the temporary folder."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file of rows: its name without suffix, the runs that it has rows of, and accelerators with their cases."""

    name: str
    runs: frozenset[str]
    cases: dict[str, frozenset[str]]
    rows: int
    bytes: int


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
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


# Read


def parts(store: Any) -> tuple[list[Part], list[str]]:
    """Return the files of rows in a store (a fsspec filesystem), by name, and a line for each that can't be used.

    Raises TrtgateError where there are some, and DuckDB is not installed.
    """
    found, problems = [], []
    paths = sorted(_listed(store, ".json"))
    if paths:
        _database(store).close()  # it is said at once where there is none
    for path in paths:
        try:
            manifest = decoded(store.cat_file(path), _Manifest)
            name = path.removesuffix(".json")
            if store.size(f"{name}.parquet") != manifest.bytes:
                raise ValueError("its rows are not those that were written")
            part = Part(
                name=name, runs=frozenset(manifest.runs), rows=manifest.rows, bytes=manifest.bytes,
                cases={key: frozenset(map(sys.intern, some)) for key, some in manifest.cases.items()},
            )  # fmt: skip
            _asked(store, part, f"DESCRIBE {_rows_of(part)[1:-1]}", [])
            found.append(part)
        except (OSError, ValueError, msgspec.MsgspecError, TrtgateError) as error:
            problems.append(f"{path} is left out: {one_line(error)}; trtgate runs compact writes its runs anew")
    return found, problems


def _listed(store: Any, suffix: str) -> list[str]:
    try:
        return [path for path in store.ls(FOLDER, detail=False) if path.endswith(suffix)]
    except FileNotFoundError:
        return []


def read(store: Any, some: Sequence[Part], cases: Iterable[str], wanted: Wanted) -> list[SavedRun]:
    """Return the runs that have rows of these cases, without those that an earlier part has. Raises TrtgateError."""
    chosen, seen = sorted(cases), set[str]()
    runs: dict[tuple[str, str], dict[str, SavedCase]] = {}
    for part in some:
        twice, seen = sorted(part.runs & seen), seen | part.runs
        query = (
            f"SELECT {', '.join(COLUMNS)} FROM {_rows_of(part)} "  # noqa: S608
            "WHERE case_id IN (SELECT unnest(?)) AND ? IN ('', accelerator) AND recorded >= ? AND ? IN ('', branch) "
            "AND run NOT IN (SELECT unnest(?)) "
            "QUALIFY row_number() OVER (PARTITION BY accelerator, card, case_id, metric, clock, beside_base, disturbed "
            "ORDER BY recorded DESC, run DESC) <= ?"
        )
        given = [chosen, wanted.key, wanted.since, wanted.branch, twice, wanted.most]
        for row in _asked(store, part, query, given):
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


def _rows_of(part: Part) -> str:
    """Return what to select from: the columns by their types, and only latencies that can be some."""
    columns = ", ".join(f"TRY_CAST({name} AS {kind}) AS {name}" for name, kind in COLUMNS.items())
    complete = " AND ".join(f"{name} IS NOT NULL" for name in COLUMNS)
    place = f"dir://{part.name}.parquet".replace("'", "''")
    return (
        f"(SELECT {columns} FROM read_parquet('{place}') WHERE {complete} AND isfinite(latency_us) AND latency_us > 0)"  # noqa: S608
    )


def _asked(store: Any, part: Part, query: str, given: Sequence[Any]) -> list[tuple[Any, ...]]:
    database = _database(store)
    try:
        return list(database.execute(query, list(given)).fetchall())
    except Exception as error:
        why = told_without(one_line(error), ())
        advice = f"take it and {part.name}.json away, and its runs are read one by one"
        raise TrtgateError(f"{part.name}.parquet can't be read ({why}): {advice}") from error
    finally:
        database.close()


def _database(store: Any) -> Any:
    """Return a DuckDB in memory that sees a store, and nothing else that is not local."""
    try:
        import duckdb
    except ImportError as error:
        raise TrtgateError("compacted runs need DuckDB: pip install 'trtgate[history]'") from error
    settings: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False, "autoload_known_extensions": False, "allow_community_extensions": False,
        "memory_limit": MEMORY, "temp_directory": tempfile.gettempdir(),
    }  # fmt: skip
    try:
        database = duckdb.connect(":memory:", config=settings)
        database.execute("SET enable_progress_bar = false")
        database.register_filesystem(store)
    except duckdb.Error as error:
        raise TrtgateError(
            f"DuckDB {duckdb.__version__} can't be used for compacted runs: {one_line(error)}"
        ) from error
    return database


# Write


class Compacted(msgspec.Struct, frozen=True, kw_only=True):
    """What came of compacting: how many runs, rows and bytes, and a line for each run that could not be read."""

    runs: int
    rows: int
    bytes: int
    merged: int
    """Small files that were made into this one."""
    problems: list[str]


def compact(
    store: Any, names: Iterable[str], rows_of: Callable[[str], list[dict[str, Any]]]
) -> Compacted:  # fmt: skip
    """Write the rows of those runs, by name, that no file has rows of yet. `rows_of` raises TrtgateError.

    Raises TrtgateError when nothing can be written; what was there before is still there then.
    """
    known, problems = parts(store)
    new = sorted(set(names) - {run for part in known for run in part.runs})
    with tempfile.TemporaryDirectory(prefix="trtgate-") as folder:
        rows, done, count = Path(folder) / "rows.ndjson", list[str](), 0
        with rows.open("w") as file:
            for name in new:
                try:
                    found = rows_of(name)
                except TrtgateError as error:
                    problems.append(str(error))
                    continue
                done.append(name)
                count += len(found)
                file.writelines(f"{json.dumps(row)}\n" for row in found)
        small = [part for part in known if part.rows < SMALL * count]
        if not done:
            return Compacted(runs=0, rows=0, bytes=0, merged=0, problems=problems)
        total, size = _write(store, rows, small, done, Path(folder) / "rows.parquet")
    return Compacted(runs=len(done), rows=total, bytes=size, merged=len(small), problems=problems)


def rows_of(run: SavedRun, name: str) -> list[dict[str, Any]]:
    """Return the rows of a run, whose name in the store they keep."""
    return [
        {
            "accelerator": run.key, "card": saved.card, "case_id": case_id, "metric": saved.metric,
            "clock": saved.clock, "recorded": saved.point.recorded, "run": name, "commit_id": saved.point.commit,
            "branch": saved.point.branch, "dirty": saved.point.dirty, "latency_us": saved.point.latency_us,
            "verdict": saved.point.verdict, "beside_base": saved.beside_base, "disturbed": saved.disturbed,
        }
        for case_id, saved in run.cases.items()
    ]  # fmt: skip


def _write(store: Any, rows: Path, small: Sequence[Part], done: Sequence[str], made: Path) -> tuple[int, int]:
    """Write a file of rows, then what names its runs, and take the small files away; returns its rows and bytes."""
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in COLUMNS.items())
    place = f"read_json('{_quoted(rows)}', format = 'newline_delimited', columns = {{{columns}}})"
    sources = [f"SELECT * FROM {place}"]  # noqa: S608
    seen: set[str] = set()
    given: list[Any] = []
    for part in small:
        sources.append(f"SELECT * FROM {_rows_of(part)} WHERE run NOT IN (SELECT unnest(?))")  # noqa: S608
        given.append(sorted(part.runs & seen))
        seen |= part.runs
    everything = " UNION ALL ".join(sources)
    order = "ORDER BY case_id, accelerator, card, recorded"
    database = _database(store)
    try:
        database.execute(f"COPY ({everything} {order}) TO '{_quoted(made)}' (FORMAT parquet, COMPRESSION zstd)", given)
        (total,) = database.execute(f"SELECT count(*) FROM read_parquet('{_quoted(made)}')").fetchone()  # noqa: S608
        cases: dict[str, list[str]] = {}
        for key, case_id in database.execute(
            f"SELECT DISTINCT accelerator, case_id FROM read_parquet('{_quoted(made)}') ORDER BY ALL"  # noqa: S608
        ).fetchall():
            cases.setdefault(key, []).append(case_id)
    except Exception as error:
        raise TrtgateError(f"the runs can't be compacted: {one_line(error)}") from error
    finally:
        database.close()
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    name, size = f"{FOLDER}/{stamp}-{secrets.token_hex(4)}", made.stat().st_size
    manifest = _Manifest(trtgate_compacted=1, rows=total, bytes=size, runs=sorted({*done, *seen}), cases=cases)
    try:
        store.makedirs(FOLDER, exist_ok=True)
        store.put_file(str(made), f"{name}.parquet")
        store.pipe_file(f"{name}.json", msgspec.json.encode(manifest))
        for part in small:
            store.rm_file(f"{part.name}.json")
            store.rm_file(f"{part.name}.parquet")
    except Exception as error:  # each store has errors of its own
        raise TrtgateError(f"{name} can't be written: {told_without(one_line(error), ())}") from error
    return total, size


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
