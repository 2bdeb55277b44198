"""Coverage in a pytest run: what a coverage test calls, and what is shown at the end, with and without pytest-xdist."""

from __future__ import annotations

import fnmatch
from typing import Any

import msgspec
import pytest

from ..common.errors import PROBLEMS, TrtgateError, sentence_of
from ..common.escaping import terminal
from ..common.notices import Notice, Severity
from ..coverage import coverage_baselines, coverage_gate
from ..coverage.coverage_gate import CoverageResult, CoverageVerdict
from ..gate.outcome import Kind, outcome
from ..suite.cases import Case
from ..torch_trt import releases
from .gate_run import GateRun

PROPERTY = "trtgate_coverage"
"""The property of a test's report that carries its result to the process that reports."""


class CoverageGate:
    """Asks for the coverage of a case, compares it with what is stored, and turns the verdict into an outcome."""

    def __init__(self, run: GateRun, item: pytest.Item) -> None:
        self._run = run
        self._item = item

    def __call__(self, case: Case) -> None:
        """Fail or pass the calling test. Raises TrtgateError when the case can't be asked, or lost coverage."""
        options = self._run.options
        found = self._run.coverage_of_builds.get(case.id)  # a build in this process has told already
        if found is None:
            from ..coverage import dry_run

            with self._run.progress(case.id) as step:
                found = dry_run.ask(case, step)
        release = releases.installed_release()
        result = coverage_gate.judge(case, found, options.baselines, release)
        accepted = any(fnmatch.fnmatch(case.id, pattern) for pattern in options.accepted)
        differs = result.verdict is not CoverageVerdict.UNCHANGED or result.release != release
        if options.update and differs and (result.verdict is not CoverageVerdict.REGRESSED or accepted):
            coverage_baselines.store(options.baselines, release, case.model.name, case.settings.suffix, found)
            result = msgspec.structs.replace(result, stored=True)
        self._item.user_properties.append((PROPERTY, msgspec.json.encode(result).decode()))
        intended = f". If that is intended: --trtgate-update-baselines --trtgate-accept '{case.id}'"
        is_new = result.verdict is CoverageVerdict.NEW
        said = outcome(
            result.verdict, case.id, result.sentence, require=options.require, accepted=accepted,
            quarantine=self._run.quarantine_of(case.id), updating=result.stored,
            advice=f": {coverage_gate.RECORD_COMMAND}" if is_new else intended,
        )  # fmt: skip
        if said.kind is Kind.FAILED:  # what else there is to say the end says, of all processes' results
            raise TrtgateError(said.text)


class CoverageEnding:
    """Collects the results of all tests, wherever they ran, and shows them."""

    def __init__(self, run: GateRun) -> None:
        self._run = run
        self._results: list[CoverageResult] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a coverage test found."""
        if report.when == "call":
            self._results += [
                msgspec.json.decode(str(value), type=CoverageResult)
                for name, value in report.user_properties
                if name == PROPERTY
            ]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn a run red whose stored coverage has cases that the suite no longer has."""
        if not self._results or hasattr(session.config, "workerinput"):
            return
        known = self._run.suite.cases.keys() | self._run.zoo.keys()
        try:
            gone = coverage_gate.orphans(self._run.options.baselines, releases.installed_release(), known)
        except PROBLEMS as error:
            gone = []
            self._run.coverage_notices.append(Notice(sentence_of(error), Severity.ERROR))
        self._run.coverage_notices += [
            Notice(f"coverage of {case_id} is stored, and the suite has no such case", Severity.MISSING)
            for case_id in gone
        ]
        if gone:
            self._run.coverage_notices.append(Notice("what is gone for good: trtgate baseline remove CASE"))
        if self._run.coverage_notices:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the table and the lines."""
        if not self._results:
            return
        from ..common.text_columns import aligned

        terminalreporter.section("trtgate coverage")
        for line in aligned(coverage_gate.rows(self._results)):
            terminalreporter.write_line(terminal(line))
        notices = coverage_gate.notices(self._results, releases.installed_release())
        for notice in [*notices, *self._quarantined(), *self._run.coverage_notices]:
            terminalreporter.write_line(str(notice), red=notice.failed, bold=notice.loud)

    def _quarantined(self) -> list[Notice]:
        return [
            Notice(f"{quarantine}: {result.sentence}")
            for result in self._results
            if result.verdict is CoverageVerdict.REGRESSED and not result.stored
            if (quarantine := self._run.quarantine_of(result.case_id))
        ]
