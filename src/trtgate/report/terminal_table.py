"""The table and the lines after a run."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..common.accelerator import Accelerator
from ..common.escaping import printable
from ..common.metrics import ENQUEUE, HOST
from ..common.notices import Notice
from ..gate.sentences import duration
from ..verdict import Verdict
from .case_row import CaseRow

STYLES = {
    Verdict.REGRESSED: "bold red",
    Verdict.MISSING: "bold red",
    Verdict.IMPROVED: "green",
    Verdict.UNCHANGED: "green",
    Verdict.UNCONFIRMED: "yellow",
    Verdict.UNDERPOWERED: "yellow",
    Verdict.INCOMPARABLE: "yellow",
    Verdict.NEW: "cyan",
    Verdict.SAME: "green",
}
ORDER = list(STYLES)
UNDECIDED_SHOWN = 3
COLUMNS = (
    ("latency", "baseline", "change", "detects", HOST, ENQUEUE),
    ("latency", "baseline", "change", "detects"),
    ("latency", "change", "detects"),
    ("latency", "change"),
)
"""What is shown between case and verdict; the first set that fits the terminal."""


WORTH_A_LOOK = frozenset(STYLES) - {Verdict.IMPROVED, Verdict.UNCHANGED, Verdict.SAME, Verdict.NEW}
"""What is shown where little is to be shown."""


def describe(accelerator: Accelerator) -> str:
    """Return one line about the device and the software."""
    libraries = ", ".join(f"{name} {version}" for name, version in accelerator.libraries.items())
    driver = f"driver {accelerator.driver}, " if accelerator.driver else ""
    return f"{accelerator.name} ({accelerator.key}): {driver}{libraries}"


def counts(rows: Sequence[CaseRow]) -> str:
    """Return one line that sums the cases up, worst first."""
    found: dict[str, int] = {}
    for row in sorted(rows, key=_badness):
        said = str(row.verdict or "measured")
        found[said] = found.get(said, 0) + 1
    number = f"{len(rows)} case{'s' * (len(rows) != 1)}"
    return f"{number}: {', '.join(f'{count} {said}' for said, count in found.items())}"


def table(rows: Sequence[CaseRow], *, width: int, color: bool) -> str:
    """Return the cases, worst first, as text for a terminal of `width` columns.

    The widest columns that fit beside whole case ids are shown; in the narrowest of all, ids are folded.
    """
    ranked = [(row, _cells(row)) for row in sorted(rows, key=_badness)]
    host = any(HOST in row.others for row in rows)
    for names in (*(COLUMNS[:1] if host else ()), *COLUMNS[1:]):
        shown = ("case", *names, "verdict")
        needed = (
            sum(max(len(name), *(len(cells[name]) for _, cells in ranked)) + 2 for name in shown) - 2 if rows else 0
        )
        if needed <= width:
            break
    columns = Table(box=None, pad_edge=False, header_style="bold")
    columns.add_column("case", overflow="fold")
    for name in names:
        columns.add_column(name, justify="right", no_wrap=True)
    columns.add_column("verdict", no_wrap=True)
    for row, cells in ranked:
        style = STYLES[row.verdict] if row.verdict else ""
        columns.add_row(*(Text(cells[name]) for name in ("case", *names)), Text(cells["verdict"], style=style))
    console = Console(file=io.StringIO(), width=width, force_terminal=color, no_color=not color, highlight=False)
    console.print(columns)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _cells(row: CaseRow) -> dict[str, str]:
    """Return what every column says of a case; names of others are shown without what a terminal would obey."""
    found = dict.fromkeys(COLUMNS[0], "")
    found |= {"case": printable(row.case_id), "verdict": str(row.verdict or "measured")}
    found["latency"] = "" if row.latency_us is None else duration(row.latency_us)
    found |= {metric: duration(row.others[metric]) for metric in (HOST, ENQUEUE) if metric in row.others}
    judged = row.judgement
    if judged is not None:
        half = (judged.high - judged.low) / 2
        found |= {
            "baseline": duration(judged.baseline), "change": f"{judged.change:+.2%} ± {half:.2%}",
            "detects": f"{judged.detectable:.2%}",
        }  # fmt: skip
    return found


def _badness(row: CaseRow) -> tuple[int, float]:
    rank = ORDER.index(row.verdict) if row.verdict else len(ORDER)
    return rank, -(row.judgement.change if row.judgement else 0.0)


def few_undecided(undecided: Sequence[Notice], see: str) -> list[Notice]:
    """Return the first of what has no verdict, and how many more there are; `see` is the option that shows all."""
    left = len(undecided) - UNDECIDED_SHOWN
    more = [Notice(f"… and {left} more without a verdict: see {see}")] if left > 0 else []
    return [*undecided[:UNDECIDED_SHOWN], *more]
