"""`trtgate locate`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import BROKEN, print_lines, progress


def locate(
    case: Annotated[str, typer.Argument(metavar="CASE", help="Id of a case of this folder's suite.")],
    tolerance: Annotated[
        float | None,
        typer.Option(metavar="RELATIVE_L2", help="Largest error of a submodule; by default that of the precision."),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Compile no further submodule after this time; no limit by default."),
    ] = None,
) -> None:
    """Find the first submodule of a case that is wrong after compilation.

    Exit code 0: the output is right. 1: it is wrong. 4: the case can't be compared.
    """
    from . import locate_answers

    locate_answers.check_numbers(tolerance, time_limit)
    with progress() as step:
        found = locate_answers.find(case, tolerance, time_limit, step)
    print_lines(locate_answers.lines(case, found, time_limit))
    if found.kind != "right":
        raise typer.Exit(BROKEN)
