"""What the tests will need is built before the first of them, several cases at once (`--trtgate-prebuild`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from ..common.errors import TrtgateError
from ..common.notices import Notice
from ..common.spent_time import Work, during
from ..common.text_columns import number_of
from ..launches import messages
from ..launches.comparison_side import Side
from ..launches.pair import BASE, CANDIDATE
from .case_items import case_id_of, is_coverage
from .shown_steps import shown_steps

if TYPE_CHECKING:
    import pytest

    from ..common.accelerator import Accelerator
    from ..gate.run_options import Options
    from ..launches.prebuild import Prebuild, Prebuilt
    from .gate_run import GateRun

OFF, AUTO = -1, 0
"""What `--trtgate-prebuild` may say beside a number of processes: none, and as many as the machine takes."""


def nothing() -> None:
    """Do nothing."""


def asked(config: pytest.Config, *, distributed: bool) -> tuple[int | None, bool]:
    """Return how many processes build ahead, as `Options.prebuild` has it, and whether they build in turn.

    Raises TrtgateError where what was asked for contradicts other options.
    """
    number: int | None = config.getoption("trtgate_prebuild")
    if number == OFF:
        return None, False
    if number is None:
        if config.getoption("trtgate_gpus"):  # which says itself what it does not go with
            return AUTO, False
        ahead = not (distributed or config.getoption("trtgate_build_only"))
        return (AUTO, True) if ahead else (None, False)
    if distributed:
        raise TrtgateError("--trtgate-prebuild starts its own processes: drop -n")
    return number, False


def builders(run: GateRun) -> int:
    """Return how many processes may build at once: as many as was asked for, or as the machine takes."""
    from ..launches import prebuild

    return run.options.prebuild or prebuild.builders_here(run.accelerators, in_turn=run.options.builds_in_turn)


def on_a_node(options: Options, device: Accelerator, room: int, devices: int) -> tuple[int, bool]:
    """Return how many cases one of a node's devices builds at once, and whether they build in turn.

    As on one host: so many as was asked for; else, where several devices of a node build at once anyway, as many as the
    device's share of the node, `room`, takes; else half of that, and in turn, so that build times are judged.
    """
    from ..launches import prebuild

    if options.prebuild is None:
        return 1, False
    if options.prebuild:
        return options.prebuild, False
    if not options.builds_in_turn or devices > 1:
        return prebuild.builders_for([device], room), False
    return (prebuild.builders_for([device], room // 2), True) if device.kind == "gpu" else (1, False)


def to_ask(run: GateRun, items: Iterable[pytest.Item]) -> set[str]:
    """Return the suite's cases whose coverage tests ask for, where several processes may ask at once."""
    if run.options.prebuild is None or run.options.builds_in_turn:
        return set()
    tests = [item for item in items if is_coverage(item) and item.get_closest_marker("skip") is None]
    return {case_id for item in tests if (case_id := case_id_of(item)) is not None} & run.suite.cases.keys()


def build_ahead(
    run: GateRun, case_ids: Collection[str], start_workers: Callable[[], None], to_ask: Collection[str] = (),
    timed_alone: Collection[str] = (),
) -> None:  # fmt: skip
    """Build cases in fresh processes, those that took longest first, and leave what came of them in `run.prebuilt`.

    Then these processes ask for the coverage of `to_ask`, but for cases that they built, which told it. Beside a base
    other processes build what is timed of it, into `run.prebuilt_of_base`; of cases that the base lacks those are left
    out that are `timed_alone`: nothing is measured of them.
    `start_workers` is called when whoever times the cases later is to start: at once, or, where there are fewer CPUs
    than processes, when the builders have imported, so that these are not kept waiting. Beside a base one pair of them
    starts at once, and says which cases the base has.
    """
    on_cpu = run.accelerator.kind != "gpu"  # what can't be stored there each launch builds for itself
    if not case_ids or run.options.prebuild is None or (run.options.builds_in_turn and on_cpu):
        start_workers()
        return
    from ..launches import prebuild

    if run.options.base is not None:  # only then it is known which cases it has
        start_workers()
        wanted = _of_both_sides(run, case_ids, to_ask, timed_alone)
    else:
        wanted = [_of_candidate(run, case_ids, to_ask, start_workers)]
    if not any(ids for _, ids in wanted):  # the base has none of them
        return
    processes = sum(min(work.builders, len(ids)) for work, ids in wanted)
    cases = number_of(sum(len(ids) for _, ids in wanted), "case")
    with during(Work.BUILDING_AHEAD), shown_steps(run.config, f"building {cases} ahead", str) as step:
        step(f"starting {number_of(processes, 'process', 'processes')}")
        for done, (work, built) in enumerate(prebuild.run_sides(wanted), 1):
            step(f"{done} done, the last {_keep(run, work, built)}")
    _tell(run, processes)


def _of_candidate(
    run: GateRun, case_ids: Collection[str], to_ask: Collection[str], start_workers: Callable[[], None]
) -> tuple[Prebuild, list[str]]:
    """Return who builds cases and asks for coverage where there is no base, and what, and let workers start in time."""
    from ..common import machine

    dry_runs = sorted(set(to_ask) - set(case_ids))
    processes = min(builders(run), len(case_ids) + len(dry_runs))
    workers = len(run.accelerators) * run.cases_at_once * run.options.launches
    at_once = processes + workers <= machine.cpus()
    if at_once:
        start_workers()
    side = Side(name=CANDIDATE, source=run.options.source)
    imported = nothing if at_once else start_workers
    work = _prebuild(run, case_ids, processes, side, dry_runs=dry_runs, imported=imported)
    return work, [*_ordered(run, case_ids), *dry_runs]


def _of_both_sides(
    run: GateRun, case_ids: Collection[str], to_ask: Collection[str], timed_alone: Collection[str]
) -> list[tuple[Prebuild, list[str]]]:
    """Return who builds each side beside a base, and what: half of the processes are each side's, at least one.

    They begin at opposite ends: what is the same program on both sides is built by whoever comes first.
    """
    workers = run.workers_beside_base()
    sides, known = workers.sides, set(run.base_cases)
    of_base = sorted(known & run.latency_cases & set(case_ids))
    of_candidate = [case_id for case_id in case_ids if case_id in known or case_id not in timed_alone]
    dry_runs = sorted(set(to_ask) - set(of_candidate))
    half = max(1, builders(run) // 2)
    more, imported = max(half, builders(run) - half), workers.pairs.start_residents if of_base else nothing
    candidate = _prebuild(run, of_candidate, more, sides[CANDIDATE], dry_runs=dry_runs, imported=imported)
    base = _prebuild(run, of_base, half, sides[BASE])
    return [(candidate, [*_ordered(run, of_candidate), *dry_runs]), (base, _ordered(run, of_base)[::-1])]


def _prebuild(
    run: GateRun, case_ids: Collection[str], processes: int, side: Side, *, dry_runs: Iterable[str] = (),
    imported: Callable[[], None] = nothing,
) -> Prebuild:  # fmt: skip
    """Return who builds cases of a side; where both sides are the same program the cache gives both one module."""
    from ..launches import prebuild

    cases, options, is_base = run.suite.cases, run.options, side.name == BASE
    return prebuild.Prebuild(
        side=side,
        accelerators=run.accelerators,
        builders=processes,
        cache=options.cache,
        folder_for=lambda case_id: run.run_folder.private(cases[case_id].model.name),
        logs=run.run_folder.logs / BASE if is_base else run.run_folder.logs,
        timeout_s=options.timeout_s,
        lifecycle=options.lifecycle and not is_base,
        tensorrt={case_id for case_id in case_ids if cases[case_id].settings.uses_tensorrt},
        imported=imported,
        in_turn=options.builds_in_turn,
        dry_runs=frozenset(dry_runs),
        shared=f"{messages.SHARED}-{BASE}" if is_base else messages.SHARED,
    )


def _ordered(run: GateRun, case_ids: Iterable[str]) -> list[str]:
    from ..launches import prebuild

    cases = [run.suite.cases[case_id] for case_id in case_ids]
    return prebuild.order(cases, lambda case_id: run.gate.recorded(case_id, "ready_s"))


def _keep(run: GateRun, work: Prebuild, built: Prebuilt) -> str:
    """Remember what came of a case of a side; returns what it was."""
    if built.case_id in work.dry_runs:
        if built.coverage is not None:  # else the test asks again, and says what is wrong
            run.coverage_of_builds[built.case_id] = built.coverage
        return f"the coverage of {built.case_id}"
    if work.side.name == BASE:
        run.prebuilt_of_base[built.case_id] = built
        run.notices += [Notice(f"of the base: {note}") for note in built.notes]
        return f"{built.case_id} of the base"
    run.prebuilt[built.case_id] = built
    run.notices += map(Notice, built.notes)
    run.gate.remark(built.case_id, built.build)
    return built.case_id


def _tell(run: GateRun, processes: int) -> None:
    ahead = [*run.prebuilt.values(), *run.prebuilt_of_base.values()]
    cached = sum(built.build is not None and built.build.cached for built in ahead)
    of_base = f", and {len(run.prebuilt_of_base)} of the base," * (run.options.base is not None)
    builders = number_of(processes, "process", "processes")
    said = f"{number_of(len(run.prebuilt), 'case')}{of_base} by {builders} in {run.spent.of(Work.BUILDING_AHEAD):.1f} s"
    run.say(f"built ahead: {said}, {cached} of them from the cache")
    if run.judges and any(_is_unjudged(run, built) for built in run.prebuilt.values()):
        run.say("build times are not judged: several processes built at once (--trtgate-prebuild)")


def _is_unjudged(run: GateRun, built: Prebuilt) -> bool:
    uses_tensorrt = run.suite.cases[built.case_id].settings.uses_tensorrt
    return uses_tensorrt and built.build is not None and built.build.builders > 1
