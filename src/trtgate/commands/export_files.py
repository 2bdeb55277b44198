"""What `trtgate export` does: read runs, write them for another tool. Needs neither a GPU nor torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..common import run_places
from ..common.errors import TrtgateError
from ..common.files import decoded, write_whole
from ..common.run_places import Place
from ..gate import baselines
from ..report import export_csv, export_github_benchmark, export_parquet, export_rows, run_report
from ..report.export_rows import ExportRow

PARQUET = "parquet"
TEXTS = {"csv": export_csv.render, "github-action-benchmark": export_github_benchmark.render}


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What was written, or, where no file was named, is to be printed."""

    rows: int
    text: str = ""
    warnings: list[str] = []
    """A line for each session that can't be used, and each run that did not end."""


class _Kind(msgspec.Struct):
    """What tells a report from a saved run."""

    against: str | None = None
    benchmarks: msgspec.Raw | None = None


def export(names: Sequence[str], to: str, output: Path | None) -> Exported:
    """Write runs to a file, or return the text; a file or a URL that is named twice counts once.

    Raises TrtgateError for a file that is no run, for runs without a value, and when the file can't be written.
    """
    if to == PARQUET and output is None:
        raise TrtgateError("Parquet is not text: name a file with --output FILE")
    places = {_real(place): place for place in map(run_places.one, names)}
    if output is not None and _real(output) in places:
        raise TrtgateError(f"{output} is a run that is to be exported, and would be lost: name another file")
    warnings: list[str] = []
    rows = [row for place in places.values() for row in _rows(place, warnings)]
    if not rows:
        why = f"; {warnings[0]}" if warnings else ""
        raise TrtgateError(f"nothing to export: no case was measured in {', '.join(names)}{why}")
    content = _rendered(rows, to)
    if output is None:
        return Exported(rows=len(rows), text=content.decode(), warnings=warnings)
    try:
        write_whole(output, content)
    except OSError as error:
        raise TrtgateError(f"{output} can't be written: {error.strerror}") from error
    return Exported(rows=len(rows), warnings=warnings)


def _real(place: Place) -> str:
    return os.path.realpath(place) if isinstance(place, Path) else str(place)


def _rows(path: Place, warnings: list[str]) -> list[ExportRow]:
    if _is_report(path):
        return export_rows.of_report(path, run_report.read(path))
    run = baselines.read(path)
    warnings += run.unused
    if run.unfinished:
        warnings.append(f"{path} goes on, or was killed: it may have a part of its cases alone")
    return export_rows.of_run(run)


def _is_report(path: Place) -> bool:
    try:
        kind = decoded(run_places.content_of(path), _Kind)
    except (OSError, TrtgateError, msgspec.DecodeError):  # who reads it as a run says what is wrong
        return False
    return kind.against is not None and kind.benchmarks is None


def _rendered(rows: Sequence[ExportRow], to: str) -> bytes:
    if to == PARQUET:
        return export_parquet.render(rows)
    return TEXTS[to](rows).encode()
