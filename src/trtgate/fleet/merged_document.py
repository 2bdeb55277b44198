"""A merged run as files: one that `baseline accept` and `history` read as any run, and the document of its reports."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from pytest_benchmark.stats import Stats

from ..common import accelerator
from ..common.errors import TrtgateError
from ..common.notices import Notice
from ..gate import baselines, history
from ..gate.case_result import CaseResult
from ..report import report_parts, run_report
from ..report.run_report import RunReport
from .merged_run import MergedRun
from .stage_record import KEY, Open

UNCONFIRMED = 6
"""Exit code of a merge where nothing is red and something is suspected that no stage has confirmed yet."""


def exit_status(run: MergedRun) -> int:
    """Return 1 where the run is red, UNCONFIRMED where all that is lacking is a confirmation, else 0."""
    return 1 if run.red else UNCONFIRMED * bool(run.open)


def file_name(run: MergedRun) -> str:
    """Return the name of its file: the same when it is merged again, with what was confirmed meanwhile."""
    first = run.gathering.first.record
    stamp = re.sub(r"[^0-9T]", "", first.started)[:15]
    digest = hashlib.sha256(first.attempt.encode()).hexdigest()[:8]
    stamp = stamp if re.fullmatch(r"\d{8}T\d{6}", stamp, re.ASCII) else "00000000T000000"
    return f"{stamp}-{digest}-merged-{run.accelerator.key}.json"


def document(run: MergedRun) -> dict[str, Any]:
    """Return the run as pytest-benchmark's JSON. Raises TrtgateError where a shard lacks the benchmark of a case."""
    first = run.gathering.first
    found = {name: first.document.get(name) for name in ("machine_info", "commit_info", "datetime", "version")}
    found["benchmarks"] = [
        _entry(run, case_id, result) for case_id, result in run.gate.results.items() if result.measurement.launches
    ]
    found["trtgate"] = {"schema": baselines.SCHEMA}
    if run.open:
        found[KEY] = msgspec.to_builtins(Open(manifest=run.manifest, evidence=run.open))
    return found


def _entry(run: MergedRun, case_id: str, result: CaseResult) -> dict[str, Any]:
    """Return a case's benchmark: the shard's, with the statistics and the record of what was concluded."""
    file = run.entries[case_id]
    entry = file.entry(case_id)
    if entry is None or not isinstance(entry.get("stats"), dict):
        raise TrtgateError(f"{file.path} has evidence of {case_id!r} and no benchmark: something took its samples")
    record = run.gate.record_of(run.cases[case_id], result)
    found = run.evidence[case_id]
    machine = found.machines.get(result.measurement.uuid, {})  # the judge's own may be another
    sessions = [
        msgspec.structs.replace(one, recorded=found.recorded or one.recorded, machine=machine)
        for one in record.sessions
    ]
    stored = msgspec.to_builtins(msgspec.structs.replace(record, sessions=sessions))
    stats = Stats()
    for us in result.measurement.blocks_us():
        stats.update(us * 1e-6)
    return {
        **entry,
        "extra_info": {**entry["extra_info"], "trtgate": stored},
        "stats": {**stats.as_dict(), "iterations": 1},
    }


def report(run: MergedRun, command: Sequence[str]) -> RunReport:
    """Return the run as the document that reports are made from."""
    files = [*run.gathering.shards.values(), *run.gathering.confirmations]
    records = [file.record for file in files]
    status = exit_status(run)
    return RunReport(
        outcome=run_report.FAILED if status else run_report.PASSED,
        exit_status=status,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(sum(record.seconds for record in records), 1),
        accelerator=run.accelerator,
        against=_against(run),
        command=list(command),
        commit=history.commit_of(run.gathering.first.document.get("commit_info")),
        cases=_cases(run),
        coverage=[one for record in records for one in record.coverage],
        profiles=[one for record in records for one in record.profiles],
        environment=_environment(run),
        failures=[one for record in records for one in record.failures],
        notices=notices(run),
    )


def notices(run: MergedRun) -> list[Notice]:
    """Return what the run has to say beside its verdicts."""
    return [*run.notices, *(run.gate.notices if run.gate.results else run.gate.remarks)]


def _cases(run: MergedRun) -> list[run_report.CaseReport]:
    baseline, found = run.gate.baseline, []
    for case_id, case in run.cases.items():
        seen, result = run.outcomes.get(case_id), run.gate.results.get(case_id)
        if seen is None:
            continue
        found.append(
            report_parts.case_report(
                case,
                result,
                run.accelerator,
                outcome=seen.outcome,
                failure=seen.said,
                stored=baseline.cases.get(case_id) if baseline else None,
                beside_base=bool(run.manifest.base),
            )
        )
    return found


def _against(run: MergedRun) -> str:
    if run.manifest.base:
        return f"base {run.manifest.base}"
    return f"baseline {os.path.relpath(run.gate.baseline_path)}" if run.gate.baseline else ""


def _environment(run: MergedRun) -> list[str]:
    baseline = run.gate.baseline
    return accelerator.differences(baseline.accelerator, run.accelerator) if baseline else []
