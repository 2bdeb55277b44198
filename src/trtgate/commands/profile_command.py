"""`trtgate profile`, `trtgate profile show` and `trtgate profile diff`: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common.errors import TrtgateError
from .console import BROKEN, print_lines, progress
from .shape_options import ShapeOption


def profile(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Model of the suite or the zoo, or package.module:factory.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Output folder, with a folder for each case.")
    ] = Path("profiles"),
    precision: Annotated[list[str] | None, typer.Option(help="Precision, fp16 by default; may be repeated.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Batch size, 1 by default; may be repeated.")] = None,
    min_block_size: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Smallest number of operators in an engine, 5 by default; may be repeated."),
    ] = None,
    verbosity: Annotated[
        str, typer.Option(help="Details of layers in engines: none, layer_names_only, detailed.")
    ] = "detailed",
    frontend: Annotated[str, typer.Option(help="dynamo or torch_compile.")] = "dynamo",
    shape: ShapeOption = None,
) -> None:
    """Show the time of a model by layer and by module; writes profile, trace and TREx's files.

    `trtgate profile show FILE...` and `trtgate profile diff A B` take recorded profiles, and need no GPU.
    """
    from . import profile_answers

    wanted = profile_answers.cases(
        models or [],
        frontend=frontend,
        precisions=precision or ["fp16"],
        batches=batch or [1],
        min_block_sizes=min_block_size or [5],
        verbosity=verbosity,
        shape=shape or [],
    )
    with progress() as step:
        answers = profile_answers.record(wanted, output, step)
    print_lines(profile_answers.lines(answers))
    if any(answer.problem for answer in answers):
        raise typer.Exit(BROKEN)


def profile_show(
    profiles: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="Profiles, or folders with a profile.json.")
    ] = None,
) -> None:
    """Show recorded profiles: their time by layer and by module."""
    from . import profile_answers

    print_lines(profile_answers.show(profiles or []))


def profile_diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A profile, or a folder with a profile.json.")] = "",
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another profile.")] = "",
) -> None:
    """Compare two profiles: every layer's change, largest first, and its cause."""
    from . import profile_answers

    if not old or not new:
        raise TrtgateError("trtgate profile diff takes two profiles: files, or folders with a profile.json")
    print_lines(profile_answers.difference(old, new))
