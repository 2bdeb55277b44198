"""On a GPU the next cases, which were built ahead, are loaded together with the one that is measured now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from . import prebuilding

if TYPE_CHECKING:
    from ..common.accelerator import Accelerator
    from ..launches.pair import NextPair
    from ..launches.prebuild import Prebuilt
    from ..launches.session import NextCase
    from .gate_run import GateRun

AT_ONCE = 4
"""How many cases are loaded together at most: with three launches, by twelve processes."""
SIDES = 2
"""The processes that load a case beside a base."""


def plan(run: GateRun, tests: Sequence[tuple[pytest.Item, str | None]]) -> None:
    """Remember the order of the latency tests and their cases, if those are built ahead and there is room for workers.

    Each case at once takes workers of its own: no fewer builders must be allowed than two cases take, and the machine
    must have room for all. Cards that share the cases have a queue, which says who measures what next.
    """
    from ..common import machine
    from ..launches import prebuild

    options, cards = run.options, len(run.accelerators)
    if options.prebuild is None:
        return
    of_a_case = options.launches if options.base is None else SIDES
    room = machine.processes(prebuild.HOST_BYTES_EACH) // cards
    run.cases_at_once = together(run.accelerator, prebuilding.builders(run) // cards, room, of_a_case)
    if run.cases_at_once > 1 and cards == 1:
        run.latency_tests = list(tests)


def together(device: Accelerator, builders: int, room: int, of_a_case: int) -> int:
    """Return how many cases are loaded together on a device, each by so many processes; 1 where each is by itself.

    `builders` is how many may build there at once, `room` how many processes the host has room for by its side.
    """
    from ..launches import prebuild

    if device.kind != "gpu" or builders < 2 * of_a_case:
        return 1
    return max(2, prebuild.builders_for([device], room, most=AT_ONCE * of_a_case) // of_a_case)


def after(run: GateRun, test: pytest.Item) -> list[NextCase]:
    """Return the cases of the tests after this one, as many as are loaded with it, without those that can't be."""
    from ..launches.session import NextCase

    built = _ready_after(run, test, run.prebuilt)
    return [NextCase(one.case_id, one.artifact) for one in built][: run.cases_at_once - 1]


def pairs_after(run: GateRun, test: pytest.Item) -> list[NextPair]:
    """Return those cases beside a base that are loaded with the one of a test: on both sides, as `after`."""
    from ..launches.pair import Artifacts, NextPair

    of_base = {one.case_id: one.artifact for one in _ready_after(run, test, run.prebuilt_of_base)}
    built = [one for one in _ready_after(run, test, run.prebuilt) if one.case_id in of_base]
    ready = [NextPair(one.case_id, Artifacts(base=of_base[one.case_id], candidate=one.artifact)) for one in built]
    return ready[: run.cases_at_once - 1]


def _ready_after(run: GateRun, test: pytest.Item, prebuilt: Mapping[str, Prebuilt]) -> list[Prebuilt]:
    """Return what was built ahead for the tests after this one, in their order, without what could not be."""
    number = next((number for number, (item, _) in enumerate(run.latency_tests, 1) if item is test), None)
    if number is None:
        return []
    later = [
        prebuilt.get(case_id)
        for item, case_id in run.latency_tests[number:]
        if case_id is not None and not item.get_closest_marker("skip")
    ]
    return [one for one in later if one is not None and one.build is not None]
