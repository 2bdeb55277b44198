"""`trtgate cache`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import print_lines


def cache(
    action: Annotated[str, typer.Argument(metavar="info|clear", help="Show what is in it, or remove it.")] = "info",
    cases: Annotated[
        list[str] | None, typer.Argument(metavar="[CASE]...", help="Only these; or patterns such as '*resnet18*'.")
    ] = None,
) -> None:
    """Show or clear the artifact cache: compiled modules that runs of the gate load instead of building them again."""
    from . import cache_contents

    print_lines(cache_contents.run(action, cases or []))
