"""A sweep as one HTML file that needs no network: every point in a table, and a chart of changes for each model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from ..common import escaping
from ..common.metrics import DEVICE, HOST
from . import html
from .sweep_table import (
    SweepFindings,
    SweepPoint,
    beside_the_table,
    error_of,
    notes,
    primary_of,
    without_empty_columns,
)
from .terminal_table import describe

HEADINGS = (
    "device µs", "change %", "±", "verdict", "host µs", "build s", "engines", "size MB", "memory MB", "in PyTorch",
    "error", "top-1 %", "pareto",
)  # fmt: skip


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """One model's points: the default first."""

    model: str
    default: str
    points: list[SweepPoint]
    lines: list[str]
    """What is not in the table."""


def render(found: SweepFindings) -> str:
    """Return the page. Raises TrtgateError when Jinja2 or Plotly is not installed."""
    shown = [point for point in found.points if point.medians_us]
    headings, *cells = without_empty_columns([HEADINGS, *map(_cells, shown)])
    swept = [_of_model(found, model) for model in dict.fromkeys(point.model for point in found.points)]
    return html.page(
        "sweep.html",
        [_chart(one) for one in swept],
        swept=swept,
        count=len(found.points),
        described=escaping.printable(describe(found.accelerator), 1000),
        notes=notes(found),
        number_of=[one.model for one in swept].index,
        headings=headings,
        rows=list(zip(shown, cells, strict=True)),
    )


def _of_model(found: SweepFindings, model: str) -> Swept:
    points = [point for point in found.points if point.model == model]
    return Swept(model=model, default=points[0].case_id, points=points, lines=beside_the_table(found, points))


def _cells(point: SweepPoint) -> list[str]:
    figures, change = point.figures, point.changes.get(primary_of(point))
    engines, error = figures.get("engines"), error_of(point)
    top1 = point.agreement.top1 if point.agreement else None
    return [
        _number(point.medians_us.get(DEVICE)) + " *" * (DEVICE in point.medians_us and "events" in point.clock),
        "" if change is None else f"{100 * change.change:+.2f}",
        "" if change is None else f"{50 * (change.high - change.low):.2f}",
        "" if change is None else change.real,
        _number(point.medians_us.get(HOST)),
        _number(figures.get("build_s")) + " ?" * ("build_s" in figures and not point.built_alone),
        _number(engines),
        _number(figures["engine_bytes"] / 1e6) if engines and "engine_bytes" in figures else "",
        _number(figures["gpu_memory_bytes"] / 1e6) if "gpu_memory_bytes" in figures else "",
        _number(figures.get("pytorch_operators")),
        f"{error:.1e}" if math.isfinite(error) else "",
        "" if top1 is None else f"{100 * top1:.1f}",
        "pareto" * point.pareto,
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.5g}"


def _chart(swept: Swept) -> dict[str, Sequence[Any]]:
    """Return what a model's chart is drawn from: changes in per cent, half of their intervals, and verdicts."""
    known = [(point, point.changes[name]) for point in swept.points if (name := primary_of(point)) in point.changes]
    return {
        "names": [escaping.printable(point.differs, 60) for point, _ in known],
        "change": [100 * change.change for _, change in known],
        "half": [50 * (change.high - change.low) for _, change in known],
        "real": [change.real for _, change in known],
    }
