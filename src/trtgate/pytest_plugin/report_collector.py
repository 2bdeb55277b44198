"""What the tests of a run say, collected while it goes on: written as a report where asked for, and told to GitHub."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..common.errors import PROBLEMS, sentence_of
from ..common.explanations import Explanation, explained
from ..common.notices import Notice, Severity
from ..common.run_places import REPORT
from . import coverage_tests, kept_runs, profile_tests
from .gate_run import GateRun
from .run_document import Collected, RunDocument, Seen, SeenTest

if TYPE_CHECKING:
    from ..report import run_report

CASE = "trtgate_case"
"""The property of a test's report that names its case."""
LATENCY_TESTS, COVERAGE_TESTS, PROFILE_TESTS = "trtgate_latency", "trtgate_coverage", "trtgate_profile"
RESULTS = {COVERAGE_TESTS: coverage_tests.PROPERTY, PROFILE_TESTS: profile_tests.PROPERTY}
"""Kind of test → the property that carries its result."""


class Reporting:
    """Collects what the tests say, and makes the document at the end."""

    def __init__(self, run: GateRun) -> None:
        self._run = run
        self.collected = Collected()
        self._seen = {
            LATENCY_TESTS: self.collected.latency,
            COVERAGE_TESTS: self.collected.coverage,
            PROFILE_TESTS: self.collected.profiles,
        }
        self._said: list[Notice] = []
        self._commands: list[str] = []
        """GitHub's."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the outcome of a test: that of its call, or of what failed or was skipped before or after it."""
        found = dict(report.user_properties)
        kind = next((kind for kind in self._seen if kind in report.keywords), None)
        test = self.collected.tests.setdefault(report.nodeid, SeenTest())
        test.seconds += report.duration
        test.latency_of = str(found.get(CASE, "")) if kind == LATENCY_TESTS else ""
        if report.when != "call" and report.passed:
            return
        failure = "" if report.passed else _failure(report)
        if not report.passed:
            test.outcome, test.failure = "failed" if report.failed else "skipped", failure
        if kind is None or CASE not in found:
            if report.failed:
                self.collected.others[report.nodeid] = failure
            return
        outcome = "failed" if report.failed else "skipped" if report.skipped else "passed"
        self._seen[kind][str(found[CASE])] = Seen(outcome, failure, str(found.get(RESULTS.get(kind, ""), "")))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what could not be collected."""
        if report.failed:
            self.collected.others[report.nodeid] = _failure(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Make the document, and write it. A report that was asked for and can't be made fails the run."""
        summary = os.environ.get("GITHUB_STEP_SUMMARY", "")
        annotated = os.environ.get("GITHUB_ACTIONS") == "true"
        ours = any(self._seen.values()) and (summary or annotated)  # a run of other tests is not told about
        asked = self._run.options.report
        if not (asked or ours) or session.config.option.collectonly:
            return
        try:
            report = RunDocument(self._run, self.collected).make(int(session.exitstatus))
            self._tell_github(report, summary, annotated=annotated)
            if asked:
                from ..report import run_report

                run_report.write(asked, report)
                self._said.append(Notice(f"report: {os.path.relpath(asked, Path.cwd())}"))
                self._said += [said] if (said := kept_runs.keep(self._run, asked, REPORT)) else []
        except PROBLEMS as error:
            why = explained(f"no report: {sentence_of(error)}", Explanation.FILE_FAULT)
            self._said.append(Notice(why, Severity.ERROR))
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def _tell_github(self, report: run_report.RunReport, summary: str, *, annotated: bool) -> None:
        from ..report import github_annotations, markdown

        if summary:
            try:
                with Path(summary).open("a", encoding="utf-8") as file:
                    file.write(markdown.render(report))
            except OSError as error:
                said = f"the job summary could not be written to {summary}: {error.strerror}"
                self._said.append(Notice(said))
        if annotated:
            self._commands = github_annotations.lines(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None]:
        """Say last where the report is; GitHub reads its annotations from the output."""
        yield
        for notice in self._said:
            terminalreporter.write_line(str(notice), red=notice.failed)
        for command in self._commands:
            terminalreporter.write_line(command)


def _failure(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return why a test failed or was skipped, in one line."""
    longrepr: Any = report.longrepr
    if isinstance(longrepr, tuple):
        text = str(longrepr[2]).removeprefix("Skipped: ")
    else:
        crash = getattr(longrepr, "reprcrash", None)
        text = crash.message if crash is not None else str(longrepr)
    lines = text.strip().splitlines() or [""]
    said = lines[-1] if isinstance(report, pytest.CollectReport) else lines[0]
    for kind in ("trtgate.common.errors.TrtgateError", "_pytest.outcomes.XFailed", "Failed"):
        said = said.removeprefix(f"{kind}: ")
    return said[:1000]
