"""`trtgate report`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import print_lines


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN.json", help="Written by pytest's --trtgate-report.")],
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write Markdown there, not here.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one HTML file with charts.")] = None,
) -> None:
    """Make a report of a run, on any machine: Markdown for a pull request or a job summary, HTML to look into it."""
    from . import report_files

    print_lines(report_files.make(run, to_markdown=markdown, to_html=html))
