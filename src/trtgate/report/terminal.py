"""The table and the lines after a run."""

from __future__ import annotations

import io
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..accelerator import Accelerator
from ..records import ENQUEUE, HOST
from ..verdict import Judgement, Verdict
from .sentences import duration

STYLES = {
    Verdict.REGRESSED: "bold red",
    Verdict.MISSING: "bold red",
    Verdict.IMPROVED: "green",
    Verdict.UNCHANGED: "green",
    Verdict.UNCONFIRMED: "yellow",
    Verdict.UNDERPOWERED: "yellow",
    Verdict.INCOMPARABLE: "yellow",
    Verdict.NEW: "cyan",
}
ORDER = list(STYLES)


class Row(msgspec.Struct, kw_only=True):
    """One case in the table; latencies in microseconds."""

    case_id: str
    verdict: Verdict | None
    latency_us: float | None
    """None where it was not measured."""
    judgement: Judgement | None
    """The primary metric's."""
    others: dict[str, float]
    """Medians of the other metrics."""


def describe(accelerator: Accelerator) -> str:
    """Return one line about the device and the software."""
    libraries = ", ".join(f"{name} {version}" for name, version in accelerator.libraries.items())
    driver = f"driver {accelerator.driver}, " if accelerator.driver else ""
    return f"{accelerator.name} ({accelerator.key}): {driver}{libraries}"


def table(rows: Sequence[Row], *, width: int, color: bool) -> str:
    """Return the cases, worst first, as text for a terminal of `width` columns."""
    host = any(HOST in row.others for row in rows)
    columns = Table(box=None, pad_edge=False, header_style="bold")
    columns.add_column("case", overflow="fold")
    names = ["latency", "baseline", "change", "detects", *(["host", "enqueue"] if host and width >= 120 else [])]
    for name in names:
        columns.add_column(name, justify="right", no_wrap=True)
    columns.add_column("verdict", no_wrap=True)
    for row in sorted(rows, key=_badness):
        latency = "" if row.latency_us is None else duration(row.latency_us)
        cells = [row.case_id, latency, *_compared(row.judgement)]
        if len(names) > 4:
            cells += [duration(row.others[m]) if m in row.others else "" for m in (HOST, ENQUEUE)]
        said = row.verdict or "measured"
        columns.add_row(*cells, Text(said, style=STYLES[row.verdict] if row.verdict else ""))
    console = Console(file=io.StringIO(), width=width, force_terminal=color, no_color=not color, highlight=False)
    console.print(columns)
    return console.file.getvalue()  # type: ignore[attr-defined]


def _compared(judgement: Judgement | None) -> tuple[str, str, str]:
    if judgement is None:
        return "", "", ""
    half = (judgement.high - judgement.low) / 2
    return duration(judgement.baseline), f"{judgement.change:+.2%} ± {half:.2%}", f"{judgement.detectable:.2%}"


def _badness(row: Row) -> tuple[int, float]:
    rank = ORDER.index(row.verdict) if row.verdict else len(ORDER)
    return rank, -(row.judgement.change if row.judgement else 0.0)
