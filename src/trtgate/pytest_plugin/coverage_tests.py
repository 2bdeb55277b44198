"""Coverage in a pytest run: what a coverage test calls, and what is shown at the end, with and without pytest-xdist."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import msgspec
import pytest

from ..common.errors import PROBLEMS, TrtgateError, sentence_of
from ..common.explanations import Explanation, explained
from ..common.notices import Notice, Severity
from ..common.spent_time import Work, during
from ..common.text_columns import TextTable, first_few, number_of
from ..coverage import coverage_baselines, coverage_gate
from ..coverage.coverage_gate import CoverageResult, CoverageVerdict
from ..gate.outcome import PROBLEM, Kind, outcome
from ..suite.cases import Case
from .case_items import is_coverage, is_placeholder
from .gate_run import GateRun
from .terminal_display import write_table

PROPERTY = "trtgate_coverage"
"""The marker of coverage tests, and the property of a test's report that carries its result to who reports."""


class CoverageGate:
    """Asks for the coverage of a case, compares it with what is stored, and turns the verdict into an outcome."""

    def __init__(self, run: GateRun, item: pytest.Item) -> None:
        self._run = run
        self._item = item

    def __call__(self, case: Case) -> None:
        """Fail or pass the calling test. Raises TrtgateError when the case can't be asked, has none, or lost some."""
        options = self._run.options
        found = self._run.coverage_of_builds.get(case.id)  # a build in this process has told already
        if found is None and not self._run.devices.here:
            raise TrtgateError(
                self._run.coverage_problems.get(case.id) or f"coverage of {case.id}: it was not asked for"
            )
        if found is None:
            from ..coverage import dry_run

            with during(Work.COVERAGE), self._run.progress(case.id) as step:
                found = dry_run.ask(case, step)
        release = self._run.devices.release
        result = coverage_gate.judge(case, found, options.baselines, release)
        accepted = any(fnmatch.fnmatch(case.id, pattern) for pattern in options.accepted)
        differs = result.verdict is not CoverageVerdict.UNCHANGED or result.release != release
        if options.update and differs and coverage_gate.may_be_stored(result, accepted=accepted):
            coverage_baselines.store(options.baselines, release, case.model.name, case.settings.suffix, found)
            result = msgspec.structs.replace(result, stored=True)
        quarantine = self._run.quarantine_of(case.id)
        result = msgspec.structs.replace(result, quarantine=str(quarantine or ""))
        self._item.user_properties.append((PROPERTY, msgspec.json.encode(result).decode()))
        said = outcome(
            result.verdict, case.id, result.sentence, require=options.require,
            accepted=accepted and not result.unseen, quarantine=quarantine,
            updating=result.stored, advice=coverage_gate.advice(result),
        )  # fmt: skip
        expected = self._run.expected_failure_of(case.id)
        if said.kind is Kind.FAILED and result.verdict is CoverageVerdict.INCOMPLETE and expected:
            pytest.xfail(outcome(PROBLEM, case.id, result.sentence, expected_failure=expected).text)
        if said.kind is Kind.FAILED:  # what else there is to say the end says, of all processes' results
            raise TrtgateError(said.text)


class CoverageEnding:
    """Collects the results of all tests, wherever they ran, and shows them."""

    def __init__(self, run: GateRun) -> None:
        self._run = run
        self._results: list[CoverageResult] = []
        self._skipped: Counter[str] = Counter()

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
        """Note whether a whole run has no case whose coverage could be asked; its tests are taken out of it."""
        whole = not (config.option.markexpr or config.option.keyword or self._run.options.selection)
        self._run.suites.no_case_left = whole and any(is_coverage(item) and is_placeholder(item) for item in items)
        yield

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a coverage test found, or why it was skipped."""
        if report.when == "setup" and PROPERTY in report.keywords and isinstance(report.longrepr, tuple):
            self._skipped[report.longrepr[2].removeprefix("Skipped: ")] += 1
        if report.when == "call":
            self._results += [
                msgspec.json.decode(str(value), type=CoverageResult)
                for name, value in report.user_properties
                if name == PROPERTY
            ]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a run red whose stored coverage has cases that the suite no longer has."""
        suites = self._run.suites
        no_case_left = suites.no_case_left if suites.elsewhere is None else suites.elsewhere.no_case_left
        nothing = self._run.suite_problem or not (self._results or no_case_left)
        if nothing or hasattr(session.config, "workerinput"):
            return
        try:
            gone = coverage_gate.orphans(self._run.options.baselines, self._run.devices.release, self._known_cases())
        except PROBLEMS as error:
            gone = []
            self._run.coverage_notices.append(
                Notice(explained(sentence_of(error), Explanation.BASELINE_BROKEN), Severity.ERROR)
            )
        self._run.coverage_notices += self._about_gone(gone)
        if any(notice.failed for notice in self._run.coverage_notices):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def _about_gone(self, gone: Sequence[str]) -> list[Notice]:
        """Say which stored cases nobody asked: missing ones, or, where a suite was not collected, what it may have."""
        if not gone:
            return []
        if uncollected := self._run.suites.uncollected():
            were, theirs = ("was", "its folder") if len(uncollected) == 1 else ("were", "their folders")
            where = f"{first_few(uncollected, 2)} {were} not collected (pytest was not given {theirs})"
            said = f"coverage of {first_few(gone, 2)} is stored, and no suite that was collected has such a case"
            return [Notice(f"{said}: {where}")]
        said = "is stored, and the suite has no such case"
        missing = [
            Notice(explained(f"coverage of {case_id} {said}", Explanation.MISSING_CASE), Severity.MISSING)
            for case_id in gone
        ]
        return [*missing, Notice("what is gone for good: trtgate baseline remove CASE")]

    def _known_cases(self) -> Iterator[str]:
        """Yield the cases of the suite and of the zoo, which is made only where coverage is stored."""
        if self._run.suites.elsewhere is not None:
            yield from self._run.suites.elsewhere.known_cases
            return
        yield from self._run.suite.cases
        yield from self._run.zoo

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the table and the lines."""
        if not (self._results or self._skipped or self._run.coverage_notices):
            return
        terminalreporter.section("trtgate coverage")
        if self._results:
            write_table(terminalreporter, TextTable(coverage_gate.rows(self._results)))
        notices = coverage_gate.notices(self._results, self._run.devices.release) if self._results else []
        skipped = [
            Notice(f"{number_of(count, 'coverage test')} skipped: {reason}")
            for reason, count in sorted(self._skipped.items())
        ]
        for notice in [*notices, *skipped, *self._quarantined(), *self._run.coverage_notices]:
            terminalreporter.write_line(str(notice), red=notice.failed, bold=notice.loud)

    def _quarantined(self) -> list[Notice]:
        return [
            Notice(f"{result.quarantine}: {result.sentence}")
            for result in self._results
            if result.verdict in (CoverageVerdict.REGRESSED, CoverageVerdict.INCOMPLETE) and not result.stored
            if result.quarantine
        ]
