"""What the commands of `trtgate` share: how they print, their exit codes, and the group that they belong to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..common.errors import TrtgateError
from ..common.steps import OnStep

BROKEN, INTERRUPTED, USAGE_ERROR = 1, 2, 4
"""Exit codes: as pytest's for failed tests, Ctrl-C and usage errors."""

BaselinesOption = Annotated[
    Path | None,
    typer.Option("--baselines", metavar="DIR", help="Folder of the baselines (the ini key trtgate_baselines)."),
]


class Commands(typer.core.TyperGroup):
    """Commands whose TrtgateError is one line. `coverage diff` is one of two words, and goes before `coverage`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command, and its arguments."""
        two_words = " ".join(args[:2])
        command = self.get_command(ctx, two_words)
        return super().resolve_command(ctx, args) if command is None else (two_words, command, args[2:])

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TrtgateError as error:
            typer.echo(f"trtgate: error: {error}", err=True)
            raise typer.Exit(USAGE_ERROR) from error


def print_lines(lines: list[str]) -> None:
    """Print lines to stdout."""
    for line in lines:
        typer.echo(line)


@contextmanager
def progress() -> Iterator[OnStep]:
    """Show what takes long on stderr: live on a terminal, else a line for each step that begins."""
    if not sys.stderr.isatty():
        yield lambda text: typer.echo(f"trtgate: {text}", err=True)
        return
    from ..report.progress_line import ProgressLine

    shown = ProgressLine(lambda _: None, lambda text: typer.echo(f"\r\x1b[K{text}", nl=False, err=True))
    try:
        yield shown.step
    finally:
        shown.done()
