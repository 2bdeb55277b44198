"""`trtgate export`: its options."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .console import print_document, print_lines


class Format(StrEnum):
    """What can be written."""

    GITHUB_ACTION_BENCHMARK = "github-action-benchmark"
    CSV = "csv"
    PARQUET = "parquet"


def export(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Saved runs or reports of --trtgate-report: files or URLs."),
    ],
    to: Annotated[Format, typer.Option(help="Format of the other tool.")],
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this file instead of stdout.")] = None,
) -> None:
    """Write runs for other tools: one row for each case and metric, with baseline, verdict and versions."""
    from . import export_files

    done = export_files.export(runs, to, output)
    print_lines([f"trtgate: warning: {warning}" for warning in done.warnings], err=True)
    if output is None:
        print_document(done.text)
    else:
        print_lines([f"written: {output} ({done.rows} rows)"])
