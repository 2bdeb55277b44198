"""Which judgements follow from memory that was read again and again, and from what is stored of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from .. import verdict
from ..common.accelerator import Accelerator
from ..common.metrics import METRICS
from ..records.measurement import CaseMeasurement
from ..verdict import Judgement, Verdict
from . import measurement_summary
from .baseline_record import CaseRecord

LimitOf = Callable[[str], float]
"""Metric → bytes a call."""


def since_asked(
    measurement: CaseMeasurement, record: CaseRecord, accelerator: Accelerator, limit_of: LimitOf
) -> list[Judgement]:
    """Judge growth by what the newest session says that was asked for it."""
    known = record.compared_with(accelerator.uuid, accelerator.versions)
    return grown(measurement, {name: value for one in known for name, value in one.figures.items()}, limit_of)


def grown(measurement: CaseMeasurement, before: Mapping[str, float], limit_of: LimitOf) -> list[Judgement]:
    """Judge by how much memory grows a call, beside what it grew by before: a baseline that was not asked grew by 0."""
    judged = []
    for name, readings, found in measurement_summary.growths(measurement):
        was = max(0.0, before.get(METRICS[name].figure, 0.0))
        calls = readings.calls * len(readings.host_bytes)
        one = verdict.judge_growth(name, found, was, limit=limit_of(name), calls=calls)
        places = "; ".join(readings.places) if one.verdict is Verdict.REGRESSED else ""
        judged.append(msgspec.structs.replace(one, groups=places))
    return judged
