"""`--trtgate-ray`: the devices of a Ray cluster. Each test waits for its case, which a node builds and measures."""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError
from ..common.explanations import Explanation, explained
from ..common.notices import Notice, Severity
from ..common.steps import OnStep
from ..common.text_columns import number_of
from ..fleet.ray_cluster import Cluster
from ..fleet.ray_messages import Availability, Open
from ..fleet.ray_workers import RayWorkers
from ..launches.prebuild import MOST
from ..records.coverage_record import Coverage
from ..report.card_table import Progress
from ..suite import precisions
from ..suite.cases import Case
from . import live_cards, loading_ahead, prebuilding
from .case_items import case_id_of, is_coverage, is_latency, needs_a_build
from .live_cards import ProgressFile
from .markers import held_to, marker_limits
from .measuring_ahead import home_of
from .shown_steps import shown_steps

if TYPE_CHECKING:
    from ..gate.card_jobs import Job
    from ..gate.device_workers import DeviceWorkers
    from ..gate.run_options import Options
    from ..launches.prebuild import Prebuilt
    from .gate_run import GateRun

MOST_NAMED = 3
"""Of more devices that are lost the first ones are named."""
BESIDE_S = 120.0
"""How much longer than a worker's longest step a node may take to answer."""


class ClusterDevices:
    """The devices of one kind of a cluster. Raises TrtgateError, on construction, as `fleet.ray_cluster.Cluster`."""

    here = False

    def __init__(self, options: Options, root: Path) -> None:
        self._cluster = Cluster(options.ray, root, options.accelerators, options.prebuild or MOST)
        self._facts = [card.facts for card in self._cluster.cards]
        devices = Counter(one.node for one in self._facts)
        self._builders = [
            prebuilding.on_a_node(options, one.accelerator, one.room, devices[one.node]) for one in self._facts
        ]
        self._together = [
            loading_ahead.together(one.accelerator, count, one.room, options.launches)
            for one, (count, _) in zip(self._facts, self._builders, strict=True)
        ]
        self.accelerators: list[Accelerator] = [one.accelerator for one in self._facts]
        self._notices = [
            Notice(explained(f"not used: {said}", Explanation.CLUSTER_PROBLEM), Severity.WARNING)
            for said in self._cluster.problems
        ]
        self._notices += [
            Notice(f"{one.name}: its processes run at niceness {one.nice}: start Ray there with RAY_worker_niceness=0")
            for one in self._facts if one.nice > 0
        ]  # fmt: skip
        self._notices += [
            Notice(
                explained(
                    f"{one.name}: other processes compute on it: {', '.join(one.processes)}",
                    Explanation.CLUSTER_PROBLEM,
                ),
                Severity.WARNING,
            )
            for one in self._facts
            if one.processes
        ]
        self._available: dict[str, Availability] = {}
        self._told: ProgressFile | None = None

    @property
    def about(self) -> str:
        """Where they are."""
        nodes = len({one.node for one in self._facts})
        return f", on {number_of(nodes, 'node')} of the Ray cluster at {self._cluster.address}"

    @property
    def release(self) -> str:
        """What stored coverage calls the release of torch_tensorrt there."""
        return self._facts[0].release

    def workers(self, run: GateRun) -> Sequence[DeviceWorkers]:
        """Return the workers of each device."""
        opened = _opened(run)
        return [
            RayWorkers(card, msgspec.structs.replace(opened, builders=count, cases_at_once=together))
            for card, (count, _), together in zip(self._cluster.cards, self._builders, self._together, strict=True)
        ]

    def workers_of(self, run: GateRun, case_id: str) -> DeviceWorkers:
        """Return the workers of the device that built a case. Raises TrtgateError where none has."""
        found = run.gpu_queue.card_of(case_id) if run.gpu_queue is not None else None
        if found is None:
            said = f"{case_id}: no device of the cluster has built it"
            raise TrtgateError(explained(said, Explanation.CLUSTER_PROBLEM))
        return found

    def unavailable(self, run: GateRun, case: Case) -> tuple[str, str]:
        """Return what the devices lack for a case, and why they refuse it: all are alike, so one is asked."""
        if case.id not in self._available:
            asked = RayWorkers(self._cluster.cards[0], _opened(run))
            self._available = asked.availability(list(run.suite.cases.values()))
        found = self._available[case.id]
        return found.lacking, "" if found.lacking else found.refused

    def no_coverage(self, case: Case) -> str:
        """Return why coverage can't be asked there."""
        first = self._facts[0]
        quantized = case.settings.precision in precisions.QUANTIZED
        return first.no_tensorrt or (first.no_modelopt if quantized else "")

    def begin(self, run: GateRun, items: Sequence[pytest.Item]) -> None:
        """Ask for all coverage, then let the devices build and measure all cases."""
        run.notices += self._notices
        self._ask_coverage(run, items)
        jobs = _jobs(run, items)
        if not jobs:
            return
        from ..gate.card_jobs import CardState
        from ..gate.gpu_queue import GpuQueue

        run.start_workers()
        cards = [
            CardState(one.node, builders=count, together=together)
            for one, (count, _), together in zip(self._facts, self._builders, self._together, strict=True)
        ]
        on_node = Counter[str]()
        for card in cards:
            on_node[card.host] += card.builders
        in_turn = all(turn for _, turn in self._builders)
        if run.judges and max(on_node.values()) > 1 and not in_turn:
            run.say("build times are not judged: several cases are built on a node at once")
        build = functools.partial(_built, run, on_node, in_turn)
        lost = functools.partial(_tell_lost, run, [])
        run.gpu_queue = GpuQueue(run.workers, jobs, run.measure, build, cards, lost)
        self._told = ProgressFile(lambda: self._progress(run))

    def progress(self, run: GateRun, case_id: str) -> AbstractContextManager[OnStep]:  # noqa: ARG002
        """Show what all devices are at."""
        return live_cards.shown(run.config, number_of(len(self._facts), "device"), lambda: self._progress(run))

    def _progress(self, run: GateRun) -> Progress:
        if run.gpu_queue is None:
            return Progress(self.about, [])
        done, count = run.gpu_queue.progress
        names = {
            name: (f"{one.host} {one.node[:8]}", one.accelerator.uuid[:12] or f"{one.accelerator.cpus} CPUs")
            for name, one in zip(run.gpu_queue.cards, self._facts, strict=True)
        }
        title = f"{run.accelerator.key}: {done} of {number_of(count, 'case')}{self.about}"
        return Progress(title, live_cards.rows_of(run.gpu_queue, names))

    def _ask_coverage(self, run: GateRun, items: Sequence[pytest.Item]) -> None:
        asked = [item for item in items if is_coverage(item) and item.get_closest_marker("skip") is None]
        case_ids = list(dict.fromkeys(name for item in asked if (name := case_id_of(item)) is not None))
        if not case_ids:
            return
        start, left = time.monotonic(), len(case_ids)
        with shown_steps(run.config, "coverage on the cluster", str) as step:

            def done(case_id: str, found: Coverage | str) -> None:
                nonlocal left
                left -= 1
                if isinstance(found, str):
                    run.coverage_problems[case_id] = found
                else:
                    run.coverage_of_builds[case_id] = found
                step(f"{len(case_ids) - left} of {len(case_ids)} done, the last {case_id}")

            step(f"0 of {len(case_ids)} done")
            of_zoo = {run.zoo[name].model.name for name in case_ids if name not in run.suite.cases}
            source = msgspec.structs.replace(run.options.source, zoo=tuple(sorted(of_zoo)), conditioned=False)
            suite = msgspec.structs.replace(_opened(run), source=source)
            self._cluster.coverages(suite, case_ids, done, run.options.timeout_s + BESIDE_S)
        seconds = time.monotonic() - start
        cases, nodes = number_of(len(case_ids), "case"), number_of(len(self._cluster.nodes), "node")
        run.say(f"coverage of {cases} asked on {nodes} in {seconds:.1f} s")

    def free(self, run: GateRun, case_id: str, artifact: Path) -> None:
        """Remove the artifact on its node."""
        found = run.gpu_queue.card_of(case_id) if run.gpu_queue is not None else None
        if isinstance(found, RayWorkers):
            found.free(artifact)

    def close(self) -> None:
        """Leave the cluster, and no actor in it."""
        if self._told is not None:
            self._told.close()
        self._cluster.close()


def _opened(run: GateRun) -> Open:
    options = run.options
    return Open(
        source=options.source, folder=str(run.config.invocation_params.dir), path=[str(entry) for entry in sys.path],
        streams=options.streams, cold_starts=options.cold_starts, load=options.load, launches=options.launches,
        timeout_s=float(options.timeout_s), tensorrt=run.times_tensorrt,
    )  # fmt: skip


def _jobs(run: GateRun, items: Sequence[pytest.Item]) -> dict[str, Job]:
    """Return what the devices are to do: a job a latency test, and one for each other case that a test needs built."""
    from ..gate.card_jobs import Job

    here = [one.uuid for one in run.accelerators]
    busy_s: dict[str, float] = defaultdict(float)
    jobs: dict[str, Job] = {}
    wanted = {
        item: case_id for item in items
        if needs_a_build(item) and not item.get_closest_marker("skip")
        and (case_id := case_id_of(item)) is not None and case_id not in run.skip_reasons
    }  # fmt: skip
    for item, case_id in wanted.items():
        if not is_latency(item) or run.options.timing_off:
            continue
        cost_s = run.gate.recorded(case_id, "measure_s")
        recorded = [] if run.options.update else [uuid for uuid in run.gate.cards_of(case_id) if uuid]
        home = home_of(recorded, here, busy_s)
        busy_s[home] += cost_s or 1.0
        case = held_to(marker_limits(item), run.suite.cases[case_id])
        jobs[item.nodeid] = Job(case=case, cost_s=cost_s, home=home)
    timed = {job.case.id for job in jobs.values()}
    others = {case_id: Job(case=run.suite.cases[case_id], timed=False) for case_id in wanted.values()}
    return jobs | {case_id: job for case_id, job in others.items() if case_id not in timed}


def _tell_lost(run: GateRun, before: list[str], reason: str) -> None:
    """Let the end of the run say which devices were lost, in one notice, which other threads only append to."""
    said = _lost([*before, reason])
    if before:
        at = run.notices.index(_lost(before))
        run.notices[at] = said
    else:
        run.notices.append(said)
    before.append(reason)


def _lost(reasons: Sequence[str]) -> Notice:
    more = f"; and {len(reasons) - MOST_NAMED} more" if len(reasons) > MOST_NAMED else ""
    said = f"{'; '.join(reasons[:MOST_NAMED])}{more}: cases of a lost device went to others, if any was left"
    return Notice(explained(said, Explanation.CLUSTER_PROBLEM), Severity.WARNING)


def _built(
    run: GateRun, on_node: Mapping[str, int], in_turn: bool, workers: DeviceWorkers, job: Job, step: OnStep
) -> Prebuilt:
    assert isinstance(workers, RayWorkers)
    return workers.build(
        job.case, step, run.options.cache, builders=on_node[workers.card.facts.node],
        profiled=job.case.id in run.profiled_cases, lifecycle=run.options.lifecycle, in_turn=in_turn,
    )  # fmt: skip
