"""A sweep as one HTML file that needs no network: every point in a table, and a chart of changes for each model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from ..common import escaping
from ..common.metrics import DEVICE, HOST
from . import html
from .sweep_table import SweepFindings, SweepPoint, error_of, notes, primary_of
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
    """What is not in the table: points without a figure, and sizes at which latency jumps."""


def render(found: SweepFindings) -> str:
    """Return the page. Raises TrtgateError when Jinja2 or Plotly is not installed."""
    shown = [point for point in found.points if point.medians_us]
    headings, cells = _table(shown)
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
    ids = {point.case_id for point in points}
    lines = [f"{point.differs}: unavailable: {point.unavailable}" for point in points if point.unavailable]
    lines += [f"{point.differs}: {point.problem}" for point in points if point.problem]
    lines += [str(step) for step in found.steps if step.jumps and step.case_id in ids]
    return Swept(model=model, default=points[0].case_id, points=points, lines=lines)


def _table(points: Sequence[SweepPoint]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the cells of points that were measured, without columns that say nothing."""
    rows = [_cells(point) for point in points]
    kept = [number for number in range(len(HEADINGS)) if any(row[number] for row in rows)]
    return [HEADINGS[number] for number in kept], [[row[number] for number in kept] for row in rows]


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
