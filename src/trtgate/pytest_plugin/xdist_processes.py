"""What a process of pytest-xdist collected and refused, told to the process that reports: that one collects nothing."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec
import pytest

from ..common.explanations import Explanation, explained
from ..common.notices import Notice, Severity
from .collected_suites import Elsewhere
from .gate_run import GateRun

KEY = "trtgate"
"""In what pytest-xdist carries from a process at its end."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What one process tells at its end."""

    refused: str = ""
    """What ended it with exit code 4, as pytest says it."""
    collected: Elsewhere
    notices: list[Notice]


class Teller:
    """Tells, in a process that runs tests."""

    def __init__(self, run: GateRun) -> None:
        self._run = run
        self._refused = ""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        """Keep what is refused: pytest-xdist waits for a process that ends before it has collected."""
        return (yield from self._kept())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Keep what is refused before the first test."""
        return (yield from self._kept())

    def _kept(self) -> Generator[None, object, object]:
        try:
            return (yield)
        except pytest.UsageError as error:
            self._refused = str(error)
            raise

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Tell: pytest-xdist sends it once all these hooks have run."""
        run, found = self._run, Elsewhere()
        if not self._refused:
            known = [*run.suite.cases, *run.zoo] if run.suites.parts else []
            found = Elsewhere(
                suites=list(run.suites.source.suites), known_cases=known, no_case_left=run.suites.no_case_left
            )
        remarks = run.gate.remarks if "gate" in vars(run) else []
        told = Told(refused=self._refused, collected=found, notices=[*run.notices, *remarks])
        output: dict[str, Any] = session.config.workeroutput  # type: ignore[attr-defined]
        output[KEY] = msgspec.json.encode(told).decode()


class Listener:
    """Listens, in the process that reports."""

    def __init__(self, run: GateRun) -> None:
        self._run = run

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a process told; one that crashed told nothing. Raises pytest.UsageError for what it refused."""
        said = (getattr(node, "workeroutput", None) or {}).get(KEY)
        if said is None:
            return
        told, run = msgspec.json.decode(said, type=Told), self._run
        if told.refused:
            raise pytest.UsageError(explained(told.refused, Explanation.SUITE_PROBLEM))
        run.suites.elsewhere = told.collected
        run.notices += [notice for notice in told.notices if notice not in run.notices]
        self._show()

    def _show(self) -> None:
        plugins = self._run.config.pluginmanager
        if self._run.notices and not plugins.has_plugin("trtgate-ending"):
            from .run_end import Ending  # and with it NumPy, SciPy and rich

            plugins.register(Ending(self._run), "trtgate-ending")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Turn the run red where a process noticed a failure that is no test's, or none told anything."""
        run = self._run
        if not run.config.pluginmanager.has_plugin("dsession"):
            return
        if run.suites.elsewhere is None and session.exitstatus == pytest.ExitCode.OK:
            said = "no process of -n came to its end, so nobody knows what they collected and which cases are gone"
            said = explained(f"{said}: something ends them, see what they print", Explanation.OUTSIDE_INTERFERENCE)
            run.say(said, Severity.ERROR)
            self._show()
        if any(notice.failed for notice in run.notices):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
