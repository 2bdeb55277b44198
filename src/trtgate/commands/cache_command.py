"""`trtgate cache info` and `trtgate cache clear`: their options."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import print_lines

CasesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="CASE...", help="Only these cases, or patterns such as '*resnet18*'.")
]


def info(cases: CasesArgument = None) -> None:
    """Show the stored compiled modules, and the caches that each frontend leaves."""
    from . import cache_contents

    print_lines(cache_contents.info(cases or []))


def clear(cases: CasesArgument = None) -> None:
    """Remove compiled modules: all, or those of some cases."""
    from . import cache_contents

    print_lines(cache_contents.clear(cases or []))
