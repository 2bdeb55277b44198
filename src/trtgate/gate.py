"""A run's memory: what was measured, judged against which baseline, and what is to be stored. Knows no pytest."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from . import baselines, evidence, files, verdict
from .accelerator import Accelerator
from .baselines import CaseRecord, Run, StoredSession
from .cases import Case
from .errors import TrtgateError
from .options import Options
from .records import Build, CaseMeasurement
from .report.sentences import about_new, sentence
from .report.terminal import Row
from .session import Session, Step
from .verdict import Judgement, Verdict

KEPT_RUNS = 50


class CaseResult(msgspec.Struct, kw_only=True):
    """One case's outcome: the verdict (None when nothing was to be judged) and the sentence that explains it."""

    case_id: str
    measurement: CaseMeasurement
    verdict: Verdict | None = None
    sentence: str = ""
    judgements: list[Judgement] = []
    stored: bool = False
    """Whether the run may store it as a baseline."""

    def row(self) -> Row:
        """Return its line in the table."""
        primary = self.measurement.primary
        medians = {
            metric: math.exp(float(np.mean(verdict.log_launch_means(self.measurement.samples(metric)))))
            for metric in self.measurement.metrics
        }
        return Row(
            case_id=self.case_id,
            verdict=self.verdict,
            latency_us=medians.pop(primary),
            judgement=next((j for j in self.judgements if j.metric == primary), None),
            others=medians,
        )


class Gate:
    """Measures cases with a session of workers and judges them against one baseline.

    Raises TrtgateError, on construction, for a baseline file that is broken or of another accelerator.
    """

    def __init__(self, options: Options, accelerator: Accelerator, folder: Path) -> None:
        self.options = options
        self.accelerator = accelerator
        self.folder = folder
        self.results: dict[str, CaseResult] = {}
        self.cases_collected = 1
        self.accepted: set[str] = set()
        """Ids of cases that may be stored although they regressed."""
        self.baseline = self._find_baseline() if options.compare else None
        self._session: Session | None = None
        self._artifacts: Path | None = None
        self._run_file: Path | None = None

    @property
    def baseline_path(self) -> Path:
        """Where this accelerator's baseline lies, or would."""
        return self.options.compare_file or baselines.path_of(self.options.baselines, self.accelerator.key)

    def _find_baseline(self) -> Run | None:
        path = self.baseline_path
        if not path.exists():
            return None
        found = baselines.read(path)
        if found.accelerator.key != self.accelerator.key:
            raise TrtgateError(
                f"{path} was recorded on {found.accelerator.key}, and this machine is {self.accelerator.key}: "
                "latencies of different accelerators can't be compared"
            )
        return found

    def start(self) -> None:
        """Start the workers: they import while the first case is built."""
        self.session().start()

    def session(self) -> Session:
        """Return the session of resident workers."""
        if self._session is None:
            self._session = Session(
                self.options.source,
                self.accelerator,
                self.folder / "logs",
                launches=self.options.launches,
                timeout_s=self.options.timeout_s,
            )
        return self._session

    def artifact_folder(self, case: Case) -> Path:
        """Return a new folder, the user's alone, for a case's artifact."""
        if self._artifacts is None:
            _make_ignored(self.folder)
            _remove_abandoned(self.folder)
            self._artifacts = Path(tempfile.mkdtemp(prefix=f"artifacts-{os.getpid()}-", dir=self.folder))  # mode 0700
        return Path(tempfile.mkdtemp(prefix=f"{case.model.name}-", dir=self._artifacts))

    def close(self) -> None:
        """End the workers and remove the artifacts."""
        if self._session is not None:
            self._session.close()
        if self._artifacts is not None:
            shutil.rmtree(self._artifacts, ignore_errors=True)

    def run(self, case: Case, artifact: Path | None, build: Build, step: Step) -> CaseResult:
        """Measure a case and judge it; a suspect is measured again in fresh launches.

        Raises LaunchError when a launch fails.
        """
        measurement = self._measure(case, artifact, build, step)
        result = self._judge(case, measurement)
        if result.verdict is Verdict.REGRESSED:
            step("slower than the baseline: measuring again in fresh launches")
            self.session().renew()
            again = self._judge(case, self._measure(case, artifact, build, step))
            result = self._confirmed(case, result, again)
        self.results[case.id] = result
        return result

    def _measure(self, case: Case, artifact: Path | None, build: Build, step: Step) -> CaseMeasurement:
        measurement = self.session().measure(case.id, artifact, step)
        measurement.build = build
        if not measurement.blocks_us():
            raise TrtgateError(f"{case.id}: not one block counts: {evidence.void_problem(measurement)}")
        return measurement

    def _judge(self, case: Case, measurement: CaseMeasurement) -> CaseResult:
        result = CaseResult(case_id=case.id, measurement=measurement, stored=True)
        if not self.options.compare:
            return result
        void = evidence.void_problem(measurement)
        record = self.baseline.cases.get(case.id) if self.baseline else None
        if void:
            result.verdict, result.sentence, result.stored = Verdict.UNDERPOWERED, f"{case.id}: {void}", False
        elif record is None:
            result.verdict, result.sentence = Verdict.NEW, self._new_sentence(case)
        else:
            self._judge_stored(case, result, record)
        return result

    def _judge_stored(self, case: Case, result: CaseResult, record: CaseRecord) -> None:
        measurement = result.measurement
        problem = _incomparable(measurement, record)
        if problem:
            result.verdict, result.stored = Verdict.INCOMPARABLE, case.id in self.accepted
            result.sentence = f"{case.id}: {problem}"
            return
        result.judgements = [
            judgement for metric in measurement.metrics
            if (judgement := self._judge_metric(case, measurement, record, metric)) is not None
        ]  # fmt: skip
        if measurement.primary not in {judgement.metric for judgement in result.judgements}:
            raise TrtgateError(
                f"{self.baseline_path}: case {case.id} has no {measurement.primary} latency; record it anew"
            )
        result.verdict = verdict.case_verdict(result.judgements, measurement.primary)
        result.sentence = sentence(case.id, result.verdict, result.judgements, measurement.primary)
        if result.verdict is Verdict.REGRESSED:
            result.stored = case.id in self.accepted

    def _judge_metric(
        self, case: Case, measurement: CaseMeasurement, record: CaseRecord, metric: str
    ) -> Judgement | None:
        found = [(session, session.log_launch_means(metric)) for session in record.sessions]
        sessions = [(session, means) for session, means in found if means is not None]
        if not sessions:
            return None
        same_card = all(session.uuid == self.accelerator.uuid for session, _ in sessions)
        kind = "cpu" if self.accelerator.kind == "cpu" else metric
        return verdict.judge_stored(
            metric,
            verdict.log_launch_means(measurement.samples(metric)),
            [means for _, means in sessions],
            verdict.PRIORS[kind, same_card],
            limit=self.options.limit(metric, case, {}),
            tests=self.cases_collected * len(measurement.metrics),
        )

    def _confirmed(self, case: Case, first: CaseResult, again: CaseResult) -> CaseResult:
        if again.verdict in (Verdict.INCOMPARABLE, Verdict.UNDERPOWERED) and not again.judgements:
            return again
        repeated = {judgement.metric: judgement for judgement in again.judgements}
        again.judgements = [
            verdict.confirm_stored(judgement, repeated[judgement.metric]) for judgement in first.judgements
        ]
        if any(judgement.verdict is Verdict.REGRESSED for judgement in again.judgements):
            again.verdict = Verdict.REGRESSED
        else:
            again.verdict, again.stored = Verdict.UNCONFIRMED, True
        again.sentence = sentence(case.id, again.verdict, again.judgements, again.measurement.primary)
        return again

    def _new_sentence(self, case: Case) -> str:
        return about_new([case.id], self.accelerator.key, self.other_keys())

    def other_keys(self) -> list[str]:
        """Return the other accelerators that there are baselines for."""
        return [key for key in baselines.keys(self.options.baselines) if key != self.accelerator.key]

    def record(self, case: Case, result: CaseResult) -> CaseRecord:
        """Return what a file stores of a case."""
        measurement = result.measurement
        session = StoredSession(
            recorded=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            uuid=self.accelerator.uuid,
            clock=measurement.clock,
            metrics={metric: evidence.means(measurement, metric) for metric in measurement.metrics},
            state=evidence.state_of(measurement),
        )
        return CaseRecord(
            case=case.id,
            settings=msgspec.to_builtins(case.settings),
            verdict=str(result.verdict or "measured"),
            sessions=[session],
            figures=evidence.figures(measurement),
            disturbed=bool(evidence.void_problem(measurement)),
        )

    def missing(self, excused: set[str]) -> list[str]:
        """Return the baseline's cases that got no result in this run and are not in `excused`."""
        stored = self.baseline.cases if self.baseline else {}
        return [case_id for case_id in stored if case_id not in self.results and case_id not in excused]

    def save_run(self, document: dict[str, Any]) -> Path:
        """Store everything this run measured so far, regressed cases too, under `.trtgate/runs`.

        Called after each case, so that a run that is killed can still be looked at, or accepted.
        """
        if self._run_file is None:
            _make_ignored(self.folder)
            stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
            self._run_file = self.folder / "runs" / f"{stamp}-{os.getpid()}-{self.accelerator.key}.json"
            for old in sorted(self._run_file.parent.glob("*.json"))[: 1 - KEPT_RUNS]:
                with contextlib.suppress(OSError):
                    old.unlink()
        files.write_json(self._run_file, document)
        return self._run_file

    def update_baseline(self, run: Run) -> list[baselines.Update]:
        """Write the cases of a saved run that may be stored."""
        ids = [case_id for case_id, result in self.results.items() if result.stored]
        return baselines.update(self.options.baselines, run, ids) if ids else []


def _incomparable(measurement: CaseMeasurement, record: CaseRecord) -> str:
    """Return why a measurement can't be compared with what is stored; empty when it can."""
    state = evidence.another_state(measurement, record)
    if state:
        return f"this machine is in another state than when its baseline was recorded: {state}"
    clocks = {session.clock for session in record.sessions}
    if clocks != {measurement.clock}:
        return f"timed with the clock {measurement.clock}, its baseline with {'+'.join(sorted(clocks))}"
    return ""


def _make_ignored(folder: Path) -> None:
    """Make our folder, with a file that keeps it out of git."""
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def _remove_abandoned(folder: Path) -> None:
    """Remove artifacts of processes that ended without removing them."""
    for path in folder.glob("artifacts-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(path, ignore_errors=True)
