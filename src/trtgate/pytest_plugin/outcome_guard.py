"""A test of a case that failed stays failed: whoever turns it into something else turns the run red."""

from __future__ import annotations

from typing import Any

import pytest

from ..common.escaping import terminal
from ..common.explanations import Explanation, explained

PROPERTY = "trtgate_failed"
"""The property of a test's report that says why it failed, whatever became of it."""


class OutcomeGuard:
    """Compares what tests said with what was reported of them, wherever they ran."""

    def __init__(self) -> None:
        self._changed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a failure that is not reported as one: an xfail marker, a hook that writes another outcome."""
        failed = any(name == PROPERTY for name, _ in report.user_properties)
        if failed and report.when == "call" and report.outcome not in ("failed", "rerun"):
            self._changed.append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn the run red."""
        if self._changed:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say which tests failed and were reported otherwise."""
        for nodeid in self._changed:
            said = f"ERROR: {nodeid} failed, and a marker or a hook from outside trtgate reported it otherwise"
            said = f"{said}: quarantine it in the suite, or say how it is known to fail"
            terminalreporter.write_line(terminal(explained(said, Explanation.OUTSIDE_INTERFERENCE)), red=True)
