"""`trtgate report`: what was written by --trtgate-report, made into something to read, on any machine."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..common.errors import TrtgateError
from ..common.files import pretty, write_whole
from ..report import html, markdown
from ..report.run_report import RunReport


def make(report: RunReport, *, to_markdown: Path | None, to_html: Path | None = None) -> list[str]:
    """Make what is asked for of a report; returns what to say, or the Markdown where no file is named.

    Raises TrtgateError when something can't be written.
    """
    if to_markdown is None and to_html is None:
        return [markdown.render(report).rstrip()]
    return [
        _written(target, render(report)) for target, render in ((to_markdown, markdown.render), (to_html, html.render))
        if target is not None
    ]  # fmt: skip


def as_json(report: RunReport) -> str:
    """Return a report as `--trtgate-report` writes it: of one that an earlier version wrote with today's fields."""
    return pretty(msgspec.to_builtins(report)) + "\n"


def _written(target: Path, content: str) -> str:
    try:
        write_whole(target, content.encode())
    except OSError as error:
        raise TrtgateError(f"{target} can't be written: {error.strerror}") from error
    return f"written: {target}"
