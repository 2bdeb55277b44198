"""`trtgate init`: its options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .console import print_lines


def init(
    path: Annotated[Path, typer.Option(help="File of the suite.")] = Path("benchmarks/trtgate_suite.py"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the suite and the workflow.")] = False,
) -> None:
    """Write a suite, its pytest configuration and a CI workflow into the current folder."""
    from . import init_plan

    root = Path.cwd()
    suite = init_plan.inside(root, path)
    steps = init_plan.plan(root, suite, force)
    init_plan.carry_out(steps)
    print_lines([f"{os.path.relpath(step.path)}: {step.said}" for step in steps])
    print_lines(["", f"Next: put your models into {suite}, then", init_plan.next_commands(suite)])
