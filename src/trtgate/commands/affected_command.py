"""`trtgate affected`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import BROKEN, INTERRUPTED, BaselinesOption, BaseSetupOption, TimeoutOption, print_lines, progress, say


def affected(
    base: Annotated[
        str,
        typer.Option(
            metavar="REVISION|baseline", help="A git revision, or the code that the stored baseline measured."
        ),
    ],
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Models of the suite; all by default.")
    ] = None,
    frontend: Annotated[list[str] | None, typer.Option(help="Only cases of this frontend; may be repeated.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Only cases of this precision; may be repeated.")] = None,
    accelerator: Annotated[
        str, typer.Option(metavar="KEY", help="Accelerator of the baseline, if there are several.")
    ] = "",
    base_setup: BaseSetupOption = "",
    baselines: BaselinesOption = None,
    timeout: TimeoutOption = 900.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """List the cases that a change touches, and their differences; needs no GPU, and builds nothing.

    A case with the base's graph, weights, inputs, settings, flags and libraries need not be measured: CI can skip its
    GPU job. A case that can't be fingerprinted (frontends other than dynamo, random factories) counts as touched.
    Exit code 0: nothing is touched. 1: something is, as with git diff --exit-code. 4: no answer.
    """
    from . import affected_answers

    wanted = affected_answers.Wanted(
        base=base, models=tuple(models or ()), frontends=tuple(frontend or ()), precisions=tuple(precision or ()),
        accelerator=accelerator, setup=base_setup, baselines=baselines, timeout_s=timeout,
    )  # fmt: skip
    try:
        with progress() as step:
            found = affected_answers.ask(wanted, step)
    except KeyboardInterrupt:
        say("trtgate: interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if json:
        say(affected_answers.as_json(found))
    else:
        print_lines(affected_answers.lines(found))
    if found.touched:
        raise typer.Exit(BROKEN)
