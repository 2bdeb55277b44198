"""What a sweep found, as a table: every point beside the default, and which differences are real."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from .. import verdict
from ..common.accelerator import Accelerator
from ..common.explanations import Explanation, explained
from ..common.metrics import DEVICE, HOST
from ..common.text_columns import Line, TextTable
from ..gate import measurement_summary
from ..gate.sentences import duration
from ..launches.sweep import PointOutcome
from ..launches.sweep_axes import difference
from ..records.agreement_record import Agreement
from ..records.measurement import CaseMeasurement
from ..verdict import Verdict
from .size_steps import SizeStep

FASTER, SLOWER, SAME = "faster", "slower", "same"


class LatencyChange(msgspec.Struct, frozen=True, kw_only=True):
    """A latency beside the default's: fractions, as a judgement has them."""

    metric: str
    change: float
    low: float
    high: float
    real: str
    """faster, slower, or same where the difference can't be told from noise."""
    detectable: float


class SweepPoint(msgspec.Struct, kw_only=True):
    """One point."""

    case_id: str
    model: str
    differs: str
    """In what from the default."""
    medians_us: dict[str, float] = {}
    clock: str = ""
    changes: dict[str, LatencyChange] = {}
    figures: dict[str, float] = {}
    agreement: Agreement | None = None
    built_alone: bool = True
    pareto: bool = False
    """Whether no other point of the model is better in latency, build time or error and as good in the others."""
    problem: str = ""
    unavailable: str = ""


class SweepFindings(msgspec.Struct, kw_only=True):
    """A whole sweep, as `--json` writes it."""

    schema: int = 1
    accelerator: Accelerator
    flavour: str
    release: str
    launches: int
    points: list[SweepPoint]
    steps: list[SizeStep] = []
    """Along each dimension that was varied, from each size to the next."""
    left_out: list[str]
    """Combinations that make no sense, with the reason."""
    problems: list[str] = []
    """Why points that were asked for are not known: no block size could be recommended."""
    notes: list[str] = []
    """What went wrong and was got over: a module that could not be stored."""
    interrupted: bool = False
    """Whether it ended before all points were measured."""
    earlier: int = 0
    """How many of the launches an earlier run measured, which began at `begun` (UTC)."""
    begun: str = ""

    @property
    def failed(self) -> list[str]:
        """What was asked for and did not run."""
        return [*self.problems, *(point.case_id for point in self.points if point.problem)]


def points_of(outcomes: Sequence[PointOutcome]) -> list[SweepPoint]:
    """Return the points of one model, whose first is the default, with their changes and the Pareto set marked."""
    default = outcomes[0]
    base = _measurement(default)
    tests = max(1, len(outcomes) - 1)
    found = []
    for outcome in outcomes:
        point = SweepPoint(
            case_id=outcome.case.id, model=outcome.case.model.name, agreement=outcome.agreement,
            differs=difference(outcome.case.settings, default.case.settings), problem=outcome.problem,
            unavailable=outcome.unavailable, built_alone=outcome.build is None or outcome.build.builders == 1,
        )  # fmt: skip
        measured = _measurement(outcome)
        if measured is not None:
            point.clock, point.figures = measured.clock, measurement_summary.figures(measured)
            if outcome.build is not None:
                point.figures["build_s"] = outcome.build.build_s
            point.medians_us = {
                metric: math.exp(float(np.mean(verdict.log_launch_means(measured.samples(metric)))))
                for metric in measured.metrics
            }
            if base is not None and outcome is not default:
                point.changes = _changes(measured, base, tests)
        elif not point.problem and not point.unavailable:
            point.problem = f"{point.case_id}: not measured"
        found.append(point)
    _mark_pareto(found)
    return found


def _measurement(outcome: PointOutcome) -> CaseMeasurement | None:
    if not outcome.launches:
        return None
    return CaseMeasurement(case_id=outcome.case.id, launches=outcome.launches, build=outcome.build)


def _changes(measured: CaseMeasurement, base: CaseMeasurement, tests: int) -> dict[str, LatencyChange]:
    """Judge latencies as the gate does, with no limit: a difference is real where the gate would believe it."""
    found = {}
    for metric in (one for one in measured.metrics if one in base.metrics):
        judged = verdict.judge_stored(
            metric, verdict.log_launch_means(measured.samples(metric)),
            [verdict.log_launch_means(base.samples(metric))],
            verdict.prior(metric, base.clock, measured.clock), limit=0.0, tests=tests,
        )  # fmt: skip
        real = {Verdict.REGRESSED: SLOWER, Verdict.IMPROVED: FASTER}.get(judged.verdict, SAME)
        found[metric] = LatencyChange(
            metric=metric, change=judged.change, low=judged.low, high=judged.high, real=real,
            detectable=judged.detectable,
        )  # fmt: skip
    return found


def _mark_pareto(points: Sequence[SweepPoint]) -> None:
    costs = {point.case_id: cost for point in points if (cost := _cost(point)) is not None}
    for point in points:
        own = costs.get(point.case_id)
        point.pareto = own is not None and not any(
            all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in costs.values()
        )


def _cost(point: SweepPoint) -> tuple[float, float, float] | None:
    if not point.medians_us or point.problem:
        return None
    latency = point.medians_us.get(DEVICE, point.medians_us.get(HOST, math.inf))
    return latency, point.figures.get("build_s", math.inf), error_of(point)


def error_of(point: SweepPoint) -> float:
    """Return how far the output lies from eager's, as a relative L2 distance; infinite where it is not known."""
    return point.agreement.relative_l2 if point.agreement else point.figures.get("leaf_error", math.inf)


COLUMNS = (
    "point", "device", "change", "", "host", "build", "engines", "size", "memory", "in PyTorch", "error", "top-1", "",
)  # fmt: skip


def lines(found: SweepFindings) -> list[Line]:
    """Return the tables, one a model, and what they rest on."""
    said: list[Line] = []
    for model in dict.fromkeys(point.model for point in found.points):
        points = [point for point in found.points if point.model == model]
        shown = [point for point in points if point.medians_us]
        default = points[0]
        said += [f"{model}, against {default.case_id}"]
        on_gpu = any(DEVICE in point.medians_us for point in shown)
        rows = [("point", DEVICE if on_gpu else HOST, *COLUMNS[2:]), *(_row(point) for point in shown)]
        said += [TextTable(without_empty_columns(rows), indent=2)] if shown else []
        said += [f"  {line}" for line in beside_the_table(found, points)]
        said.append("")
    return said + notes(found)


def beside_the_table(found: SweepFindings, points: Sequence[SweepPoint]) -> list[str]:
    """Return what a model's table does not hold: points without a figure, and sizes at which latency jumps."""
    ids = {point.case_id for point in points}
    return [
        *(f"{point.differs}: unavailable: {point.unavailable}" for point in points if point.unavailable),
        *(f"{point.differs}: {point.problem}" for point in points if point.problem),
        *(str(step) for step in found.steps if step.jumps and step.case_id in ids),
    ]


def primary_of(point: SweepPoint) -> str:
    """Return the metric that a point is compared by: device latency, on a CPU host latency."""
    return DEVICE if DEVICE in point.medians_us else HOST


def _row(point: SweepPoint) -> tuple[str, ...]:
    primary = primary_of(point)
    change, host = point.changes.get(primary), point.changes.get(HOST)
    figures = point.figures
    engines = figures.get("engines", 0)
    top1 = point.agreement.top1 if point.agreement else None
    host_said = duration(point.medians_us[HOST]) if primary == DEVICE else ""
    if primary == DEVICE and host is not None and host.real != SAME:
        host_said += f" {host.real}"
    return (
        point.differs,
        duration(point.medians_us[primary]) + (" *" if "events" in point.clock else ""),
        "" if change is None else f"{change.change:+.2%} ± {(change.high - change.low) / 2:.2%}",
        "" if change is None else change.real,
        host_said,
        f"{figures['build_s']:.1f} s{'' if point.built_alone else ' ?'}" if "build_s" in figures else "",
        f"{engines:.0f}" if engines else "",
        f"{figures['engine_bytes'] / 1e6:.1f} MB" if engines else "",
        f"{figures['gpu_memory_bytes'] / 1e6:.0f} MB" if "gpu_memory_bytes" in figures else "",
        f"{figures['pytorch_operators']:.0f}" if "pytorch_operators" in figures else "",
        f"{error_of(point):.1e}" if math.isfinite(error_of(point)) else "",
        "" if top1 is None else f"{top1:.1%}",
        "pareto" if point.pareto else "",
    )


def without_empty_columns(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return rows, the first of them titles, without the columns that have nothing but a title."""
    kept = [n for n in range(len(rows[0])) if any(row[n] for row in rows[1:])]
    return [[row[n] for n in kept] for row in rows]


def notes(found: SweepFindings) -> list[str]:
    """Return what the tables rest on, a line each."""
    if found.earlier:
        begun = f"{found.earlier} measurements are of an earlier run, begun at {found.begun}; --fresh measures anew"
    agreements = [point.agreement for point in found.points if point.agreement]
    said = found.notes + [explained(f"not run: {reason}", Explanation.BUILD_FAILED) for reason in found.problems]
    said += [f"left out: {reason}" for reason in found.left_out]
    said += [begun] if found.earlier else []
    said.append(
        f"{found.launches} launches a point, in random order; faster and slower: beyond noise at 1 % for all points "
        "together; ±: of each change by itself; pareto: nothing is better in latency, build time and error"
    )
    if agreements:
        one = agreements[0]
        weights = ", ".join(dict.fromkeys(agreement.weights for agreement in agreements))
        said.append(f"error, top-1: against eager in fp32 over {one.inputs} inputs ({one.source}), {weights}")
    if any("events" in point.clock for point in found.points):
        said.append("* could not be captured in a CUDA graph: timed as queued calls, launch gaps included")
    if any(not point.built_alone for point in found.points):
        said.append("? was built beside others, which takes longer")
    return said


FLAT = ("case_id", "model", "differs", "clock", "pareto", "built_alone", "problem", "unavailable")


def as_csv(found: SweepFindings) -> str:
    """Return one line a point, figures in their own columns with units in their names."""
    rows = [_flat(point) for point in found.points]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(point: SweepPoint) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(point, name) for name in FLAT}
    row |= {f"{metric}_us": us for metric, us in point.medians_us.items()}
    for metric, change in point.changes.items():
        row |= {f"{metric}_{name}": getattr(change, name) for name in ("change", "low", "high", "real")}
    row |= point.figures
    if point.agreement is not None:
        row |= {f"agreement_{name}": value for name, value in msgspec.to_builtins(point.agreement).items()}
    return row
