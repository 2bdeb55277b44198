"""Parts of a run's document that follow from results and stored files, whoever measured and judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError
from ..coverage import coverage_baselines
from ..gate import measurement_summary
from ..gate.baseline_record import CaseRecord
from ..gate.case_result import CaseResult
from ..gate.history import Series
from ..gate.sentences import advice
from ..profiles.difference_text import LayerChange
from ..suite import quarantines
from ..suite.cases import Case
from .case_row import row_of
from .run_report import FAILED, SKIPPED, CaseReport, Matrix

DECISIVE = ("regressed", "missing")
"""Verdicts that are why a test failed."""


def case_report(
    case: Case, result: CaseResult | None, accelerator: Accelerator, *, outcome: str, failure: str = "",
    stored: CaseRecord | None = None, beside_base: bool = False, where: str = "",
    layer_changes: Sequence[LayerChange] = (), history: Series | None = None,
) -> CaseReport:  # fmt: skip
    """Return what came of one case: `outcome` and `failure` are its test's, `stored` is what it was judged by.

    `result` is None where nothing was concluded of it.
    """
    verdict = str(result.verdict or "") if result else ""
    said = verdict or {"passed": "measured"}.get(outcome, outcome)
    sentence = result.sentence if result else ""
    if outcome == FAILED and verdict not in DECISIVE:
        said = FAILED
    if said in (FAILED, SKIPPED) or not sentence:
        sentence = failure or sentence
    quarantine = quarantines.in_force(case.settings.quarantine)
    measured = _figures(result, stored, accelerator) if result and result.measurement.launches else {}
    return CaseReport(
        case_id=case.id,
        outcome=outcome,
        said=said,
        sentence=sentence,
        advice="" if quarantine else advice(said, case.id, beside_base=beside_base),
        quarantine=str(quarantine or ""),
        settings=msgspec.to_builtins(case.settings),
        judgements=result.judgements if result else [],
        where=where,
        layer_changes=list(layer_changes),
        history=history,
        **measured,
    )


def _figures(result: CaseResult, stored: CaseRecord | None, accelerator: Accelerator) -> dict[str, Any]:
    """Return what was measured, and what that is compared with, as fields of a report."""
    row, primary = row_of(result), result.measurement.primary
    found: dict[str, Any] = {
        "primary": primary,
        "medians_us": {primary: row.latency_us, **row.others},
        "figures": measurement_summary.figures(result.measurement),
        "captures_us": measurement_summary.means(result.measurement, primary),
        "runtime_cache": result.measurement.runtime_cache,
        "load": measurement_summary.load_levels(result.measurement),
    }
    if result.base is not None:
        found["base_captures_us"] = measurement_summary.means(result.base, primary)
        found["base_figures"] = measurement_summary.figures(result.base)
    elif stored is not None:
        held = stored.of_clock(result.measurement.clock)
        sessions = held.compared_with(result.measurement.uuid, accelerator.versions) if held.sessions else []
        found["base_captures_us"] = [us for one in sessions for us in one.metrics.get(primary, [])]
        if sessions:
            of_the_newest = stored.figures if sessions[-1] is stored.sessions[-1] else {}
            found["base_figures"] = of_the_newest | sessions[-1].figures
    return found


def matrix(root: Path) -> Matrix:
    """Return the stored coverage; without what can't be read, which the coverage tests say."""
    found = Matrix()
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
