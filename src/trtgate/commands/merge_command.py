"""`trtgate merge`: its options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..suite.pytest_config import baselines_folder, find_configuration
from .console import BaselinesOption, print_commands, print_lines


def merge(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN.json...", help="Saved by pytest --trtgate-shard.")],
    baselines: BaselinesOption = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="As pytest's --trtgate-report.")] = None,
    junit_xml: Annotated[Path | None, typer.Option("--junit-xml", metavar="FILE", help="As pytest's.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the judged run is saved (in .trtgate/runs).")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say what every verdict rests on.")] = False,
) -> None:
    """Judge all shards of a run at once: table, reports and exit code as of one run, on a machine without a GPU.

    Exit code 1: something got slower, is wrong or missing. 6: nothing but the confirmation of a suspicion is lacking,
    and the command that measures it is printed.
    """
    from . import merge_files

    configured = find_configuration(Path.cwd())
    root = Path.cwd() if configured is None else configured.path.parent
    done = merge_files.merge(
        runs, baselines_folder(baselines), root, command=["trtgate", *sys.argv[1:]], report=report,
        junit_xml=junit_xml, output=output, verbose=verbose,
    )  # fmt: skip
    print_lines(done.lines)
    print_commands(done.annotations)
    if done.status:
        raise typer.Exit(done.status)
