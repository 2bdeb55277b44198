"""Writing compacted runs: new rows, with those of small files, into one file that counts once its runs are named."""

from __future__ import annotations

import contextlib
import datetime
import json
import secrets
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..common.errors import TrtgateError, one_line
from ..common.escaping import printable
from ..common.run_folder import STAMP
from ..common.urls import told_without
from . import compacted_database, compacted_runs
from .compacted_runs import COLUMNS, FOLDER, LONGEST_TEXT, VERSION, Manifest, Part, names_of, rows_from
from .history import SavedRun

SMALL = 4
"""A file with fewer rows than so many times those that are added is made into one with them."""
LEFT_ALONE = datetime.timedelta(hours=1)
"""So long files that count no more stay: who reads them, or is about to finish them, is not disturbed."""


class Compacted(msgspec.Struct, frozen=True, kw_only=True):
    """What came of compacting: how many runs, rows and bytes, and a line for each run that could not be read."""

    runs: int
    rows: int
    bytes: int
    merged: int
    """Small files that were made into this one."""
    problems: list[str]


def compact(
    store: Any, parts: Sequence[Part], problems: Sequence[str], names: Iterable[str],
    rows_of: Callable[[str], list[dict[str, Any]]],
) -> Compacted:  # fmt: skip
    """Write the rows of those runs, by name, that no file has rows of yet. `rows_of` raises TrtgateError.

    `parts` and `problems` are what `all_parts` returned.

    Raises TrtgateError when nothing can be written; what was there before is still there then.
    """
    problems = list(problems)
    pairs = compacted_runs.superseded(parts)
    _clear(store, pairs)
    no_more = {part.name for part, _ in pairs}
    known = [part for part in parts if part.name not in no_more]
    new = sorted(set(names) - {run for part in known for run in part.runs})
    with tempfile.TemporaryDirectory(prefix="trtgate-") as folder:
        rows, done = Path(folder) / "rows.ndjson", dict[str, int]()
        try:
            with rows.open("w") as file:
                for name in new:
                    try:
                        found = rows_of(name)
                    except TrtgateError as error:
                        problems.append(str(error))
                        continue
                    done[name] = len(found)
                    file.writelines(f"{json.dumps(row)}\n" for row in found)
        except OSError as error:
            raise TrtgateError(f"the runs can't be compacted in {folder}: {one_line(error)}") from error
        if not done:
            return Compacted(runs=0, rows=0, bytes=0, merged=0, problems=problems)
        small = [part for part in known if part.rows < SMALL * sum(done.values())]
        total, size = _write(store, rows, small, list(done), Path(folder) / "rows.parquet")
    return Compacted(runs=len(done), rows=total, bytes=size, merged=len(small), problems=problems)


def rows_of(run: SavedRun, name: str) -> list[dict[str, Any]]:
    """Return the rows of a run, whose name in the store they keep. Raises TrtgateError for what no row may hold."""
    rows: list[dict[str, Any]] = [
        {
            "accelerator": run.key, "card": saved.card, "case_id": case_id, "metric": saved.metric,
            "clock": saved.clock, "recorded": saved.point.recorded, "run": name, "commit_id": saved.point.commit,
            "branch": saved.point.branch, "dirty": saved.point.dirty, "latency_us": saved.point.latency_us,
            "verdict": saved.point.verdict, "beside_base": saved.beside_base, "disturbed": saved.disturbed,
        }
        for case_id, saved in run.cases.items()
    ]  # fmt: skip
    for text in (text for row in rows for text in row.values() if isinstance(text, str)):
        if len(text.encode(errors="surrogatepass")) > LONGEST_TEXT or text != text.encode(errors="replace").decode():
            raise TrtgateError(f"{printable(name)} is read one by one: no UTF-8, or too long: {printable(text, 100)}")
    return rows


def _write(store: Any, rows: Path, small: Sequence[Part], done: Sequence[str], made: Path) -> tuple[int, int]:
    """Write a file of rows, with those of small files, then what names its runs; returns its rows and bytes."""
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in COLUMNS.items())
    place = f"read_json('{_quoted(rows)}', format = 'newline_delimited', columns = {{{columns}}})"
    sources = [f"SELECT * FROM {place}"]  # noqa: S608
    seen: set[str] = set()
    given: list[Any] = []
    for part in small:
        sources.append(f"SELECT * FROM {rows_from(part)} WHERE run NOT IN (SELECT unnest(?))")  # noqa: S608
        given.append(sorted(part.runs & seen))
        seen |= part.runs
    everything = " UNION ALL ".join(sources)
    try:
        with compacted_database.database(store) as database:
            total, cases = _made(database, everything, given, made)
    except Exception as error:
        raise TrtgateError(f"the runs can't be compacted: {one_line(error)}") from error
    stamp = datetime.datetime.now(datetime.UTC).strftime(STAMP)
    name, size = f"{FOLDER}/{stamp}-{secrets.token_hex(4)}", made.stat().st_size
    manifest = Manifest(trtgate_compacted=VERSION, rows=total, bytes=size, runs=sorted({*done, *seen}), cases=cases)
    try:
        store.makedirs(FOLDER, exist_ok=True)
        store.put_file(str(made), f"{name}.parquet")
        store.pipe_file(f"{name}.json", msgspec.json.encode(manifest))
    except Exception as error:  # each store has errors of its own
        for suffix in (".json", ".parquet"):
            with contextlib.suppress(Exception):
                store.rm_file(name + suffix)
        raise TrtgateError(f"{name} can't be written: {told_without(one_line(error), ())}") from error
    return total, size


def _made(database: Any, everything: str, given: Sequence[Any], made: Path) -> tuple[int, dict[str, list[str]]]:
    """Write rows into a local file, sorted; returns how many, and the cases of each accelerator."""
    order = "ORDER BY case_id, accelerator, card, recorded"
    database.execute(f"COPY ({everything} {order}) TO '{_quoted(made)}' (FORMAT parquet, COMPRESSION zstd)", given)
    (total,) = database.execute(f"SELECT count(*) FROM read_parquet('{_quoted(made)}')").fetchone()  # noqa: S608
    cases: dict[str, list[str]] = {}
    for key, case_id in database.execute(
        f"SELECT DISTINCT accelerator, case_id FROM read_parquet('{_quoted(made)}') ORDER BY ALL"  # noqa: S608
    ).fetchall():
        cases.setdefault(key, []).append(case_id)
    return total, cases


def _clear(store: Any, pairs: Iterable[tuple[Part, Part]]) -> None:
    """Take away files that count no more, and rows whose writer was killed, as far as the store lets us."""
    gone = list[str]()
    with contextlib.suppress(Exception):  # each store has errors of its own
        without = set(names_of(store, ".parquet")) - set(names_of(store, ".json"))
        gone += [f"{name}.parquet" for name in sorted(without) if _is_old(name)]
    for part, other in pairs:
        gone += [f"{part.name}.json", f"{part.name}.parquet"] * _is_old(other.name)
    for path in gone:
        with contextlib.suppress(Exception):
            store.rm_file(path)


def _is_old(name: str) -> bool:
    try:
        made = datetime.datetime.strptime(name.removeprefix(f"{FOLDER}/").partition("-")[0], STAMP)
    except ValueError:
        return False
    return datetime.datetime.now(datetime.UTC) - made.replace(tzinfo=datetime.UTC) > LEFT_ALONE


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
