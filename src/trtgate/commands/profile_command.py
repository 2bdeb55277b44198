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
            help="Of the suite or the zoo, or package.module:factory.",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the files go, a folder a case.")
    ] = Path("profiles"),
    precision: Annotated[list[str] | None, typer.Option(help="fp16 (default), or any other; may be repeated.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="1 by default; may be repeated.")] = None,
    min_block_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Least operators of an engine, 5 by default; may be repeated.")
    ] = None,
    verbosity: Annotated[
        str, typer.Option(help="What engines remember: none, layer_names_only, detailed.")
    ] = "detailed",
    frontend: Annotated[str, typer.Option(help="dynamo or torch_compile.")] = "dynamo",
    shape: ShapeOption = None,
) -> None:
    """Say where the time of a model goes, layer by layer and module by module; writes profile, trace and TREx's files.

    `trtgate profile show FILE...` and `trtgate profile diff A B` take profiles that were recorded, and need no GPU.
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
    """Show profiles that were recorded: what their time adds up to, layer by layer and module by module."""
    from . import profile_answers

    print_lines(profile_answers.show(profiles or []))


def profile_diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A profile, or a folder with a profile.json.")] = "",
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another one.")] = "",
) -> None:
    """Show where the time between two profiles went: every layer's change, largest first, and its cause."""
    from . import profile_answers

    if not old or not new:
        raise TrtgateError("trtgate profile diff takes two profiles: files, or folders with a profile.json")
    print_lines(profile_answers.difference(old, new))
