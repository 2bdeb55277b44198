"""`trtgate sweep`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..common.time_limit import TimeLimit
from .console import BROKEN, INTERRUPTED, NoCacheOption, TimeoutOption, cache_request, print_lines, progress, say

if TYPE_CHECKING:
    from ..report.sweep_table import SweepFindings
    from .sweep_request import Request


def sweep(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Model of the suite or the zoo, or package.module:factory.")
    ],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=A,B",
            help="Setting to vary: min_block_size=1,5,recommended, optimization_level=0..5, seq=16,128.",
        ),
    ] = None,
    default: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Setting of the default point: frontend=dynamo, precision=fp16, batch=1.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=FILE", help="State dict as safetensors; by default the factory's weights."),
    ] = None,
    launches: Annotated[int, typer.Option(min=1, help="Number of processes that measure every point.")] = 3,
    builders: Annotated[
        int, typer.Option(min=1, help="Number of builds at once; above 1, build seconds are longer.")
    ] = 1,
    inputs: Annotated[int, typer.Option(min=0, help="Number of inputs for accuracy; 0: none.")] = 64,
    timeout: TimeoutOption = 900.0,
    no_cache: NoCacheOption = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard the measurements of an earlier sweep here.")] = False,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all measurements as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write one line for each point.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page with charts.")] = None,
) -> None:
    """Build, check and measure a model under many settings, interleaved, and show which differences are real.

    The first point is the default (--set), the others are all combinations of --vary. An interrupted sweep goes on
    where it was when the same is asked again.
    """
    from ..report.sweep_table import lines
    from ..report.terminal_table import describe
    from . import sweep_request

    found = _run(sweep_request.Request(
        models=tuple(models), vary=tuple(vary or ()), default=tuple(default or ()),
        weights=sweep_request.weights_of(weights or []), launches=launches, builders=builders, inputs=inputs,
        timeout_s=TimeLimit(timeout, "--timeout"), fresh=fresh,
        cache=cache_request(no_cache=no_cache),
    ))  # fmt: skip
    print_lines([describe(found.accelerator), "", *lines(found)])
    sweep_request.save(found, json, csv, html)
    _end(found)


def _run(request: Request) -> SweepFindings:
    """Sweep, and end with pytest's exit code where Ctrl-C came before there was anything to show."""
    from ..common.run_folder import usable
    from . import sweep_request

    try:
        with progress() as step:
            return sweep_request.run(request, usable(Path.cwd() / ".trtgate", step), step)
    except KeyboardInterrupt:
        say("trtgate: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _end(found: SweepFindings) -> None:
    if found.interrupted:
        say("trtgate: interrupted; what was measured is kept, and the same command goes on from there", err=True)
        raise typer.Exit(INTERRUPTED)
    if found.failed:
        raise typer.Exit(BROKEN)
