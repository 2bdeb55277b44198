"""What the tests will need is built before the first of them, several cases at once (`--trtgate-prebuild`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from ..common.errors import TrtgateError
from ..common.notices import Notice
from .case_items import case_id_of, is_coverage
from .shown_steps import shown_steps

if TYPE_CHECKING:
    import pytest

    from ..launches.prebuild import Prebuilt
    from .gate_run import GateRun

OFF, AUTO = -1, 0
"""What `--trtgate-prebuild` may say beside a number of processes: none, and as many as the machine takes."""


def asked(config: pytest.Config, *, beside_base: bool, distributed: bool) -> tuple[int | None, bool]:
    """Return how many processes build ahead, as `Options.prebuild` has it, and whether they build in turn.

    Raises TrtgateError where what was asked for contradicts other options.
    """
    number: int | None = config.getoption("trtgate_prebuild")
    if number == OFF:
        return None, False
    if number is None:
        if config.getoption("trtgate_gpus"):  # which says itself what it does not go with
            return AUTO, False
        ahead = not (beside_base or distributed or config.getoption("trtgate_build_only"))
        return (AUTO, True) if ahead else (None, False)
    if beside_base:
        raise TrtgateError("--trtgate-prebuild builds the candidate alone, a base is built beside it: drop one of them")
    if distributed:
        raise TrtgateError("--trtgate-prebuild starts its own processes: drop -n")
    return number, False


def builders(run: GateRun) -> int:
    """Return how many processes may build at once: as many as was asked for, or as the machine takes.

    Where one builds while the others export, these leave it half of the CPUs.
    """
    from ..common import machine
    from ..launches import prebuild

    if run.options.prebuild:
        return run.options.prebuild
    room = prebuild.builders_for(run.accelerators, machine.processes(prebuild.HOST_BYTES_EACH))
    return max(1, min(room, machine.cpus() // 2)) if run.options.builds_in_turn else room


def to_ask(run: GateRun, items: Iterable[pytest.Item]) -> set[str]:
    """Return the suite's cases whose coverage tests ask for, where several processes may ask at once."""
    if run.options.prebuild is None or run.options.builds_in_turn:
        return set()
    tests = [item for item in items if is_coverage(item) and item.get_closest_marker("skip") is None]
    return {case_id for item in tests if (case_id := case_id_of(item)) is not None} & run.suite.cases.keys()


def build_ahead(
    run: GateRun, case_ids: Collection[str], start_workers: Callable[[], None], to_ask: Collection[str] = ()
) -> None:
    """Build cases in fresh processes, those that took longest first, and leave what came of them in `run.prebuilt`.

    Then these processes ask for the coverage of `to_ask`, but for cases that they built, which told it.
    `start_workers` is called when whoever times the cases later is to start: at once, or, where there are fewer CPUs
    than processes, when the builders have imported, so that these are not kept waiting.
    """
    on_cpu = run.accelerator.kind != "gpu"  # what can't be stored there each launch builds for itself
    if not case_ids or run.options.prebuild is None or (run.options.builds_in_turn and on_cpu):
        start_workers()
        return
    from ..common import machine
    from ..launches import prebuild

    cases = [run.suite.cases[case_id] for case_id in case_ids]
    dry_runs = sorted(set(to_ask) - set(case_ids))
    processes = min(builders(run), len(case_ids) + len(dry_runs))
    workers = len(run.accelerators) * run.cases_at_once * run.options.launches
    at_once = run.options.base is not None or processes + workers <= machine.cpus()
    if at_once:
        start_workers()
    work = prebuild.Prebuild(
        source=run.options.source,
        accelerators=run.accelerators,
        builders=processes,
        cache=run.options.cache,
        folder_for=lambda case_id: run.run_folder.private(run.suite.cases[case_id].model.name),
        logs=run.run_folder.logs,
        timeout_s=run.options.timeout_s,
        lifecycle=run.options.lifecycle,
        tensorrt={case.id for case in cases if case.settings.uses_tensorrt},
        imported=(lambda: None) if at_once else start_workers,
        in_turn=run.options.builds_in_turn,
        dry_runs=frozenset(dry_runs),
    )
    start = time.monotonic()
    ordered = prebuild.order(cases, lambda case_id: run.gate.recorded(case_id, "ready_s"))
    with shown_steps(run.config, f"building {len(case_ids)} cases ahead", str) as step:
        step(f"{processes} processes start")
        for done, built in enumerate(work.run([*ordered, *dry_runs]), 1):
            if built.case_id in work.dry_runs:
                if built.coverage is not None:  # else the test asks again, and says what is wrong
                    run.coverage_of_builds[built.case_id] = built.coverage
                step(f"{done} done, the last the coverage of {built.case_id}")
                continue
            run.prebuilt[built.case_id] = built
            run.notices += map(Notice, built.notes)
            run.gate.remark(built.case_id, built.build)
            step(f"{done} done, the last {built.case_id}")
    run.ahead_s = time.monotonic() - start
    cached = sum(built.build is not None and built.build.cached for built in run.prebuilt.values())
    run.say(
        f"built ahead: {len(case_ids)} cases by {processes} processes in {run.ahead_s:.1f} s, {cached} of "
        "them from the cache"
    )
    _tell(run)


def _tell(run: GateRun) -> None:
    if run.judges and any(_is_unjudged(run, built) for built in run.prebuilt.values()):
        run.say("build times are not judged: several processes built at once (--trtgate-prebuild)")


def _is_unjudged(run: GateRun, built: Prebuilt) -> bool:
    uses_tensorrt = run.suite.cases[built.case_id].settings.uses_tensorrt
    return uses_tensorrt and built.build is not None and built.build.builders > 1
