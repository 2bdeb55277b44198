"""Plain text: columns, and lists cut short."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Align what stands in columns: those in `left` to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = (
        [(str.ljust if number in left else str.rjust)(cell, widths[number]) for number, cell in enumerate(row)]
        for row in rows
    )
    return ["  ".join(row).rstrip() for row in cells]


def first_few(names: Sequence[str], shown: int, separator: str = ", ") -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return separator.join(names[:shown]) + more
