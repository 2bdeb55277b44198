"""What many devices are at, as a table: one row each, of all nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from ..common.escaping import terminal

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS = 32
"""Of more devices those that have been at their step longest are shown."""


class CardRow(msgspec.Struct, frozen=True, kw_only=True):
    """A device: where it is, the case that it is at, the step and for how many seconds, how many cases it has done."""

    host: str
    device: str
    case_id: str = ""
    text: str = ""
    seconds: float = 0.0
    done: int = 0
    lost: str = ""


class Progress(msgspec.Struct, frozen=True):
    """How far a run is: a title, and what each of its devices is at."""

    title: str
    rows: list[CardRow]


def table(progress: Progress) -> Table:
    """Return the table, its title above it."""
    from rich.table import Table
    from rich.text import Text

    rows: Sequence[CardRow] = progress.rows
    made = Table(title=Text(terminal(progress.title)), title_justify="left", box=None, pad_edge=False)
    for name, justify in (("node", "left"), ("device", "left"), ("done", "right"), ("case", "left"), ("step", "left")):
        made.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    shown = sorted(rows, key=lambda row: -row.seconds)[:MOST_ROWS] if len(rows) > MOST_ROWS else rows
    for row in shown:
        step = f"lost: {row.lost}" if row.lost else f"{row.text} … {row.seconds:.0f} s" if row.text else "waits"
        cells = (row.host, row.device, str(row.done), row.case_id, step)
        made.add_row(*(Text(terminal(cell)) for cell in cells))
    if len(rows) > len(shown):
        made.add_row(Text(f"and {len(rows) - len(shown)} more"))
    return made
