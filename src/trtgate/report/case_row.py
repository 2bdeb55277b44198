"""One case of a run as a row: what the table, JUnit's properties and the reports show of it."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from .. import verdict
from ..common.metrics import METRICS
from ..gate.case_result import CaseResult
from ..verdict import Judgement, Verdict


class CaseRow(msgspec.Struct, kw_only=True):
    """One case in the table; latencies in microseconds."""

    case_id: str
    verdict: Verdict | None
    latency_us: float | None
    """None where it was not measured."""
    judgement: Judgement | None
    """The primary metric's."""
    others: dict[str, float]
    """Medians of the other latencies."""


def row_of(result: CaseResult) -> CaseRow:
    """Return a case's line in the table."""
    measurement = result.measurement
    if not measurement.launches:
        return CaseRow(case_id=result.case_id, verdict=result.verdict, latency_us=None, judgement=None, others={})
    medians = {
        metric: math.exp(float(np.mean(verdict.log_launch_means(measurement.samples(metric)))))
        for metric in measurement.metrics
        if METRICS[metric].unit == "us"
    }
    judgement = next((one for one in result.judgements if one.metric == measurement.primary), None)
    measured_us = medians.pop(measurement.primary)
    return CaseRow(
        case_id=result.case_id,
        verdict=result.verdict,
        latency_us=measured_us if judgement is None else judgement.now,
        judgement=judgement,
        others=medians,
    )
