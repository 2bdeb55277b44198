"""What left a case of the baseline out of a run: each filter excuses those cases alone that it would not have taken."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.mark.expression import Expression

from .gate_run import RUN

if TYPE_CHECKING:
    from .gate_run import GateRun

OPTIONS = (
    "-k", "-m", "--deselect", "--lf", "--last-failed", "--sw", "--stepwise", "--ignore", "--trtgate-models",
    "--trtgate-frontends", "--trtgate-precisions", "--trtgate-batches", "--trtgate-shapes",
)  # fmt: skip
"""What leaves tests out."""


def left_out(session: pytest.Session, run: GateRun, case_ids: Sequence[str], deselected: Collection[str]) -> list[str]:
    """Return those of the cases that a filter of this run would not have taken; all of them where it was stopped.

    `deselected` are those whose tests of the kind that is asked for were.
    """
    if session.shouldstop or session.shouldfail or any("::" in argument for argument in session.config.args):
        return list(case_ids)
    last_failed = session.config.getoption("lf", False)  # it leaves out in collecting, and tells nobody
    return [
        case_id
        for case_id in case_ids
        if case_id in deselected
        or (last_failed and case_id in run.suite.cases)
        or (run.suites.uncollected() and case_id not in run.suite.cases)
        or not _taken(session.config, run, case_id)
    ]


def _taken(config: pytest.Config, run: GateRun, case_id: str) -> bool:
    """Whether the filters take a case, as far as its id tells where the suite has it no more."""
    selection, case = run.options.selection, run.suite.cases.get(case_id)
    if not (selection.takes_id(case_id) if case is None else selection.takes(case)):
        return False
    if case is not None or not config.option.keyword:
        return True
    name = f"test_latency[{case_id}]".lower()

    def matches(word: str, /, **_more: object) -> bool:
        return word.lower() in name

    try:
        return Expression.compile(config.option.keyword).evaluate(matches)
    except SyntaxError:  # pytest says what is wrong with it
        return True


def typed(config: pytest.Config, *options: str) -> bool:
    """Whether an option was typed by whoever started the run, not found in addopts or PYTEST_ADDOPTS."""
    return any(str(argument).split("=")[0] in options for argument in config.invocation_params.args)


def on_command_line(config: pytest.Config) -> bool:
    """Whether a filter was typed by whoever started the run, not found in addopts or PYTEST_ADDOPTS."""
    arguments = [str(argument) for argument in config.invocation_params.args]
    run = config.stash.get(RUN, None)
    if run is not None and run.suites.uncollected() and any(Path(one).exists() for one in arguments):
        return True
    return typed(config, *OPTIONS) or any("::" in one or one[:2] in ("-k", "-m") for one in arguments)
