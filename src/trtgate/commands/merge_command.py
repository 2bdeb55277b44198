"""`trtgate merge`: its options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..common import git
from ..common.urls import without_secrets
from ..suite.pytest_config import baselines_folder, find_configuration, runs_folder
from .console import BaselinesOption, print_commands, print_lines


def merge(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN.json...",
            help="Runs of pytest --trtgate-shard: files, URLs, or a folder or URL with the runs of this commit.",
        ),
    ],
    baselines: BaselinesOption = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report, as --trtgate-report does.")
    ] = None,
    junit_xml: Annotated[
        Path | None, typer.Option("--junit-xml", metavar="FILE", help="Write JUnit XML, as pytest does.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of the judged run (default: in .trtgate/runs).")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the evidence of every verdict.")] = False,
) -> None:
    """Judge all shards of a run at once: table, reports and exit code as of one run, on a machine without a GPU.

    Exit code 1: a case got slower, is wrong or missing. 6: only the confirmation of a suspicion is missing; the
    command that measures it is printed.
    """
    from ..common import run_places
    from . import merge_files

    configured = find_configuration(Path.cwd())
    root = Path.cwd() if configured is None else configured.path.parent
    done = merge_files.merge(
        run_places.several(runs, git.head(Path.cwd())), baselines_folder(baselines), root,
        command=["trtgate", *map(without_secrets, sys.argv[1:])], report=report, junit_xml=junit_xml, output=output,
        verbose=verbose, kept=runs_folder(),
    )  # fmt: skip
    print_lines(done.lines)
    print_commands(done.annotations)
    if done.status:
        raise typer.Exit(done.status)
