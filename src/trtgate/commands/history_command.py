"""`trtgate history`: its options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .console import print_lines


def history(
    cases: Annotated[list[str], typer.Argument(metavar="CASE...", help="Or patterns such as '*resnet18*'.")],
    runs: Annotated[
        str | None, typer.Option(metavar="DIR|URL", help="Saved runs (the ini key trtgate_runs, else .trtgate/runs).")
    ] = None,
    accelerator: Annotated[str, typer.Option(metavar="KEY", help="Of another machine than this.")] = "",
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all that was found.")] = None,
) -> None:
    """Show cases over the saved runs: where their latency changed, and slow drift that no single run shows."""
    from . import history_text

    found = history_text.find(cases, history_text.folder_of(runs), accelerator)
    print_lines(history_text.lines(found, sys.stdout.encoding))
    if json is not None:
        history_text.save(found, json)
        print_lines([f"written: {json}"])
