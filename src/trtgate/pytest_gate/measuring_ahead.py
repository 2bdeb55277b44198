"""`--trtgate-gpus`: all latency tests' cases begin to be measured on several cards; each test waits for its own."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from .latency_gate import held_to
from .markers import marker_limits
from .run import GateRun


def begin(run: GateRun, tests: Iterable[tuple[pytest.Item, str]]) -> None:
    """Begin to measure what was built ahead, where there are cards to share it; `tests` are items and their cases."""
    if len(run.accelerators) == 1:
        return
    from ..cards import Cards, Job

    jobs = {}
    for item, case_id in tests:
        built = run.prebuilt.get(case_id)
        if built is None or built.build is None or item.get_closest_marker("skip"):
            continue
        jobs[item.nodeid] = Job(
            case=held_to(marker_limits(item), run.suite.cases[case_id]),
            artifact=built.artifact,
            build=built.build,
            cost_s=run.gate.recorded(case_id, "measure_s"),
            home=home_of(run, case_id),
        )
    run.cards = Cards(run.gates, jobs)
    for uuid in run.cards.idle() if jobs else []:
        run.lines.append(
            f"{uuid} had nothing to do: all baselines were recorded on other cards, and a latency is compared with its "
            "own card's where there are any; --trtgate-update-baselines with --trtgate-gpus records on all of them"
        )


def home_of(run: GateRun, case_id: str) -> str:
    """Return the card that a case is to be measured on; empty where any will do.

    A card's latency is compared with its own sessions where there are any.
    """
    here = [accelerator.uuid for accelerator in run.accelerators]
    recorded = [uuid for uuid in run.gate.cards_of(case_id) if uuid in here]
    return recorded[0] if 0 < len(recorded) < len(here) else ""
