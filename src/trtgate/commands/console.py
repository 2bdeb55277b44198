"""What the commands of `trtgate` share: how they print, their exit codes, and the group that they belong to."""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from ..common.errors import PROBLEMS, sentence_of
from ..common.escaping import encodable, terminal
from ..common.explanations import Explanation, explained
from ..common.steps import OnStep
from ..common.text_columns import Display, Line, TextTable, rendered

if TYPE_CHECKING:
    from ..compiling.artifact_cache import CacheRequest

BROKEN, INTERRUPTED, USAGE_ERROR = 1, 2, 4
"""Exit codes: as pytest's for failed tests, Ctrl-C and usage errors."""

UsageError: Any = typer.BadParameter.__mro__[1]
"""click's; some releases of Typer carry a click of their own."""

BaselinesOption = Annotated[
    Path | None,
    typer.Option("--baselines", metavar="DIR", help="Folder of the baselines (the ini key trtgate_baselines)."),
]
BaseSetupOption = Annotated[str, typer.Option(metavar="COMMAND", help="Command to run first in the base's worktree.")]
NoCacheOption = Annotated[bool, typer.Option("--no-cache", help="Do not use the artifact cache.")]


def _time_limit(seconds: float) -> float:
    if not 0 < seconds < math.inf:
        raise typer.BadParameter(f"must be a number of seconds above 0, not {seconds:g}")
    return seconds


TimeoutOption = Annotated[
    float, typer.Option(metavar="SECONDS", help="Time limit of one step of a worker.", callback=_time_limit)
]


def cache_request(*, no_cache: bool) -> CacheRequest | None:
    """Return the artifact cache that a command uses, as large as the ini key allows; None with `--no-cache`.

    Raises TrtgateError where there is no home directory, or the key has no size.
    """
    from ..compiling import artifact_cache
    from ..suite.pytest_config import find_configuration

    if no_cache:
        return None
    found = find_configuration(Path.cwd())
    size = None if found is None else found.values.get("trtgate_cache_size")
    limit_bytes = artifact_cache.LIMIT_BYTES if size is None else artifact_cache.limit_of(size)
    return artifact_cache.CacheRequest(folder=str(artifact_cache.default_folder()), limit_bytes=limit_bytes)


class Commands(typer.core.TyperGroup):
    """Commands whose TrtgateError or OSError is one line, and whose usage errors are told from an interruption.

    The line ends with the name of an explanation; a sentence that has one keeps its own.

    `coverage diff` is one of two words, and goes before `coverage`.
    """

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        """Read the options before the command."""
        with _usage_errors():
            return super().make_context(*arguments, **named)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command, and its arguments."""
        two_words = " ".join(args[:2])
        command = self.get_command(ctx, two_words)
        return super().resolve_command(ctx, args) if command is None else (two_words, command, args[2:])

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            with _usage_errors():
                return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except PROBLEMS as error:
            said = explained(sentence_of(error), Explanation.COMMAND_REFUSED)
            say(f"trtgate: error: {said}", err=True)
            raise typer.Exit(USAGE_ERROR) from error


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Within: what click refuses ends with USAGE_ERROR, not with its 2."""
    try:
        yield
    except UsageError as error:
        error.exit_code = USAGE_ERROR
        raise


def print_lines(lines: Sequence[Line], *, err: bool = False) -> None:
    """Print lines and tables to stdout, or to stderr."""
    for line in lines:
        if isinstance(line, TextTable):
            for row in line.lines(_display(sys.stderr if err else sys.stdout)):
                typer.echo(row, err=err)
        else:
            say(line, err=err)


def _display(stream: TextIO | None) -> Display:
    """Return what a stream shows: as much as it gets, without colour, unless it is a terminal; None is a closed one."""
    encoding = getattr(stream, "encoding", None) or "ascii"
    if stream is None or not stream.isatty():
        return Display(encoding=encoding)
    color = not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", "unknown")
    return Display(width=shutil.get_terminal_size().columns, color=color, encoding=encoding)


def print_document(text: str) -> None:
    """Print a text for another program, whose parts are escaped, as it is; as far as stdout can show it."""
    typer.echo(encodable(text, sys.stdout.encoding or "ascii"), nl=False)


def print_markdown(text: str) -> None:
    """Print Markdown of ours: rendered on a terminal, else as it is. Commands in it are never broken into lines."""
    display = _display(sys.stdout)
    if display.width is None:
        print_document(text)
        return
    for number, part in enumerate(re.split(r"^```.*\n", text, flags=re.MULTILINE)):
        shown = ["", *(f"  {line}" for line in part.splitlines())] if number % 2 else _prose(part, display)
        print_document("".join(f"{line}\n" for line in shown))


def _prose(text: str, display: Display) -> list[str]:
    """Return Markdown without fences as lines for a terminal."""
    from rich.markdown import Markdown

    return rendered(Markdown(text, hyperlinks=False), display.width, color=display.color)


def print_commands(commands: list[str]) -> None:
    """Print commands for GitHub's runner, whose parts are escaped: nothing but these may look like one."""
    for command in commands:
        typer.echo(command)


def say(text: str, *, err: bool = False) -> None:
    """Print a line: the one door to the terminal, which gets nothing that it would obey or can't show."""
    stream = sys.stderr if err else sys.stdout
    typer.echo(encodable(terminal(text), getattr(stream, "encoding", None) or "ascii"), err=err)


@contextmanager
def progress() -> Iterator[OnStep]:
    """Show what takes long on stderr: live on a terminal, else a line for each step that begins."""
    if not sys.stderr.isatty():
        yield lambda text: say(f"trtgate: {text}", err=True)
        return
    from ..report.progress_line import ProgressLine

    def overwrite(text: str) -> None:
        shown = encodable(terminal(text), sys.stderr.encoding or "ascii")
        typer.echo(f"\r\x1b[K{shown}", nl=False, err=True)

    shown = ProgressLine(lambda _: None, overwrite)
    try:
        yield shown.step
    finally:
        shown.done()
