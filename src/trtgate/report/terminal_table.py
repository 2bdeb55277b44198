"""The table and the lines after a run."""

from __future__ import annotations

from collections.abc import Sequence

from ..common.accelerator import Accelerator
from ..common.metrics import ENQUEUE, HOST
from ..common.notices import Notice
from ..common.text_columns import TextTable, number_of
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
COLUMNS = ("case", "latency", "baseline", "change", "detects", HOST, ENQUEUE, "verdict")
DROPPED = ((HOST, ENQUEUE), ("baseline",), ("detects",))
"""What a narrow terminal goes without, the first of these groups first."""

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
    number = number_of(len(rows), "case")
    return f"{number}: {', '.join(f'{count} {said}' for said, count in found.items())}"


def table(rows: Sequence[CaseRow]) -> TextTable:
    """Return the cases, worst first. A narrow terminal goes without columns before it folds the ids of cases."""
    ranked = sorted(rows, key=_badness)
    beside = any(HOST in row.others for row in rows)
    names = [name for name in COLUMNS if beside or name not in DROPPED[0]]
    verdict = names.index("verdict")
    return TextTable(
        [names, *([cells[name] for name in names] for cells in map(_cells, ranked))],
        left=(0, verdict),
        whole=(verdict,),
        dropped=[[names.index(name) for name in group if name in names] for group in DROPPED],
        styles={(number, verdict): STYLES[row.verdict] for number, row in enumerate(ranked, start=1) if row.verdict},
    )


def _cells(row: CaseRow) -> dict[str, str]:
    """Return what every column says of a case."""
    found = dict.fromkeys(COLUMNS, "")
    found |= {"case": row.case_id, "verdict": str(row.verdict or "measured")}
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
