"""A report as GitHub's workflow commands: an annotation for each failure, read from a job's output.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from ..common.escaping import workflow_data, workflow_property
from .run_report import FAILED, RunReport

MOST = 10
"""GitHub shows ten errors of a step."""


def lines(report: RunReport) -> list[str]:
    """Return the commands, those of the worst cases first."""
    failed: list[tuple[str, str]] = [
        (f"{case.case_id}: {case.said}", " ".join(filter(None, (case.sentence, case.where, case.advice))))
        for case in report.cases
        if case.outcome == FAILED
    ]
    failed += [(f"{one.case_id}: coverage", one.sentence) for one in report.coverage if one.outcome == FAILED]
    failed += [(f"{one.case_id}: layers", one.sentence) for one in report.profiles if one.outcome == FAILED]
    failed += [(failure.test, failure.sentence) for failure in report.failures]
    failed += [("trtgate", str(notice)) for notice in report.failing_notices]
    shown = failed if len(failed) <= MOST else failed[: MOST - 1]
    said = [f"::error title={workflow_property(title)}::{workflow_data(message)}" for title, message in shown]
    if len(failed) > len(shown):
        said.append(f"::error title=trtgate::and {len(failed) - len(shown)} more failures")
    return said
