"""`trtgate report`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import print_document, print_lines


def report(
    run: Annotated[str, typer.Argument(metavar="RUN.json", help="Report of --trtgate-report: a file or a URL.")],
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write Markdown to this file instead of stdout.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one HTML file with charts.")] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the whole report as JSON, for a script or an agent.")
    ] = False,
) -> None:
    """Make a report of a run, on any machine: Markdown for a pull request or a job summary, HTML for details."""
    from ..common import run_places
    from ..report import run_report
    from . import report_files

    found = run_report.read(run_places.one(run))
    if json:
        print_document(report_files.as_json(found))
    if markdown or html or not json:
        print_lines(report_files.make(found, to_markdown=markdown, to_html=html), err=json)
