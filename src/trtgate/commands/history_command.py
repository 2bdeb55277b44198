"""`trtgate history` and `trtgate runs compact`: their options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .console import print_lines

RunsOption = Annotated[
    str | None,
    typer.Option(
        "--runs", metavar="DIR|URL", help="Place of the saved runs (the ini key trtgate_runs, else .trtgate/runs)."
    ),
]


def history(
    cases: Annotated[list[str], typer.Argument(metavar="CASE...", help="Case ids, or patterns such as '*resnet18*'.")],
    runs: RunsOption = None,
    accelerator: Annotated[
        str, typer.Option(metavar="KEY", help="Runs of another accelerator than this machine's; all: of every one.")
    ] = "",
    since: Annotated[str, typer.Option(metavar="AGE", help="Only runs of the last 90d or 12w, or since a date.")] = "",
    branch: Annotated[str, typer.Option(metavar="NAME", help="Only runs of this branch.")] = "",
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with all cases by accelerator.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all results as JSON.")] = None,
    fail_on_drift: Annotated[
        bool, typer.Option("--fail-on-drift", help="Exit with 1 if a case gets slower bit by bit.")
    ] = False,
) -> None:
    """Show cases over the saved runs: changes of latency, and slow drift that no single run shows."""
    from ..gate.saved_runs import Asked
    from . import history_answers, history_text

    asked = Asked(key=accelerator, since=history_answers.since(since), branch=branch)
    found = history_answers.find(cases, history_answers.folder_of(runs), asked)
    print_lines(history_text.lines(found, sys.stdout.encoding))
    for path, write in ((json, history_answers.save), (html, history_text.save_page)):
        if path is not None:
            write(found, path)
            print_lines([f"written: {path}"])
    if fail_on_drift and found.drifting:
        print_lines([history_text.alarm(found.drifting)])
        raise typer.Exit(1)


def compact(runs: RunsOption = None) -> None:
    """Compact the saved runs into few files, so that `trtgate history` reads thousands of runs in seconds."""
    from . import history_answers, history_text

    print_lines(history_text.about_compacted(history_answers.compact(history_answers.folder_of(runs))))
