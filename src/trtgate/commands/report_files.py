"""`trtgate report`: what was written by --trtgate-report, made into something to read, on any machine."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..common.errors import TrtgateError
from ..common.files import pretty, write_whole
from ..common.run_places import Place
from ..report import html, markdown, run_report


def make(path: Place, *, to_markdown: Path | None, to_html: Path | None = None) -> list[str]:
    """Make what is asked for of a report; returns what to say, or the Markdown where no file is named.

    Raises TrtgateError when the report can't be read, or something can't be written.
    """
    report = run_report.read(path)
    if to_markdown is None and to_html is None:
        return [markdown.render(report).rstrip()]
    return [
        _written(target, render(report)) for target, render in ((to_markdown, markdown.render), (to_html, html.render))
        if target is not None
    ]  # fmt: skip


def as_json(path: Place) -> str:
    """Return a report as `--trtgate-report` writes it: of one that an earlier version wrote with today's fields.

    Raises TrtgateError when it can't be read.
    """
    return pretty(msgspec.to_builtins(run_report.read(path))) + "\n"


def _written(target: Path, content: str) -> str:
    try:
        write_whole(target, content.encode())
    except OSError as error:
        raise TrtgateError(f"{target} can't be written: {error.strerror}") from error
    return f"written: {target}"
