"""From a measurement to what is stored of it: means, the machine's state, and figures beside them."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from .. import verdict
from ..common.explanations import Explanation, explained
from ..common.metrics import COLD_L2, GPU_GROWTH, HOST_GROWTH, METRICS, SAMPLED, TORCH_GROWTH
from ..common.text_columns import first_few
from ..records.measurement import Build, CaseMeasurement, LoadLevel, MemoryReadings
from ..suite.cases import Case
from ..timing.gpu_state import SW_POWER_CAP, names
from ..verdict import Verdict
from .baseline_record import CaseRecord, State, StoredSession
from .case_result import CaseResult

JUDGED = frozenset(metric.figure for metric in METRICS.values() if metric.figure)
"""Figures that a metric is judged by."""
MAX_VOID_SHARE = 0.5
"""Share of void blocks beyond which a case is too disturbed to be judged."""


def figures(measurement: CaseMeasurement) -> dict[str, float]:
    """Return everything else worth knowing of a case: names carry the units."""
    found: dict[str, float] = {}
    primary = measurement.blocks_us()
    calls = [
        (c.replays * len(c.blocks_us), c.replays * sum(c.blocks_us)) for t in measurement.turns for c in t.captures
    ]
    found["throughput_per_s"] = 1e6 * sum(count for count, _ in calls) / sum(us for _, us in calls)
    tail = [us for turn in measurement.turns for us in turn.tail_us]
    for name, values in ((measurement.primary, tail or primary), *_secondary(measurement)):
        if len(values) >= 2:
            cuts = statistics.quantiles(values, n=100, method="inclusive")
            found |= {f"{name}_p50_us": cuts[49], f"{name}_p90_us": cuts[89], f"{name}_p99_us": cuts[98]}
    found |= figures_beside(measurement)
    if measurement.seconds:
        found["measure_s"] = measurement.seconds
    if any(turn.seconds for turn in measurement.turns):
        found["turns_s"] = sum(turn.seconds for turn in measurement.turns)
    found["unsteady_turns"] = sum(not turn.steady for turn in measurement.turns)
    found["void_blocks"] = len(measurement.voids())
    return {name: float(f"{value:.6g}") for name, value in found.items()}


def figures_beside(measurement: CaseMeasurement) -> dict[str, float]:
    """Return what is worth knowing of a case beside its latencies: of its build, and what loading it takes."""
    build, found = measurement.build, dict[str, float]()
    if build is not None:
        found |= build_figures(build)
    if measurement.launches:
        found["load_s"] = statistics.median(launch.loaded.seconds for launch in measurement.launches)
    memory = [launch.loaded.gpu_memory_bytes for launch in measurement.launches]
    if any(memory):
        found["gpu_memory_bytes"] = max(value or 0 for value in memory)
    if measurement.cold:
        found["cold_start_s"] = statistics.median(one.seconds for one in measurement.cold)
        found["cold_host_bytes"] = statistics.median(one.host_bytes for one in measurement.cold)
        if all(one.gpu_bytes is not None for one in measurement.cold):
            found["cold_gpu_bytes"] = statistics.median(one.gpu_bytes or 0 for one in measurement.cold)
    if measurement.cold_cached:
        found["cold_start_cached_s"] = statistics.median(one.seconds for one in measurement.cold_cached)
    if measurement.load:
        found |= _load_figures(measurement)
    return {name: float(f"{value:.6g}") for name, value in found.items()}


def _load_figures(measurement: CaseMeasurement) -> dict[str, float]:
    """Return throughput and latencies of the highest level, and by how much memory grows: the interval too."""
    most = measurement.most_at_once
    found: dict[str, float] = {"most_at_once": most}
    for name, at in (("threads", (most, 1)), ("processes", (1, most))):
        level = next(one for one in load_levels(measurement) if (one.threads, one.processes) == at)
        found[f"{name}_throughput_per_s"] = level.throughput_per_s
        found |= {f"{name}_p50_us": level.p50_us, f"{name}_p99_us": level.p99_us}
    for name, _, grown in growths(measurement):
        found[f"{name}_bytes"] = grown.bytes_a_call
        found |= {f"{name}_low_bytes": grown.low, f"{name}_high_bytes": grown.high}
    if COLD_L2 in measurement.metrics:
        found["cold_l2_us"] = statistics.median(value for launch in means(measurement, COLD_L2) for value in launch)
    return found


def load_levels(measurement: CaseMeasurement) -> list[LoadLevel]:
    """Return each level of load, medians over launches."""
    levels = {(one.threads, one.processes): one for launch in measurement.load for one in launch.levels}
    found = []
    for threads, processes in levels:
        alike = [launch.at(threads=threads, processes=processes) for launch in measurement.load]
        found.append(
            LoadLevel(
                threads=threads,
                processes=processes,
                throughput_per_s=statistics.median(one.throughput_per_s for one in alike),
                p50_us=statistics.median(one.p50_us for one in alike),
                p99_us=statistics.median(one.p99_us for one in alike),
                calls=sum(one.calls for one in alike),
            )
        )
    return found


def growths(measurement: CaseMeasurement) -> list[tuple[str, MemoryReadings, verdict.Growth]]:
    """Return by how much each kind of memory grows a call, and the readings that say so; nothing where none say it."""
    found = []
    for readings in [launch.readings for launch in measurement.load if launch.readings is not None][:1]:
        kinds = {HOST_GROWTH: readings.host_bytes, TORCH_GROWTH: readings.torch_bytes, GPU_GROWTH: readings.gpu_bytes}
        for name, values in kinds.items():
            grown = verdict.growth(values, readings.calls, METRICS[name].resolution)
            if grown is not None:
                found.append((name, readings, grown))
    return found


def build_figures(build: Build) -> dict[str, float]:
    """Return what is worth knowing of a build."""
    found: dict[str, float] = {
        "engines": build.engines,
        "engine_bytes": build.engine_bytes,
    }
    if build.leaf_error is not None:
        found["leaf_error"] = build.leaf_error
    if build.ready_s:
        found["ready_s"] = build.ready_s
    if build.builders == 1:  # judged: it must be what building takes alone
        found["build_s"] = build.build_s
    if build.pytorch_operators is not None:
        found["pytorch_operators"] = build.pytorch_operators
    if build.calls is not None:
        found |= build.calls.counts
    return found


def _secondary(measurement: CaseMeasurement) -> list[tuple[str, list[float]]]:
    return [
        (metric, [us for launch in measurement.samples(metric) for turn in launch for us in turn])
        for metric in measurement.metrics
        if metric != measurement.primary and metric in SAMPLED
    ]


def means(measurement: CaseMeasurement, metric: str) -> list[list[float]]:
    """Return launch → capture medians in microseconds, with the six digits that they are worth."""
    return [[float(f"{statistics.median(blocks):.6g}") for blocks in launch] for launch in measurement.samples(metric)]


def state_of(measurement: CaseMeasurement) -> State:
    """Summarise the machine's state over a measurement: medians, and the reasons seen in most blocks."""
    states = measurement.states()
    canaries = [turn.canary_us for turn in measurement.turns]
    canary_us = (
        {name: round(statistics.median(c[name] for c in canaries), 2) for name in canaries[0]} if canaries else {}
    )
    if not states:
        return State(canary_us=canary_us)
    often = sum(
        bit for bit in (1 << n for n in range(1, 9)) if sum(bool(s.throttle & bit) for s in states) > len(states) / 2
    )
    return State(
        sm_clock_mhz=statistics.median(s.sm_clock_mhz for s in states),
        temperature_c=statistics.median(s.temperature_c for s in states),
        power_w=round(statistics.median(s.power_w for s in states), 1),
        throttle=names(often),
        canary_us=canary_us,
    )


def another_state(measurement: CaseMeasurement, compared: Sequence[StoredSession]) -> str:
    """Return why the machine's state differs from that of the sessions compared with; empty when it does not."""
    now, before = state_of(measurement), [session.state for session in compared]
    canaries = {
        name: statistics.median(state.canary_us[name] for state in before if name in state.canary_us)
        for name in {name for state in before for name in state.canary_us}
    }
    clocks = [state.sm_clock_mhz for state in before if state.sm_clock_mhz]
    known = {reason for state in before for reason in state.throttle}
    new = next((reason for reason in now.throttle if reason not in known and reason in names(SW_POWER_CAP)), "")
    return verdict.another_state(
        now.canary_us, canaries, now.sm_clock_mhz, statistics.median(clocks) if clocks else 0.0, new
    )


def incomparable(measurement: CaseMeasurement, compared: Sequence[StoredSession]) -> str:
    """Return why a measurement can't be compared with stored sessions; empty when it can."""
    state = another_state(measurement, compared)
    if state:
        return f"this machine is in another state than when its baseline was recorded: {state}"
    clocks = {session.clock for session in compared}
    if clocks != {measurement.clock}:
        return f"timed with the clock {measurement.clock}, its baseline with {'+'.join(sorted(clocks))}"
    return ""


def void_problem(measurement: CaseMeasurement) -> str:
    """Return why too many blocks are void, or are of different clocks; empty when enough count."""
    mixed = _mixed_clocks(measurement)
    if mixed:
        return mixed
    voids = measurement.voids()
    short = any(not capture.blocks_us for turn in measurement.turns for capture in turn.captures)
    total = len(voids) + len(measurement.blocks_us())
    if not short and len(voids) <= MAX_VOID_SHARE * total:
        return ""
    reason = statistics.mode(voids)
    return f"{len(voids)} of {total} blocks do not count: {reason}"


def about_void(void: Mapping[str, str]) -> str:
    """Say that new cases could not be recorded either: case id → why too few of its blocks count, not empty."""
    said = f"{first_few(list(void), 1)} could not be recorded either: {next(iter(void.values()))}"
    return explained(said, Explanation.VOID_BLOCKS)


def _mixed_clocks(measurement: CaseMeasurement) -> str:
    """Return that launches were timed with different clocks, which have no mean; empty when they were not."""
    if len(measurement.clocks) < 2:
        return ""
    turns = [launch.turns for launch in measurement.launches]
    counts = [f"{sum(clock in {t.clock for t in some} for some in turns)} with {clock}" for clock in measurement.clocks]
    why = next((f" ({turn.note})" for turn in measurement.turns if turn.note), "")
    return f"its launches were timed with different clocks, {' and '.join(counts)}{why}"


def record_of(
    case: Case, result: CaseResult, uuid: str, base: str, stored: CaseRecord | None = None,
    versions: Mapping[str, str] = MappingProxyType({}), machine: Mapping[str, str] = MappingProxyType({}),
) -> CaseRecord:  # fmt: skip
    """Return what a file stores of a case, which was judged by what is `stored`.

    `uuid` is of the card where the measurement names none, `versions` are the running ones, `machine` is its part.
    """
    measurement = result.measurement
    uuid = measurement.uuid or uuid
    held = None if stored is None else stored.of_clock(measurement.clock)
    compared = held.compared_with(uuid, versions) if held is not None and held.sessions else []
    found, untold = figures(measurement), _untold_growth(result)
    session = StoredSession(
        recorded=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        uuid=uuid,
        clock=measurement.clock,
        metrics={metric: means(measurement, metric) for metric in measurement.metrics},
        state=state_of(measurement),
        versions=dict(versions),
        figures={name: value for name, value in found.items() if name in JUDGED - untold},
        program=None if measurement.build is None else measurement.build.program,
        machine=dict(machine),
        proven=result.verdict in (Verdict.UNCHANGED, Verdict.IMPROVED),
        artifact="" if measurement.build is None else measurement.build.artifact,
        most_at_once=measurement.most_at_once,
        runtime_cache=measurement.runtime_cache,
    )
    return CaseRecord(
        case=case.id,
        settings=msgspec.to_builtins(case.settings),
        verdict=str(result.verdict or "measured"),
        sessions=[session],
        figures=found,
        calls=None if measurement.build is None else measurement.build.calls,
        disturbed=bool(void_problem(measurement)),
        judgements=result.judgements,
        began="" if held is None else held.began_for(uuid, versions),
        upgraded=bool(compared) and compared[-1].versions != versions,
        base=base,
    )


def _untold_growth(result: CaseResult) -> set[str]:
    """Return the figures of growth that the readings could not tell: as a baseline they would allow a leak.

    Where nothing judged it, growth that may be none.
    """
    judged = {one.metric: one.verdict for one in result.judgements}
    return {
        METRICS[name].figure
        for name, _, grown in growths(result.measurement)
        if (judged[name] is Verdict.UNDERPOWERED if name in judged else grown.low <= 0 < grown.bytes_a_call)
    }
