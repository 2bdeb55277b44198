"""The steps of a case on the terminal, while pytest captures what tests print."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from ..common.steps import OnStep
from ..report.progress_line import ProgressLine, how_far

if TYPE_CHECKING:
    from .gate_run import GateRun


def estimate(run: GateRun) -> str:
    """Return how far a run is, and how long the cases that are left will take by what their baseline recorded.

    While cases are built ahead nothing is said of that: how long they take side by side nobody recorded.
    """
    cases = [case.id for case in run.cases_collected]
    if not cases:
        return ""
    costs = dict.fromkeys(cases) if run.measuring_since is None else {one: _recorded_s(run, one) for one in cases}
    done = [costs.pop(case_id, None) for case_id in run.results]
    return how_far(done, list(costs.values()), time.monotonic() - (run.measuring_since or run.started))


def _recorded_s(run: GateRun, case_id: str) -> float | None:
    """Return what a case took to measure when it was recorded, and to build where it is not built yet."""
    figures = ["measure_s"] if case_id in run.prebuilt else ["measure_s", "ready_s"]
    known = [found for name in figures if (found := run.gate.recorded(case_id, name)) is not None]
    return sum(known) if known else None


@contextmanager
def shown_steps(config: pytest.Config, case_id: str, how_far: Callable[[], str]) -> Generator[OnStep]:
    """Within: the steps of a case are shown; `how_far` says how far the run is."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    if reporter is None or config.option.verbose < 0:
        yield lambda _text: None
        return

    def uncaptured() -> AbstractContextManager[None]:
        return nullcontext() if capture is None else capture.global_and_fixture_disabled()

    def write_line(text: str) -> None:
        with uncaptured():
            reporter.write_line(text)

    live = False

    def overwrite(text: str) -> None:
        nonlocal live
        if not text and not live:
            return  # there is nothing of ours to be cleared
        with uncaptured():
            if not live:
                reporter.ensure_newline()  # what pytest wrote on its line stays
            reporter.write(f"\r\x1b[K{text}", flush=True)
        live = bool(text)

    shown = ProgressLine(write_line, overwrite if reporter.isatty else None, how_far)
    try:
        yield lambda text: shown.step(f"{case_id}: {text}")
    finally:
        shown.done()
