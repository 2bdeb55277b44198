"""With `--trtgate-prebuild` on a GPU, the next test's case is loaded together with the one that is measured now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from . import prebuilding

if TYPE_CHECKING:
    from ..session import Next
    from .run import GateRun


def plan(run: GateRun, tests: Sequence[tuple[pytest.Item, str | None]]) -> None:
    """Remember the order of the latency tests and their cases, if those are built ahead and there is room for workers.

    They are as many processes again, so it must be a machine that takes as many builders. Cards that share the cases
    don't know who measures what next.
    """
    options = run.options
    if (
        options.prebuild is None
        or options.base is not None
        or len(run.accelerators) > 1
        or run.accelerator.kind != "gpu"
    ):
        return
    run.gate.loads_ahead = prebuilding.builders(run) >= 2 * options.launches
    run.latency_tests = list(tests) if run.gate.loads_ahead else []


def after(run: GateRun, test: pytest.Item) -> Next | None:
    """Return the case of the test after this one; None where that is not known, or can't be measured."""
    number = next((number for number, (item, _) in enumerate(run.latency_tests, 1) if item is test), 0)
    if not 0 < number < len(run.latency_tests):
        return None
    from ..session import Next

    item, case_id = run.latency_tests[number]
    built = run.prebuilt.get(case_id or "")
    if built is None or built.build is None or item.get_closest_marker("skip"):
        return None
    return Next(built.case_id, built.artifact)
