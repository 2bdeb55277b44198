"""A run as the document that its reports are made from."""

from __future__ import annotations

import datetime
import os
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from ..common.errors import TrtgateError
from ..common.run_folder import RUNS
from .gate_run import GateRun

if TYPE_CHECKING:
    from ..common.notices import Notice
    from ..gate.case_result import CaseResult
    from ..gate.history import SavedRun, Series
    from ..report import run_report

DECISIVE = ("regressed", "missing")
"""Verdicts that are why a test failed."""


class Seen(msgspec.Struct):
    """What is known of one test."""

    outcome: str
    failure: str = ""
    result: str = ""
    """What it found, as JSON; of a coverage or a profile test."""


class Collected(msgspec.Struct):
    """What is known of all tests so far: case id → its test; of others, what failed → why."""

    latency: dict[str, Seen] = {}
    coverage: dict[str, Seen] = {}
    profiles: dict[str, Seen] = {}
    others: dict[str, str] = {}


class RunDocument:
    """Makes the document."""

    def __init__(self, run: GateRun, collected: Collected) -> None:
        self._run = run
        self._collected = collected

    def make(self, exit_status: int) -> run_report.RunReport:
        """Return the run as it is now."""
        from ..gate import history
        from ..report import run_report

        collected = self._collected
        return run_report.RunReport(
            outcome=run_report.FAILED if exit_status else run_report.PASSED,
            exit_status=exit_status,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._run.started, 1),
            accelerator=self._run.accelerator,
            against=self._against(),
            command=["pytest", *map(str, self._run.config.invocation_params.args)],
            commit=history.commit_of(self._run.json.commit_info),
            cases=[self._case(case_id, seen) for case_id, seen in collected.latency.items()],
            coverage=[_coverage(case_id, seen) for case_id, seen in collected.coverage.items()],
            profiles=[_layers(case_id, seen) for case_id, seen in collected.profiles.items()],
            matrix=self._matrix() if self._run.options.report else run_report.Matrix(),
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
        return f"baseline {os.path.relpath(self._run.gate.baseline.path, self._run.config.rootpath)}"

    def _environment(self) -> list[str]:
        from ..common import accelerator

        if not self._against().startswith("baseline"):
            return []
        baseline = self._run.gate.baseline
        return accelerator.differences(baseline.accelerator, self._run.accelerator) if baseline else []

    def _matrix(self) -> run_report.Matrix:
        """Return the stored coverage; without what can't be read, which the coverage tests say."""
        from ..coverage import coverage_baselines
        from ..report import run_report

        root, found = self._run.options.baselines, run_report.Matrix()
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
    def _saved_runs(self) -> list[SavedRun]:
        """The saved runs of this accelerator, this one among them."""
        from ..gate import history

        runs, _ = history.read_runs(self._run.folder / RUNS, self._run.results.__contains__)
        return [run for run in runs if run.key == self._run.accelerator.key]

    def _history(self, case_id: str) -> Series | None:
        from ..gate import history

        try:
            series = history.collect(self._saved_runs, case_id).series
        except TrtgateError:  # Apache Otava is not installed: `trtgate history` says so
            return None
        return series[0] if series and len(series[0].points) > 1 else None

    def _case(self, case_id: str, seen: Seen) -> run_report.CaseReport:
        from ..gate.sentences import advice
        from ..report import run_report

        beside_base = self._run.options.base is not None
        result = self._run.results.get(case_id)
        verdict = str(result.verdict or "") if result else ""
        said = verdict or {"passed": "measured"}.get(seen.outcome, seen.outcome)
        sentence = result.sentence if result else ""
        if seen.outcome == run_report.FAILED and verdict not in DECISIVE:
            said = run_report.FAILED
        if said in (run_report.FAILED, run_report.SKIPPED) or not sentence:
            sentence = seen.failure or sentence
        quarantine = self._run.quarantine_of(case_id)
        where = self._run.where.get(case_id) if result else None
        return run_report.CaseReport(
            case_id=case_id,
            outcome=seen.outcome,
            said=said,
            sentence=sentence,
            advice="" if quarantine else advice(said, case_id, beside_base=beside_base),
            quarantine=str(quarantine or ""),
            settings=msgspec.to_builtins(self._run.suite.cases[case_id].settings),
            judgements=result.judgements if result else [],
            where=where.sentence if where else "",
            layer_changes=where.changes if where else [],
            **(self._figures(result) if result and result.measurement.launches else {}),
        )

    def _figures(self, result: CaseResult) -> dict[str, Any]:
        """Return what was measured, and what that is compared with, as fields of a report."""
        from ..gate import measurement_summary
        from ..report.case_row import row_of

        row, primary = row_of(result), result.measurement.primary
        stored = self._run.gate.baseline.cases.get(result.case_id) if self._run.gate.baseline else None
        found: dict[str, Any] = {
            "primary": primary,
            "medians_us": {primary: row.latency_us, **row.others},
            "figures": measurement_summary.figures(result.measurement),
            "captures_us": measurement_summary.means(result.measurement, primary),
            "load": measurement_summary.load_levels(result.measurement),
            "history": self._history(result.case_id) if self._run.options.report else None,
        }
        if result.base is not None:
            found["base_captures_us"] = measurement_summary.means(result.base, primary)
            found["base_figures"] = measurement_summary.figures(result.base)
        elif stored is not None:
            held, here = stored.of_clock(result.measurement.clock), self._run.accelerator
            sessions = held.compared_with(result.measurement.uuid, here.versions) if held.sessions else []
            found["base_captures_us"] = [us for one in sessions for us in one.metrics.get(primary, [])]
            found["base_figures"] = stored.figures | sessions[-1].figures if sessions else {}
        return found


def _coverage(case_id: str, seen: Seen) -> run_report.CoverageReport:
    from ..coverage import coverage_gate
    from ..report import run_report
    from ..torch_trt import releases

    if not seen.result:
        return run_report.CoverageReport(
            case_id=case_id, outcome=seen.outcome, said=seen.outcome, sentence=seen.failure
        )
    result = msgspec.json.decode(seen.result, type=coverage_gate.CoverageResult)
    return run_report.CoverageReport(
        case_id=case_id, outcome=seen.outcome, said=str(result.verdict), sentence=result.sentence,
        in_tensorrt=result.in_tensorrt, total=result.total, engines=result.engines,
        release=releases.installed_release(),
    )  # fmt: skip


def _layers(case_id: str, seen: Seen) -> run_report.LayersReport:
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
