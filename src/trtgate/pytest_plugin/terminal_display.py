"""Tables at the end of a run, on pytest's terminal."""

from __future__ import annotations

from typing import Any

from ..common.text_columns import Display, TextTable


def write_table(terminalreporter: Any, table: TextTable) -> None:
    """Write a table as wide as the terminal, or as wide as it is into a pipe; pytest decides about colour."""
    writer = getattr(terminalreporter, "_tw", None)
    display = Display(
        width=getattr(writer, "fullwidth", None) if getattr(terminalreporter, "isatty", False) else None,
        color=terminalreporter.hasmarkup,
        encoding=getattr(getattr(writer, "_file", None), "encoding", None) or "ascii",
    )
    for line in table.lines(display):  # pytest escapes line ends too in a text that the terminal can't show
        terminalreporter.write_line(line)
