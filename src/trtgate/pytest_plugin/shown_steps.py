"""The steps of a case on the terminal, while pytest captures what tests print."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest

from ..common.steps import OnStep
from ..report.progress_line import ProgressLine, how_far


def estimate(costs_s: Mapping[str, float | None], results: Iterable[str], elapsed_s: float) -> str:
    """Return how far a run is, and how long the cases that are left will take by what their baseline recorded.

    `costs_s` has that for all cases; `results` are those that are done, in `elapsed_s`.
    """
    left = dict(costs_s)
    done = [left.pop(case_id, None) for case_id in results]
    return how_far(done, list(left.values()), elapsed_s) if done or left else ""


def uncaptured(config: pytest.Config) -> AbstractContextManager[None]:
    """Within: what is written reaches the terminal."""
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    return nullcontext() if capture is None else capture.global_and_fixture_disabled()


@contextmanager
def shown_steps(config: pytest.Config, case_id: str, how_far: Callable[[], str]) -> Generator[OnStep]:
    """Within: the steps of a case are shown; `how_far` says how far the run is."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.verbose < 0:
        yield lambda _text: None
        return

    def write_line(text: str) -> None:
        with uncaptured(config):
            reporter.write_line(text)

    live = False

    def overwrite(text: str) -> None:
        nonlocal live
        if not text and not live:
            return  # there is nothing of ours to be cleared
        with uncaptured(config):
            if not live:
                reporter.ensure_newline()  # what pytest wrote on its line stays
            reporter.write(f"\r\x1b[K{text}", flush=True)
        live = bool(text)

    shown = ProgressLine(write_line, overwrite if reporter.isatty else None, how_far)
    try:
        yield lambda text: shown.step(f"{case_id}: {text}")
    finally:
        shown.done()
