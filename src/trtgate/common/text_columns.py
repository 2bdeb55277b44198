"""Plain text: tables, which rich makes, lists cut short, numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from .escaping import encodable, terminal

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.padding import Padding

LEAST_FOLDED = 12
"""Characters to which a column of text is folded at least."""
_GAP = 2
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Display(msgspec.Struct, frozen=True, kw_only=True):
    """Where text is shown."""

    width: int | None = None
    """Characters of a terminal's line; None for a pipe or a file, whose lines are as long as they need to be."""
    color: bool = False
    encoding: str = "utf-8"


PIPE = Display()


class TextTable(msgspec.Struct, frozen=True):
    """Rows of as many cells each, for a terminal or a pipe; the cells may be names of others, whatever is in them."""

    rows: Sequence[Sequence[str]]
    left: Collection[int] = (0,)
    """Columns of text: to the left, and folded where a terminal is too narrow. Others are figures: to the right."""
    whole: Collection[int] = ()
    """Columns of text that are never folded."""
    dropped: Sequence[Collection[int]] = ()
    """Columns that a terminal too narrow for all goes without, the first of these groups first."""
    titled: bool = True
    """Whether the first row has the columns' titles."""
    indent: int = 0
    """Spaces before every line."""
    styles: Mapping[tuple[int, int], str] = {}
    """(Row, column) → the style that rich gives the cell, where there is colour."""

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, display: Display = PIPE) -> list[str]:
        """Return the table as lines for a display, in which nothing is left that it would obey or can't show.

        No figure is cut or wrapped; a cell is cut where it is longer than any line may be.
        """
        if not self.rows:
            return []
        cells = [[encodable(terminal(cell), display.encoding) for cell in row] for row in self.rows]
        widths = _widths(cells)
        shown = self._shown(widths, display)
        folded = self._folded(shown) if self._exceeds(widths, shown, display) else []
        least = {at: min(widths[at], LEAST_FOLDED) if at in folded else widths[at] for at in shown}
        width = max(display.width or 0, self._total(least if folded else widths, shown))
        made = self._made(cells, widths, shown, folded)
        return [_safe(line) for line in rendered(made, width, color=display.color)]

    def _total(self, widths: Mapping[int, int], shown: Sequence[int]) -> int:
        return self.indent + sum(widths[at] for at in shown) + _GAP * (len(shown) - 1)

    def _exceeds(self, widths: Mapping[int, int], shown: Sequence[int], display: Display) -> bool:
        return display.width is not None and self._total(widths, shown) > display.width

    def _shown(self, widths: Mapping[int, int], display: Display) -> list[int]:
        """Return the columns to show: all, or those left when it fits without some."""
        shown = list(widths)
        for group in self.dropped:
            if not self._exceeds(widths, shown, display):
                break
            shown = [at for at in shown if at not in group]
        return shown

    def _folded(self, shown: Sequence[int]) -> list[int]:
        return [at for at in shown if at in self.left and at not in self.whole]

    def _made(
        self, cells: Sequence[Sequence[str]], widths: Mapping[int, int], shown: Sequence[int], folded: Collection[int]
    ) -> Padding:
        """Return rich's table. Cells are its `Text`, in which it takes nothing for markup."""
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        # a padding of 1 on both sides of a cell makes _GAP between two
        made = Table(box=None, pad_edge=False, show_header=self.titled, header_style="bold")
        for at in shown:
            made.add_column(
                Text(cells[0][at]), justify="left" if at in self.left else "right", overflow="fold",
                no_wrap=at not in folded, width=None if at in folded else widths[at],
            )  # fmt: skip
        for number in range(int(self.titled), len(cells)):
            made.add_row(*(Text(cells[number][at], style=self.styles.get((number, at), "")) for at in shown))
        return Padding(made, (0, 0, 0, self.indent), expand=False)


Line: TypeAlias = str | TextTable


def first_few(names: Sequence[str], shown: int, separator: str = ", ") -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return separator.join(names[:shown]) + more


def number_of(count: int, noun: str, nouns: str = "") -> str:
    """Return a count with its noun: "1 case", "2 cases", "1,200 cases"; `nouns` is a plural of more than an s."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def three_digits(number: float) -> str:
    """Return a number with three digits, or, above a thousand, with all before the point."""
    return f"{number:,.0f}" if abs(number) >= 999.5 else f"{number:.3g}"


def _widths(cells: Sequence[Sequence[str]]) -> dict[int, int]:
    """Return column → the width of its longest cell, in characters of a terminal; some letters are two wide."""
    from rich.cells import cell_len

    columns = enumerate(zip(*cells, strict=True))
    return {at: max(1, *(cell_len(cell) for cell in column)) for at, column in columns}


def rendered(made: RenderableType, width: int | None, *, color: bool) -> list[str]:
    """Return the lines of something of rich's; nothing of the environment decides how they look."""
    from rich.console import Console

    text = io.StringIO()
    console = Console(
        file=text, width=width, height=1, force_terminal=color, force_jupyter=False,
        color_system="standard" if color else None, no_color=not color, legacy_windows=False,
    )  # fmt: skip
    console.print(made)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def _safe(line: str) -> str:
    """Return a line as it is, or without colour where a CI system would take it for a command: names may be folded."""
    plain = _STYLE.sub("", line)
    shown = terminal(plain, max(len(plain), 1))
    return line if shown == plain else shown
