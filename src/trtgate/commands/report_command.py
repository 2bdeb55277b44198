"""`trtgate report`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import print_lines


def report(
    run: Annotated[str, typer.Argument(metavar="RUN.json", help="Report of --trtgate-report: a file or a URL.")],
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write Markdown to this file instead of stdout.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one HTML file with charts.")] = None,
) -> None:
    """Make a report of a run, on any machine: Markdown for a pull request or a job summary, HTML for details."""
    from ..common import run_places
    from . import report_files

    print_lines(report_files.make(run_places.one(run), to_markdown=markdown, to_html=html))
