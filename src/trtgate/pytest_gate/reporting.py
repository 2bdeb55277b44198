"""A run as a document, collected while it goes on: written where it is asked for, and told to GitHub."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Generator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ..errors import TrtgateError
from .coverage_tests import PROPERTY as COVERAGE
from .run import GateRun

if TYPE_CHECKING:
    from ..baselines import Run
    from ..case_result import CaseResult
    from ..history import Series
    from ..profile_gate import Result as ProfileResult
    from ..report import document

CASE = "trtgate_case"
"""The property of a test's report that names its case."""
LATENCY_TESTS, COVERAGE_TESTS, PROFILE_TESTS = "trtgate_latency", "trtgate_coverage", "trtgate_profile"
TOP_LAYERS = 30
DECISIVE = ("regressed", "missing")
"""Verdicts that are why a test failed."""


def properties(result: CaseResult) -> list[tuple[str, object]]:
    """Return verdict and figures of a case as properties of its test, for JUnit XML; names carry units."""
    row = result.row()
    found: list[tuple[str, object]] = [("trtgate_verdict", str(row.verdict or "measured"))]
    if row.latency_us is not None:
        found.append((f"trtgate_{result.measurement.primary}_us", f"{row.latency_us:.6g}"))
        found += [(f"trtgate_{metric}_us", f"{us:.6g}") for metric, us in row.others.items()]
    if row.judgement is not None:
        judged = row.judgement
        found += [
            ("trtgate_baseline_us", f"{judged.baseline:.6g}"),
            ("trtgate_change", f"{judged.change:+.4%} ({judged.low:+.4%} to {judged.high:+.4%})"),
            ("trtgate_limit", f"{judged.limit:.4%}"),
            ("trtgate_detects", f"{judged.detectable:.4%}"),
        ]
    return found


class _Seen(msgspec.Struct):
    """What is known of one test."""

    outcome: str
    failure: str = ""
    coverage: str = ""


class Reporting:
    """Collects what the tests say, and makes the document at the end."""

    def __init__(self, run: GateRun) -> None:
        self._run = run
        self._seen: dict[str, dict[str, _Seen]] = {LATENCY_TESTS: {}, COVERAGE_TESTS: {}, PROFILE_TESTS: {}}
        self._others: dict[str, str] = {}
        self._said: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the outcome of a test: that of its call, or of what failed or was skipped before or after it."""
        if report.when != "call" and report.passed:
            return
        found = dict(report.user_properties)
        kind = next((kind for kind in self._seen if kind in report.keywords), None)
        failure = "" if report.passed else _failure(report)
        if kind is None or CASE not in found:
            if report.failed:
                self._others[report.nodeid] = failure
            return
        outcome = "failed" if report.failed else "skipped" if report.skipped else "passed"
        self._seen[kind][str(found[CASE])] = _Seen(outcome, failure, str(found.get(COVERAGE, "")))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep what could not be collected."""
        if report.failed:
            self._others[report.nodeid] = _failure(report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Make the document, and write it. A report that was asked for and can't be written fails the run."""
        summary = os.environ.get("GITHUB_STEP_SUMMARY", "")
        annotated = os.environ.get("GITHUB_ACTIONS") == "true"
        ours = any(self._seen.values()) and (summary or annotated)  # a run of other tests is not told about
        if not (self._run.options.report or ours) or session.config.option.collectonly:
            return
        from ..report import annotations, markdown

        report = self._document(int(session.exitstatus))
        try:
            if self._run.options.report:
                from ..report import document

                document.write(self._run.options.report, report)
                self._said.append(f"report: {os.path.relpath(self._run.options.report, Path.cwd())}")
        except TrtgateError as error:
            self._said.append(f"ERROR: {error}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
        if summary:
            try:
                with Path(summary).open("a", encoding="utf-8") as file:
                    file.write(markdown.render(report))
            except OSError as error:
                self._said.append(f"the job summary could not be written to {summary}: {error.strerror}")
        if annotated:
            self._said += annotations.lines(report)

    @pytest.hookimpl(wrapper=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Generator[None]:
        """Say last where the report is; GitHub reads its annotations from the output."""
        yield
        for line in self._said:
            terminalreporter.write_line(line, red=line.startswith("ERROR"))

    # The document

    def _document(self, exit_status: int) -> document.Report:
        from .. import history
        from ..report import document

        return document.Report(
            outcome=document.FAILED if exit_status else document.PASSED,
            exit_status=exit_status,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._run.started, 1),
            accelerator=self._run.accelerator,
            against=self._against(),
            command=["pytest", *map(str, self._run.config.invocation_params.args)],
            commit=history.commit_of(self._run.json.commit_info),
            cases=[self._case(case_id, seen) for case_id, seen in self._seen[LATENCY_TESTS].items()],
            coverage=[self._coverage(case_id, seen) for case_id, seen in self._seen[COVERAGE_TESTS].items()],
            profiles=self._profiles(),
            matrix=self._matrix() if self._run.options.report else document.Matrix(),
            environment=self._environment(),
            failures=[document.Failure(test=test, sentence=said) for test, said in self._others.items()],
            lines=list(self._run.lines),
        )

    def _against(self) -> str:
        options = self._run.options
        if options.base is not None:
            return f"base {options.base}"
        if not self._run.judges or "gate" not in self._run.__dict__ or self._run.gate.baseline is None:
            return ""
        return f"baseline {os.path.relpath(self._run.gate.baseline.path, self._run.config.rootpath)}"

    def _environment(self) -> list[str]:
        from .. import accelerator

        if not self._against().startswith("baseline"):
            return []
        baseline = self._run.gate.baseline
        return accelerator.differences(baseline.accelerator, self._run.accelerator) if baseline else []

    def _matrix(self) -> document.Matrix:
        """Return the stored coverage; without what can't be read, which the coverage tests say."""
        from .. import coverage_baselines
        from ..report import document

        root, found = self._run.options.baselines, document.Matrix()
        for release in coverage_baselines.releases(root):
            try:
                stored = coverage_baselines.read_release(root / coverage_baselines.FOLDER / release)
            except TrtgateError:
                continue
            found.releases.append(release)
            for case_id, coverage in stored.items():
                shares = found.shares.setdefault(case_id, [])
                shares += [None] * (len(found.releases) - 1 - len(shares))
                shares.append(coverage.in_tensorrt / coverage.total if coverage.total else None)
        for shares in found.shares.values():
            shares += [None] * (len(found.releases) - len(shares))
        return found

    @cached_property
    def _saved_runs(self) -> list[Run]:
        """The saved runs of this accelerator, this one among them."""
        from .. import history

        runs, _ = history.read_runs(self._run.folder / "runs")
        return [run for run in runs if run.accelerator.key == self._run.accelerator.key]

    def _history(self, case_id: str) -> Series | None:
        from .. import history

        try:
            series = history.collect(self._saved_runs, case_id).series
        except TrtgateError:  # Apache Otava is not installed: `trtgate history` says so
            return None
        return series[0] if series and len(series[0].points) > 1 else None

    def _case(self, case_id: str, seen: _Seen) -> document.Case:
        from ..report import document
        from ..report.sentences import advice

        beside_base = self._run.options.base is not None
        result = self._run.gate.results.get(case_id) if "gate" in self._run.__dict__ else None
        verdict = str(result.verdict or "") if result else ""
        said = verdict or {"passed": "measured"}.get(seen.outcome, seen.outcome)
        sentence = result.sentence if result else ""
        if seen.outcome == document.FAILED and verdict not in DECISIVE:
            said = document.FAILED
        if said in (document.FAILED, document.SKIPPED) or not sentence:
            sentence = seen.failure or sentence
        quarantine = self._run.quarantine_of(case_id)
        found = document.Case(
            case_id=case_id,
            outcome=seen.outcome,
            said=said,
            sentence=sentence,
            advice="" if quarantine else advice(said, case_id, beside_base=beside_base),
            quarantine=str(quarantine or ""),
            settings=msgspec.to_builtins(self._run.suite.cases[case_id].settings),
        )
        if result is not None:
            self._fill(found, result)
        return found

    def _fill(self, found: document.Case, result: CaseResult) -> None:
        from .. import evidence

        found.where, found.judgements = result.where, result.judgements
        if not result.measurement.launches:
            return
        row, primary = result.row(), result.measurement.primary
        assert row.latency_us is not None
        found.primary, found.medians_us = primary, {primary: row.latency_us, **row.others}
        found.figures = evidence.figures(result.measurement)
        found.captures_us = evidence.means(result.measurement, primary)
        found.history = self._history(result.case_id) if self._run.options.report else None
        stored = self._run.gate.baseline.cases.get(result.case_id) if self._run.gate.baseline else None
        if result.base is not None:
            found.base_captures_us = evidence.means(result.base, primary)
            found.base_figures = evidence.figures(result.base)
        elif stored is not None:
            found.base_figures = stored.figures
            found.base_captures_us = [us for one in stored.sessions for us in one.metrics.get(primary, [])]

    def _coverage(self, case_id: str, seen: _Seen) -> document.Coverage:
        from .. import coverage_gate, torch_trt
        from ..report import document

        if not seen.coverage:
            return document.Coverage(case_id=case_id, outcome=seen.outcome, said=seen.outcome, sentence=seen.failure)
        result = msgspec.json.decode(seen.coverage, type=coverage_gate.Result)
        return document.Coverage(
            case_id=case_id, outcome=seen.outcome, said=str(result.verdict), sentence=result.sentence,
            in_tensorrt=result.in_tensorrt, total=result.total, engines=result.engines, release=torch_trt.release(),
        )  # fmt: skip

    def _profiles(self) -> list[document.Layers]:
        profiled = "profiles" in self._run.__dict__
        results = {result.case_id: result for result in self._run.profiles.results} if profiled else {}
        return [
            self._layers(case_id, seen, results.get(case_id)) for case_id, seen in self._seen[PROFILE_TESTS].items()
        ]

    def _layers(self, case_id: str, seen: _Seen, result: ProfileResult | None) -> document.Layers:
        from ..profiles import summary
        from ..report import document

        if result is None:
            return document.Layers(case_id=case_id, outcome=seen.outcome, said=seen.outcome, sentence=seen.failure)
        profile = self._run.profiles.recorded(case_id)
        longest = sorted((layer for _, layer in profile.layers()), key=lambda layer: -layer.median_us)[:TOP_LAYERS]
        return document.Layers(
            case_id=case_id, outcome=seen.outcome, said=str(result.verdict), sentence=result.sentence,
            device_us=result.device_us, sum_us=result.sum_us, attributed=result.attributed,
            layers=[
                document.Layer(name=layer.name, modules=layer.modules, us=layer.median_us) for layer in longest
            ],
            modules=dict(list(summary.module_times(profile).items())[:TOP_LAYERS]),
        )  # fmt: skip


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
    return said.removeprefix("trtgate.errors.TrtgateError: ").removeprefix("Failed: ")[:1000]
