"""`trtgate ab`: its options, and what it hands to pytest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..common.errors import TrtgateError
from ..suite.pytest_config import STARTED_WITH
from .console import BaseSetupOption

QUIET = ("-W", "ignore:Module already imported so cannot be rewritten; trtgate:pytest.PytestAssertRewriteWarning")
"""What pytest warns of where trtgate is imported before its plugin is found, as here."""


def ab(
    context: typer.Context,
    base: Annotated[str, typer.Option(metavar="REVISION", help="A git revision, checked out beside this one.")] = "",
    base_python: Annotated[
        str, typer.Option(metavar="PATH", help="Path of another Python, with its own torch or Torch-TensorRT.")
    ] = "",
    base_setup: BaseSetupOption = "",
) -> None:
    """Measure a base and this code side by side, and fail (exit code 1) slower cases; no baseline is needed.

    Further arguments go to pytest: a folder (the suite's by default), -k, --trtgate-models, --trtgate-limit, and so on.
    """
    import pytest

    if not base and not base_python:
        raise TrtgateError("trtgate ab needs --base REVISION or --base-python PATH")
    options = {"--trtgate-base": base, "--trtgate-base-python": base_python, "--trtgate-base-setup": base_setup}
    asked = [f"{name}={value}" for name, value in options.items() if value]
    started_with = StartedWith(dict(os.environ))  # asking where the suites are may load conftest files
    given = [*arguments(Path.cwd(), context.args, asked), *QUIET]
    raise typer.Exit(int(pytest.main(given, plugins=[started_with])))


class StartedWith:
    """A plugin that does nothing but know the variables that the command was started with."""

    __name__ = STARTED_WITH

    def __init__(self, variables: dict[str, str]) -> None:
        self.variables = variables


def arguments(folder: Path, given: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Return pytest's arguments: the suites' folders unless something else is named, latency tests alone, the base.

    Raises TrtgateError when no suite is configured for `folder`.
    """
    named = [text for text in given if not text.startswith("-") and Path(text.partition("::")[0]).exists()]
    where: list[str] = []
    if not named:
        from ..launches.suite_here import configured_suite

        source, _, _ = configured_suite(folder)
        files = source.places()
        tested = [file.parent if any(file.parent.glob("test_*.py")) else file for file in files]
        where = [os.path.relpath(place, folder) for place in dict.fromkeys(tested)]
    marked = any(text == "-m" or text.startswith("-m") for text in given)
    return [*where, *given, *([] if marked else ["-m", "trtgate_latency"]), *asked]
