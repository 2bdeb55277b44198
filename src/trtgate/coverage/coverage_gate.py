"""The verdict on a case's coverage, and what it says: pure, but for reading and writing the stored files."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from ..common.explanations import Explanation, explained
from ..common.notices import Notice, Severity
from ..common.text_columns import first_few, number_of
from ..records.coverage_record import Coverage
from ..suite.cases import Case
from . import coverage_baselines, unseen_operators
from .coverage_comparison import compare

RECORD_COMMAND = "pytest … -m trtgate_coverage --trtgate-update-baselines"
TABLE_ROWS = 24
"""A table of more cases than this shows only those that are not simply unchanged."""


class CoverageVerdict(enum.StrEnum):
    """What became of a case's coverage; `CHANGED` is another graph in which nothing was lost or gained.

    `INCOMPLETE`: there is no operator to count, or Dynamo skipped a part, and nothing better is stored.
    """

    REGRESSED = "regressed"
    INCOMPLETE = "incomplete"
    IMPROVED = "improved"
    CHANGED = "changed"
    NEW = "new"
    UNCHANGED = "unchanged"


_EXPLANATIONS = {
    CoverageVerdict.REGRESSED: Explanation.COVERAGE_LOST,
    CoverageVerdict.INCOMPLETE: Explanation.COVERAGE_INCOMPLETE,
    CoverageVerdict.NEW: Explanation.NEW_CASE,
}


class CoverageResult(msgspec.Struct, frozen=True, kw_only=True):
    """One case's coverage in short; it travels as JSON from an xdist worker to the run that reports."""

    case_id: str
    verdict: CoverageVerdict
    in_tensorrt: int
    total: int
    engines: int
    release: str
    """What it was compared with; empty when nothing is stored."""
    said: str
    unseen: str = ""
    """Why no operator could be counted, empty when one could."""
    stored: bool = False
    quarantine: str = ""
    """The case's while it is in force."""

    @property
    def sentence(self) -> str:
        """The case, and what happened to it."""
        explanation, said = _EXPLANATIONS.get(self.verdict), f"{self.case_id} {self.said}"
        return said if explanation is None else explained(said, explanation)


def judge(case: Case, found: Coverage, root: Path, release: str) -> CoverageResult:
    """Compare a case's coverage with what is stored for its release, or for the newest older one.

    Raises TrtgateError when a stored file is broken.
    """
    stored = coverage_baselines.find(root, release, case.model.name, case.settings.suffix)
    problem, nothing = unseen_operators.problem(found), unseen_operators.nothing(found)
    if nothing and (stored is None or not stored.coverage.total):
        verdict, said = CoverageVerdict.INCOMPLETE, f"has no coverage: {nothing}"
    elif stored is not None:
        verdict, said = _compared(stored.coverage, found, stored.release)
    elif problem:
        verdict, said = CoverageVerdict.INCOMPLETE, f"has no stored coverage, and its own is not whole: {problem}"
    else:
        verdict, said = CoverageVerdict.NEW, f"has no stored coverage for {release} or an older release"
    return CoverageResult(
        case_id=case.id,
        verdict=verdict,
        in_tensorrt=found.in_tensorrt,
        total=found.total,
        engines=len(found.engines),
        release="" if stored is None else stored.release,
        said=said,
        unseen=nothing,
    )


def may_be_stored(result: CoverageResult, *, accepted: bool) -> bool:
    """Whether a run that updates stores it: what is worse where that is accepted, a coverage of nothing never."""
    worse = result.verdict in (CoverageVerdict.REGRESSED, CoverageVerdict.INCOMPLETE)
    return not result.unseen and (accepted or not worse)


def advice(result: CoverageResult) -> str:
    """Return what a failure says beside the sentence."""
    if result.unseen:
        return (
            ". A coverage of nothing can't be accepted: if it is intended, take the case out of the suite, or give it "
            "trtgate.expected_failure or trtgate.quarantine"
        )
    if result.verdict is CoverageVerdict.NEW:
        return f": {RECORD_COMMAND}"
    return f". If that is intended: --trtgate-update-baselines --trtgate-accept '{result.case_id}'"


def _compared(before: Coverage, after: Coverage, release: str) -> tuple[CoverageVerdict, str]:
    difference = compare(before, after)
    if difference.lost:
        also = f"; gained: {'; '.join(difference.gained)}" if difference.gained else ""
        return CoverageVerdict.REGRESSED, f"lost coverage since {release}: {'; '.join(difference.lost)}{also}"
    if difference.gained:
        return CoverageVerdict.IMPROVED, f"gained coverage since {release}: {'; '.join(difference.gained)}"
    if difference.other:
        return (
            CoverageVerdict.CHANGED,
            f"keeps its coverage of {release} in a changed graph: {'; '.join(difference.other)}",
        )
    return CoverageVerdict.UNCHANGED, f"is unchanged since {release}"


# What is shown at the end of a run


def rows(results: Sequence[CoverageResult]) -> list[tuple[str, str, str, str]]:
    """Return the table: case, operators in TensorRT, engines, verdict; the worst first, of many only what changed."""
    order = list(CoverageVerdict)
    shown = [
        result for result in results if len(results) <= TABLE_ROWS or result.verdict is not CoverageVerdict.UNCHANGED
    ]
    shown.sort(key=lambda result: (order.index(result.verdict), result.case_id))
    body = [(r.case_id, f"{r.in_tensorrt} of {r.total}", str(r.engines), str(r.verdict)) for r in shown]
    return [("case", "in TensorRT", "engines", "coverage"), *body] if body else []


def notices(results: Sequence[CoverageResult], release: str) -> list[Notice]:
    """Return what is to be said beside the table: counts, other releases, news, and what to do."""
    counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in CoverageVerdict}
    each = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    said = [f"{release}: {number_of(len(results), 'case')}: {each}"]
    others = sorted({result.release for result in results if result.release not in ("", release)})
    if others:
        said.append(
            f"compared with {', '.join(others)}: nothing of these cases is stored for {release}; {RECORD_COMMAND} does"
        )
    said += [
        f"{result.verdict}: {result.sentence}"
        for result in results
        if result.verdict in (CoverageVerdict.IMPROVED, CoverageVerdict.CHANGED)
    ]
    if counts[CoverageVerdict.IMPROVED] + counts[CoverageVerdict.CHANGED] and not all(
        result.stored for result in results
    ):
        said.append(f"to store the improved and changed ones: {RECORD_COMMAND}")
    new = [result.case_id for result in results if result.verdict is CoverageVerdict.NEW and not result.stored]
    if new:
        said_of_new = f"no coverage is stored of {first_few(new, 2)}; {RECORD_COMMAND} does"
        news = Notice(explained(said_of_new, Explanation.NEW_CASE), Severity.NEW)
    stored = sum(result.stored for result in results)
    storing = [Notice(f"stored: coverage of {number_of(stored, 'case')} as {release}")] if stored else []
    return [*map(Notice, said), *([news] if new else []), *storing]


def orphans(root: Path, release: str, known: Iterable[str]) -> list[str]:
    """Return stored cases that the suite no longer has: of a release, or of the newest older one if nothing is stored.

    Raises TrtgateError for a broken file.
    """
    compared = coverage_baselines.newest(root, release)
    return sorted(coverage_baselines.case_ids(root, compared) - set(known)) if compared else []
