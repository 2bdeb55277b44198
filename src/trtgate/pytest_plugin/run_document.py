"""A run as the document that its reports are made from."""

from __future__ import annotations

import contextlib
import datetime
import os
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from ..common.errors import PROBLEMS, TrtgateError
from ..common.run_folder import RUNS
from ..common.urls import without_secrets
from .gate_run import GateRun

if TYPE_CHECKING:
    from ..common.notices import Notice
    from ..gate.history import SavedRun, Series
    from ..report import run_report


class Seen(msgspec.Struct):
    """What is known of one test."""

    outcome: str
    failure: str = ""
    result: str = ""
    """What it found, as JSON; of a coverage or a profile test."""


class SeenTest(msgspec.Struct):
    """What became of one test, whatever it tests; `latency_of` is the case whose latency it is."""

    outcome: str = "passed"
    failure: str = ""
    seconds: float = 0.0
    latency_of: str = ""


class Collected(msgspec.Struct):
    """What is known of all tests so far: case id → its test; of others, what failed → why; node id → each test."""

    latency: dict[str, Seen] = {}
    coverage: dict[str, Seen] = {}
    profiles: dict[str, Seen] = {}
    others: dict[str, str] = {}
    tests: dict[str, SeenTest] = {}


class RunDocument:
    """Makes the document."""

    def __init__(self, run: GateRun, collected: Collected) -> None:
        self._run = run
        self._collected = collected

    def make(self, exit_status: int) -> run_report.RunReport:
        """Return the run as it is now."""
        from ..gate import history
        from ..report import report_parts, run_report

        collected, release, total_s = self._collected, self._run.devices.release, self._run.spent.total_s
        return run_report.RunReport(
            outcome=run_report.FAILED if exit_status else run_report.PASSED,
            exit_status=exit_status,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seconds=round(total_s, 1),
            spent_s=spent_s(self._run, total_s),
            accelerator=self._run.accelerator,
            against=self._against(),
            command=["pytest", *(without_secrets(str(one)) for one in self._run.config.invocation_params.args)],
            commit=history.commit_of(self._run.json.commit_info),
            cases=[self._case(case_id, seen) for case_id, seen in collected.latency.items()],
            coverage=[coverage_report(case_id, seen, release) for case_id, seen in collected.coverage.items()],
            profiles=[layers_report(case_id, seen) for case_id, seen in collected.profiles.items()],
            matrix=report_parts.matrix(self._run.options.baselines)
            if self._run.options.report
            else run_report.Matrix(),
            environment=self._environment(),
            failures=[run_report.Failure(test=test, sentence=said) for test, said in collected.others.items()],
            notices=[*self._run.notices, *self._gate_notices(), *self._run.coverage_notices],
        )

    def _gate_notices(self) -> list[Notice]:
        return self._run.gate.notices if self._run.results else self._run.gate.remarks

    def _against(self) -> str:
        options = self._run.options
        if options.base is not None:
            return f"base {options.base}"
        if not self._run.judges or "gate" not in self._run.__dict__ or self._run.gate.baseline is None:
            return ""
        return f"baseline {os.path.relpath(self._run.gate.baseline_path, self._run.config.rootpath)}"

    def _environment(self) -> list[str]:
        from ..common import accelerator

        if not self._against().startswith("baseline"):
            return []
        baseline = self._run.gate.baseline
        return accelerator.differences(baseline.accelerator, self._run.accelerator) if baseline else []

    @cached_property
    def _saved_runs(self) -> list[SavedRun]:
        """The saved runs of this accelerator, this one among them."""
        from ..gate.saved_runs import Asked, SavedRuns

        cases, kept, key = self._run.results, self._run.options.runs, self._run.accelerator.key
        runs: list[SavedRun] = []
        for folder in (self._run.folder / RUNS, kept):
            if folder is not None:
                with contextlib.suppress(*PROBLEMS):  # who keeps the run there says what is wrong
                    runs += SavedRuns(folder, cases.__contains__, key).runs(Asked(key=key), cases)
        return runs

    def _history(self, case_id: str) -> Series | None:
        from ..gate import history

        try:
            series = history.collect(self._saved_runs, case_id).series
        except TrtgateError:  # Apache Otava is not installed: `trtgate history` says so
            return None
        return series[0] if series and len(series[0].points) > 1 else None

    def _case(self, case_id: str, seen: Seen) -> run_report.CaseReport:
        from ..report import report_parts

        run = self._run
        result, where = run.results.get(case_id), run.where.get(case_id)
        baseline = run.gate.baseline if result else None
        measured = result is not None and bool(result.measurement.launches)
        return report_parts.case_report(
            run.suite.cases[case_id],
            result,
            run.accelerator,
            outcome=seen.outcome,
            failure=seen.failure,
            stored=baseline.cases.get(case_id) if baseline else None,
            beside_base=run.options.base is not None,
            where=where.sentence if where and result else "",
            layer_changes=where.changes if where and result else [],
            history=self._history(case_id) if run.options.report and measured else None,
        )


def spent_s(run: GateRun, total_s: float) -> dict[str, float]:
    """Return where `total_s` seconds of a run went, by kind of work; empty where work was done side by side."""
    alone = run.devices.here and len(run.accelerators) == 1 and not run.config.pluginmanager.has_plugin("dsession")
    return run.spent.by_kind(total_s) if alone else {}


def coverage_report(case_id: str, seen: Seen, release: str) -> run_report.CoverageReport:
    """Return what came of one case's coverage test."""
    from ..coverage import coverage_gate
    from ..report import run_report

    if not seen.result:
        return run_report.CoverageReport(
            case_id=case_id, outcome=seen.outcome, said=seen.outcome, sentence=seen.failure
        )
    result = msgspec.json.decode(seen.result, type=coverage_gate.CoverageResult)
    return run_report.CoverageReport(
        case_id=case_id, outcome=seen.outcome, said=str(result.verdict), sentence=result.sentence,
        in_tensorrt=result.in_tensorrt, total=result.total, engines=result.engines,
        release=release,
    )  # fmt: skip


def layers_report(case_id: str, seen: Seen) -> run_report.LayersReport:
    """Return what came of one case's profile test."""
    from ..profiles import profile_gate
    from ..report import run_report

    if not seen.result:
        return run_report.LayersReport(case_id=case_id, outcome=seen.outcome, said=seen.outcome, sentence=seen.failure)
    result = msgspec.json.decode(seen.result, type=profile_gate.ProfileResult)
    return run_report.LayersReport(
        case_id=case_id, outcome=seen.outcome, said=str(result.verdict), sentence=result.sentence,
        device_us=result.device_us, sum_us=result.sum_us, attributed=result.attributed, layers=result.longest,
        modules=result.modules, changes=result.slower,
    )  # fmt: skip
