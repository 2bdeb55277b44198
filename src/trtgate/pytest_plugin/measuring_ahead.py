"""`--trtgate-gpus`: all latency tests' cases begin to be measured on several cards; each test waits for its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import pytest

from .gate_run import GateRun
from .markers import held_to, marker_limits


def begin(run: GateRun, tests: Iterable[tuple[pytest.Item, str]]) -> None:
    """Begin to measure what was built ahead, where there are cards to share it; `tests` are items and their cases."""
    if len(run.accelerators) == 1:
        return
    from ..gate.card_jobs import CardState, Job
    from ..gate.gpu_queue import GpuQueue

    here = [accelerator.uuid for accelerator in run.accelerators]
    busy_s: dict[str, float] = defaultdict(float)
    jobs = {}
    for item, case_id in tests:
        built = run.prebuilt.get(case_id)
        if built is None or built.build is None or item.get_closest_marker("skip"):
            continue
        cost_s = run.gate.recorded(case_id, "measure_s")
        home = "" if run.options.update else home_of(run.gate.cards_of(case_id), here, busy_s)
        busy_s[home] += cost_s or 1.0
        jobs[item.nodeid] = Job(
            case=held_to(marker_limits(item), run.suite.cases[case_id]),
            artifact=built.artifact,
            build=built.build,
            cost_s=cost_s,
            home=home,
        )
    cards = [CardState(together=run.cases_at_once) for _ in run.accelerators]
    run.gpu_queue = GpuQueue(run.workers, jobs, run.measure, cards=cards)
    for uuid in run.gpu_queue.idle() if jobs else []:
        run.say(
            f"{uuid} had nothing to do: all baselines were recorded on other cards, and a latency is compared with its "
            "own card's where there are any; --trtgate-update-baselines with --trtgate-gpus records on any of them"
        )


def home_of(recorded: Sequence[str], here: Sequence[str], busy_s: Mapping[str, float]) -> str:
    """Return the card that a case is to be measured on; empty where any will do.

    A card's latency is compared with its own sessions where there are any: of the cards `here` that the case was
    `recorded` on, the one that has least to do.
    """
    own = [uuid for uuid in recorded if uuid in here]
    return min(own, key=lambda uuid: busy_s.get(uuid, 0.0)) if 0 < len(own) < len(here) else ""
