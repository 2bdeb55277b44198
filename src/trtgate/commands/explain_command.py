"""`trtgate explain`: its options."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import print_lines, print_markdown


def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="The name at the end of a sentence, (docs: NAME); lists all names by default."
        ),
    ] = None,
) -> None:
    """Explain a failure: its meaning, how it is decided, what to look at and what to do; needs no network."""
    from . import explanation_texts

    if name is None:
        print_lines([explanation_texts.listed()])
    else:
        print_markdown(explanation_texts.text_of(name))
