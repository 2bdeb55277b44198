"""Saved runs and reports as rows for other tools: one a case and metric."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError
from ..common.metrics import A_CALL, EACH, METRICS
from ..common.run_places import Place
from ..gate import history
from ..gate.baseline_record import CaseRecord, StoredSession
from ..gate.baselines import FILE_NAME, Run
from ..gate.history import Commit
from ..verdict import Judgement
from .run_report import CaseReport, RunReport

UNITS = {"": "1", EACH: "us/inference", A_CALL: "bytes/call"}
"""How a metric's unit is spelled where it is not as in METRICS; "1" is a count or a ratio. More is worse, of all."""


class ExportRow(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one case in one run; the fields are the columns.

    `value` and `baseline` are in `unit`; `change` and its interval from `low` to `high` are fractions, as is `limit`
    (of what is bytes a call they are that many bytes). None where nothing was compared.
    """

    case: str
    model: str
    accelerator: str
    """The key, as baselines have it."""
    card: str
    """The GPU's UUID; empty on a CPU."""
    metric: str
    unit: str
    value: float
    baseline: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    verdict: str = ""
    """The metric's; where no metric of the case was judged, the case's."""
    commit: str
    branch: str
    time: datetime.datetime
    """When it was measured, UTC."""
    versions: dict[str, str]
    """Library, CUDA or driver → version."""


class _Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one case, whichever file says it."""

    case_id: str
    verdict: str
    card: str
    time: str
    versions: Mapping[str, str]
    values: Mapping[str, float]
    """Metric → value in its unit."""
    judgements: Iterable[Judgement]


def of_run(run: Run) -> list[ExportRow]:
    """Return the rows of a saved run. Raises TrtgateError for a part of a run, a baseline, or a time that is none."""
    run.judged()
    if run.path.name == FILE_NAME or any(len(record.sessions) > 1 for record in run.cases.values()):
        raise TrtgateError(
            f"{run.path} is a baseline, which holds sessions of many runs and not their commits: export the runs, "
            "which are in .trtgate/runs"
        )
    commit = history.commit_of(run.document.get("commit_info"))
    measured = [_of_record(record) for record in run.cases.values()]
    return _rows(run.path, run.accelerator, commit, measured)


def of_report(path: Place, report: RunReport) -> list[ExportRow]:
    """Return the rows of a report that was read from a path. Raises TrtgateError for a time that is none."""
    measured = [_of_report(case, report) for case in report.cases]
    return _rows(path, report.accelerator, report.commit, measured)


def _of_record(record: CaseRecord) -> _Measured:
    session = record.sessions[-1]
    return _Measured(
        case_id=record.case,
        verdict=record.verdict,
        card=session.uuid,
        time=session.recorded,
        versions=session.versions,
        values=_figures(record.figures | session.figures) | _sampled(session),
        judgements=record.judgements,
    )


def _of_report(case: CaseReport, report: RunReport) -> _Measured:
    return _Measured(
        case_id=case.case_id,
        verdict=case.said,
        card=report.accelerator.uuid,
        time=report.created,
        versions=report.accelerator.versions,
        values=_figures(case.figures) | case.medians_us,
        judgements=case.judgements,
    )


def _figures(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: figures[metric.figure] for name, metric in METRICS.items() if metric.figure in figures}


def _sampled(session: StoredSession) -> dict[str, float]:
    """Return each metric's geometric mean over launches, with the six digits that stored values have."""
    means = {metric: session.log_launch_means(metric) for metric in session.metrics}
    return {
        metric: float(f"{math.exp(float(np.mean(launches))):.6g}")
        for metric, launches in means.items() if launches is not None
    }  # fmt: skip


def _rows(path: Place, accelerator: Accelerator, commit: Commit, measured: Iterable[_Measured]) -> list[ExportRow]:
    rows = []
    for case in measured:
        judged = {judgement.metric: judgement for judgement in case.judgements}
        values = {**case.values, **{metric: one.now for metric, one in judged.items()}}
        for metric in [name for name in METRICS if name in values]:
            one = judged.get(metric)
            unit = METRICS[metric].unit
            rows.append(
                ExportRow(
                    case=case.case_id,
                    model=case.case_id.partition("-")[0],
                    accelerator=accelerator.key,
                    card=case.card,
                    metric=metric,
                    unit=UNITS.get(unit, unit),
                    value=values[metric],
                    verdict="" if one is None and judged else str(case.verdict if one is None else one.verdict),
                    commit=commit.id,
                    branch=commit.branch,
                    time=_utc(path, case),
                    versions=dict(case.versions) or accelerator.versions,
                    **_compared(one),
                )
            )
    return rows


def _compared(judgement: Judgement | None) -> dict[str, float]:
    if judgement is None:
        return {}
    return {name: getattr(judgement, name) for name in ("baseline", "change", "low", "high", "limit")}


def _utc(path: Place, case: _Measured) -> datetime.datetime:
    try:
        return history.utc(case.time)
    except (ValueError, OverflowError) as error:
        raise TrtgateError(
            f"{path}: case {case.case_id} was measured at {case.time!r}, which is no time: restore the file"
        ) from error
