"""The last line of a run that is red though all its tests passed: pytest's own counts tests."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from ..common.explanations import explanation_in
from .gate_run import GateRun


class RedEnd:
    """Says that lines above are why the exit code is not 0, where no failed test is; it repeats none of them."""

    def __init__(self, run: GateRun) -> None:
        self._run = run

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None]:
        """Let pytest write the line, in red above its counts, once all who may turn the run red did."""
        yield
        run = self._run
        of_cases = (notice for result in run.results.values() for notice in result.notices)
        why = [notice.text for notice in (*run.notices, *of_cases, *run.coverage_notices) if notice.failed]
        if why and exitstatus == pytest.ExitCode.OK != session.exitstatus:
            names = ", ".join(dict.fromkeys(filter(None, map(explanation_in, why))))
            lines = "a line above says why" if len(why) == 1 else f"{len(why)} lines above say why"
            session.shouldfail = f"red, though no test failed: {lines}: {names}"
