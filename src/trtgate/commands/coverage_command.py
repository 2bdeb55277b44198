"""`trtgate coverage` and `trtgate coverage diff`: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common.errors import TrtgateError
from .console import BROKEN, BaselinesOption, print_lines, progress
from .shape_options import ShapeOption


def coverage(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL...", help="Model of the suite or the zoo, or package.module:factory."),
    ] = None,
    whole_zoo: Annotated[bool, typer.Option("--zoo", help="Check some 110 well-known models.")] = False,
    min_block_size: Annotated[int, typer.Option(min=1, help="Smallest number of operators in an engine.")] = 5,
    precision: Annotated[list[str] | None, typer.Option(help="Precision, fp16 by default; may be repeated.")] = None,
    torch_executed_op: Annotated[
        list[str] | None, typer.Option(help="Operator that stays in PyTorch, such as aten.relu; may be repeated.")
    ] = None,
    frontend: Annotated[str, typer.Option(help="dynamo or torch_compile.")] = "dynamo",
    shape: ShapeOption = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all results as JSON.")] = None,
) -> None:
    """Show which operators Torch-TensorRT takes, in which engines, and why it leaves the others; needs no GPU.

    `trtgate coverage diff A B` compares stored releases.
    """
    from ..suite import zoo
    from . import coverage_answers

    precisions = precision or ["fp16"]
    wanted = coverage_answers.cases(
        models or [],
        whole_zoo=whole_zoo,
        frontend=frontend,
        precisions=precisions,
        min_block_size=min_block_size,
        torch_executed_ops=torch_executed_op or [],
        shape=shape or [],
    )
    with progress() as step:
        answers = coverage_answers.ask(wanted, step)
    from ..torch_trt import releases

    print_lines(coverage_answers.shown(answers, releases.installed_release()))
    if whole_zoo:
        print_lines(zoo.left_out(precisions))
    if json is not None:
        coverage_answers.save(answers, releases.installed_release(), json)
        print_lines([f"written: {json}"])
    if any(answer.problem for answer in answers):
        raise typer.Exit(BROKEN)


def coverage_diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A stored release, such as 2.11.0, or a folder.")] = "",
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another release or folder.")] = "",
    baselines: BaselinesOption = None,
) -> None:
    """Show the cases that lost or gained coverage between two stored releases."""
    from . import coverage_answers

    if not old or not new:
        raise TrtgateError("trtgate coverage diff takes two releases or folders")
    print_lines(coverage_answers.differences(old, new, baselines))
