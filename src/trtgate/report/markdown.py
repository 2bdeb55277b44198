"""A report as Markdown, for a pull request or a job's summary: the verdict, what changed, and the rest folded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..common.escaping import markdown as text
from ..common.text_columns import number_of
from ..gate.sentences import duration, percent
from .run_report import FAILED, PASSED, CaseReport, RunReport, primary_judgement
from .terminal_table import describe

MOST_CHARACTERS = 65_000
"""Of the whole: GitHub takes 65,536 in a comment."""
NOTE = "… the rest is in the JSON report.\n"
QUIET = ("unchanged", "measured", "skipped")
"""What is said of a case where nothing needs to be looked at."""
MARKS = {
    "failed": "❌", "missing": "❌", "regressed": "❌", "incomparable": "⚠️", "underpowered": "⚠️", "unconfirmed": "⚠️",
    "new": "🆕", "improved": "✅", "changed": "⚠️", "unchanged": "✅", "same": "✅", "measured": "✅", "skipped": "⏭️",
}  # fmt: skip


def render(report: RunReport) -> str:
    """Return the Markdown, of MOST_CHARACTERS at most; what no longer fits is left out, and that is said."""
    kept: list[str] = []
    left = MOST_CHARACTERS - len(NOTE)
    for section in _sections(report):
        if len(section) > left:
            kept.append(NOTE)
            break
        kept.append(section)
        left -= len(section)
    return "".join(kept)


def _sections(report: RunReport) -> Iterable[str]:
    mark = "✅" if report.outcome == PASSED else "❌"
    yield f"## {mark} trtgate {report.outcome}: {text(report.headline)}\n\n"
    yield f"{text(describe(report.accelerator))}{_context(report)}\n\n"
    for notice in report.failing_notices:
        yield f"- ❌ {text(str(notice))}\n"
    for failure in report.failures:
        yield f"- ❌ {text(failure.test)}: {text(failure.sentence)}\n"
    loud = [case for case in report.cases if case.said not in QUIET]
    for case in loud:
        yield from _explained(case)
    yield "\n"
    yield from _table(loud)
    yield from _coverage(report)
    yield from _profiles(report)
    quiet = [case for case in report.cases if case.said in QUIET]
    if quiet:
        yield from _folded(f"{number_of(len(quiet), 'case')} with nothing to look at", list(_table(quiet)))
    if report.quiet_notices:
        said = [f"- {text(str(notice))}\n" for notice in report.quiet_notices]
        yield from _folded("what else the run said", said)


def _context(report: RunReport) -> str:
    commit = report.commit
    found = [
        f"compared with {text(report.against)}" if report.against else "",
        f"commit {text(commit.id[:12])}{' with changes' if commit.dirty else ''}" if commit.id else "",
        f"branch {text(commit.branch)}" if commit.branch else "",
    ]
    return "".join(f"; {part}" for part in found if part)


def _explained(case: CaseReport) -> Iterable[str]:
    if case.outcome != FAILED and not case.quarantine:
        return
    yield f"- {MARKS[case.said]} {text(case.sentence, 1000)}\n"
    for more in (case.where, case.advice, case.quarantine):
        if more:
            yield f"  - {text(more, 1000)}\n"


def _table(cases: Sequence[CaseReport]) -> Iterable[str]:
    if not cases:
        return
    yield "| | case | latency | baseline | change | limit | detects | verdict |\n|---|---|--:|--:|--:|--:|--:|---|\n"
    for case in cases:
        judged = primary_judgement(case)
        latency = duration(case.medians_us[case.primary]) if case.primary in case.medians_us else ""
        compared = ("", "", "", "")
        if judged is not None:
            half = (judged.high - judged.low) / 2
            compared = (
                duration(judged.baseline), f"{judged.change:+.2%} ± {half:.2%}", percent(judged.limit),
                percent(judged.detectable),
            )  # fmt: skip
        said = f"{case.said}{', quarantined' if case.quarantine else ''}"
        yield f"| {MARKS[case.said]} | {text(case.case_id)} | {latency} | {' | '.join(compared)} | {said} |\n"
    yield "\n"


def _coverage(report: RunReport) -> Iterable[str]:
    loud = [one for one in report.coverage if one.said != "unchanged"]
    if not report.coverage:
        return
    yield f"Operator coverage: {number_of(len(report.coverage), 'case')}, {len(loud)} not as stored.\n\n"
    rows = [
        f"| {MARKS.get(one.said, '⚠️')} | {text(one.case_id)} | {one.in_tensorrt} of {one.total} | {one.engines} | "
        f"{text(one.sentence.removeprefix(one.case_id), 1000)} |\n"
        for one in loud
    ]
    if rows:
        yield "| | case | in TensorRT | engines | coverage |\n|---|---|--:|--:|---|\n"
        yield from rows
        yield "\n"


def _profiles(report: RunReport) -> Iterable[str]:
    loud = [one for one in report.profiles if one.said != "unchanged"]
    if loud:
        rows = [f"- {MARKS.get(one.said, '⚠️')} {text(one.sentence, 1000)}\n" for one in loud]
        yield from _folded(f"other layers than those that are stored: {number_of(len(loud), 'case')}", rows)


def _folded(summary: str, body: Sequence[str]) -> Iterable[str]:
    """Yield a part that is shown when it is opened: whole, or, where it is long, cut."""
    kept, left = [], MOST_CHARACTERS // 3
    for line in body:
        if len(line) > left:
            kept.append(f"\n{NOTE}")
            break
        kept.append(line)
        left -= len(line)
    yield f"<details><summary>{text(summary)}</summary>\n\n{''.join(kept)}\n</details>\n\n"
