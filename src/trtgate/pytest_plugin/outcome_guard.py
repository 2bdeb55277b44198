"""A test of a case that failed stays failed, and a run that is ended early has not passed, whoever says otherwise."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from ..common.escaping import terminal
from ..common.explanations import Explanation, explained

if TYPE_CHECKING:
    from .gate_run import GateRun

PROPERTY = "trtgate_failed"
"""The property of a test's report that says why it failed, whatever became of it."""


class OutcomeGuard:
    """Compares what tests said with what was reported of them, wherever they ran."""

    def __init__(self, run: GateRun) -> None:
        self._run = run
        self._changed: list[str] = []
        self._ended: str | None = None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        """Remember who ended the run before its first test."""
        return (yield from self._ending())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Remember who ended the run before its last test."""
        return (yield from self._ending())

    def _ending(self) -> Generator[None, object, object]:
        try:
            return (yield)
        except pytest.exit.Exception as error:
            self._ended = str(error)
            raise

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a failure that is not reported as one: an xfail marker, a hook that writes another outcome."""
        failed = any(name == PROPERTY for name, _ in report.user_properties)
        if failed and report.when == "call" and report.outcome not in ("failed", "rerun"):
            self._changed.append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn the run red; one that was ended early, where something is judged, stored or required."""
        options = self._run.options
        asked = self._run.judges or options.update or options.require
        if session.exitstatus != pytest.ExitCode.OK or not asked:
            self._ended = None
        if self._changed or self._ended is not None:
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say which tests failed and were reported otherwise, and how the run was ended."""
        if self._ended is not None:
            said = f"ERROR: pytest.exit ended the run as if it had passed, and not all tests were run: {self._ended}"
            terminalreporter.write_line(terminal(explained(said, Explanation.OUTSIDE_INTERFERENCE)), red=True)
        for nodeid in self._changed:
            said = f"ERROR: {nodeid} failed, and a marker or a hook from outside trtgate reported it otherwise"
            said = f"{said}: quarantine it in the suite, or say how it is known to fail"
            terminalreporter.write_line(terminal(explained(said, Explanation.OUTSIDE_INTERFERENCE)), red=True)
