"""`trtgate baseline show`, `diff`, `accept` and `remove`: their options."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common.explanations import Explanation, explained
from ..suite.pytest_config import baselines_folder
from .console import BROKEN, BaselinesOption, print_lines


def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[KEY|FILE]", help="An accelerator key or a file; all keys by default.")
    ] = None,
    baselines: BaselinesOption = None,
) -> None:
    """List the cases of baselines or of a saved run."""
    from . import baseline_files

    folder = baselines_folder(baselines)
    runs = baseline_files.everything(folder) if name is None else [baseline_files.find(name, folder)]
    for number, run in enumerate(runs):
        print_lines([""] * (number > 0) + baseline_files.shown(run))


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A file or a key.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="A file or a key, such as a saved run.")],
    baselines: BaselinesOption = None,
) -> None:
    """Show the differences between two baselines or saved runs."""
    from . import baseline_files

    folder = baselines_folder(baselines)
    print_lines(baseline_files.compared(baseline_files.find(old, folder), baseline_files.find(new, folder)))


def accept(
    run: Annotated[
        str, typer.Argument(metavar="RUN.json", help="A saved run: a file, such as a CI artifact, or a URL.")
    ],
    cases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CASE]...", help="Cases to store, even if regressed; by default all that did not regress."
        ),
    ] = None,
    baselines: BaselinesOption = None,
) -> None:
    """Store a saved run as its accelerator's baseline; other cases do not change."""
    from ..common.run_places import one
    from ..gate.baselines import describe, read
    from . import baseline_files

    done = baseline_files.accept(read(one(run)), baselines_folder(baselines), cases or [])
    refused = [change for change in done.updates if change.refused]
    print_lines([f"stored: {describe(change)}" for change in done.updates if not change.refused])
    not_stored = [f"not stored: {line}" for line in (*done.unused, *map(describe, refused))]
    print_lines([explained(line, Explanation.NOT_STORED) for line in not_stored])
    print_lines([f"is stored already: {case_id}" for case_id in done.known])
    print_lines(
        [f"left out: {case_id} is {verdict}; name it to store it" for case_id, verdict in done.left_out.items()]
    )
    if len(refused) < len(done.updates):
        print_lines([f"written: {done.path}"])
    if refused or done.unused:
        raise typer.Exit(BROKEN)


def remove(
    cases: Annotated[list[str], typer.Argument(metavar="CASE...", help="Cases to remove for good, or patterns.")],
    baselines: BaselinesOption = None,
) -> None:
    """Remove cases from the baselines of all accelerators."""
    from . import baseline_files

    print_lines(baseline_files.remove(baselines_folder(baselines), cases))
