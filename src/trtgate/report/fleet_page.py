"""A page of a fleet: cases by accelerators, what got slower most first, and the history of each behind its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..common import escaping
from ..gate.history import CaseHistory, Series
from ..gate.history_events import total_change
from ..gate.sentences import duration
from . import html


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A case on one accelerator, and what there is to say of it."""

    key: str
    case: CaseHistory
    lines: list[str]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What a case came to on an accelerator: the newest latency, and the change of the card that changed most."""

    latency: str
    change: float


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A case on all accelerators."""

    case_id: str
    cells: list[Cell | None]
    rows: list[Row]

    @property
    def worst(self) -> float:
        """The largest change of any accelerator."""
        return max(cell.change for cell in self.cells if cell is not None)


def render(rows: Sequence[Row], events: Sequence[str]) -> str:
    """Return the page. Raises TrtgateError when Jinja2 or Plotly is not installed."""
    keys = sorted({row.key for row in rows})
    by_case: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.case.series:
            by_case.setdefault(row.case.case_id, {})[row.key] = row
    shown = [
        Shown(
            case_id=case_id,
            cells=[_cell(of_key[key].case) if key in of_key else None for key in keys],
            rows=[of_key[key] for key in keys if key in of_key],
        )
        for case_id, of_key in by_case.items()
    ]
    shown.sort(key=lambda one: (-one.worst, one.case_id))
    return html.page("fleet.html", [_charts(one) for one in shown], keys=keys, cases=shown, events=events)


def _cell(case: CaseHistory) -> Cell:
    newest = case.series[0]
    return Cell(
        latency=duration(newest.points[-1].latency_us), change=max(total_change(series) for series in case.series)
    )


def _charts(shown: Shown) -> list[dict[str, Any]]:
    return [
        {"title": _title(row.key, series), **html.over_runs(series)} for row in shown.rows for series in row.case.series
    ]


def _title(key: str, series: Series) -> str:
    return escaping.printable(f"{key}, card {series.card or '?'}, {series.metric}", 120)
