"""A page of a fleet: cases by accelerators, what got slower most first, and the history of each behind its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..common import escaping
from ..gate.history import CaseHistory, Series
from ..gate.history_events import total_change
from ..gate.level_changes import LEAST_RUNS
from ..gate.sentences import duration
from . import html

MOST_POINTS = 2_000_000
"""Of all charts: a browser opens such a page of some 30 MB."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A case on one accelerator, and what there is to say of it."""

    key: str
    case: CaseHistory
    lines: list[str]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What a case came to on an accelerator."""

    latency: str
    """The newest."""
    change: float | None
    """Of the card that changed most, a fraction; None where each has too few runs to look for changes."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A case on all accelerators."""

    case_id: str
    cells: list[Cell | None]
    rows: list[Row]

    @property
    def worst(self) -> float:
        """The largest change of any accelerator; 0 where none is known."""
        return max((cell.change for cell in self.cells if cell is not None and cell.change is not None), default=0.0)


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
    return html.page("fleet.html", _data(shown), keys=keys, cases=shown, events=events, least=LEAST_RUNS)


def _cell(case: CaseHistory) -> Cell:
    changes = [total_change(series) for series in case.series if len(series.points) >= LEAST_RUNS]
    return Cell(latency=duration(case.series[0].points[-1].latency_us), change=max(changes, default=None))


def _data(shown: Sequence[Shown]) -> dict[str, Any]:
    """Return what charts are drawn from: runs by name, and for each case its series, which have numbers of runs.

    If there are more than MOST_POINTS, each series has its newest ones alone.
    """
    numbers: dict[str, int] = {}
    most = MOST_POINTS // max(1, sum(len(row.case.series) for one in shown for row in one.rows))
    cases = [
        [_chart(row.key, series, most, numbers) for row in one.rows for series in row.case.series] for one in shown
    ]
    return {"runs": list(numbers), "cases": cases}


def _chart(key: str, series: Series, most: int, numbers: dict[str, int]) -> dict[str, Any]:
    count, chart = len(series.points), html.over_runs(series)
    first = max(0, count - max(1, most))
    newest = f", newest {count - first} of {count} runs" * (first > 0)
    return {
        "title": escaping.printable(f"{key}, card {series.card[:12] or '?'}, {series.metric}", 120) + newest,
        "us": [float(f"{us:.6g}") for us in chart["us"][first:]],
        "runs": [numbers.setdefault(run, len(numbers)) for run in chart["runs"][first:]],
        "changes": [change - first for change in chart["changes"] if change > first],
    }
