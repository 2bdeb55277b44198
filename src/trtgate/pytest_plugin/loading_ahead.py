"""With `--trtgate-prebuild` on a GPU, the next tests' cases are loaded together with the one that is measured now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from . import prebuilding

if TYPE_CHECKING:
    from ..launches.session import NextCase
    from .gate_run import GateRun

AT_ONCE = 4
"""How many cases are loaded together at most: with three launches, by twelve processes."""


def plan(run: GateRun, tests: Sequence[tuple[pytest.Item, str | None]]) -> None:
    """Remember the order of the latency tests and their cases, if those are built ahead and there is room for workers.

    Each case at once takes workers of its own: no fewer builders must be allowed than two cases take, and the machine
    must have room for all. Cards that share the cases don't know who measures what next.
    """
    from ..common import machine
    from ..launches import prebuild

    options = run.options
    if (
        options.prebuild is None
        or options.base is not None
        or len(run.accelerators) > 1
        or run.accelerator.kind != "gpu"
        or prebuilding.builders(run) < 2 * options.launches
    ):
        return
    workers = AT_ONCE * options.launches
    room = prebuild.builders_for(run.accelerators, machine.processes(prebuild.HOST_BYTES_EACH), most=workers)
    run.cases_at_once = max(2, room // options.launches)
    run.latency_tests = list(tests)


def after(run: GateRun, test: pytest.Item) -> list[NextCase]:
    """Return the cases of the tests after this one, as many as are loaded with it, without those that can't be."""
    from ..launches.session import NextCase

    number = next((number for number, (item, _) in enumerate(run.latency_tests, 1) if item is test), None)
    if number is None:
        return []
    built = [
        run.prebuilt[case_id]
        for item, case_id in run.latency_tests[number:]
        if case_id in run.prebuilt and not item.get_closest_marker("skip")
    ]
    can_be = [NextCase(one.case_id, one.artifact) for one in built if one.build is not None]
    return can_be[: run.cases_at_once - 1]
