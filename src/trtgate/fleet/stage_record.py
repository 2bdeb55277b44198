"""What a stage of a run leaves: a shard, or a confirmation. It lies in the run's own file, beside its benchmarks.

A file is written by another machine, so all of it is checked when it is read, and nothing of it is executed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import msgspec

from ..common import run_places
from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError, explaining, one_line
from ..common.escaping import printable
from ..common.explanations import Explanation
from ..common.files import STAGE, decoded
from ..common.notices import Notice
from ..common.run_places import Place
from ..gate.baselines import SCHEMA
from ..gate.known_programs import Known
from ..gate.policy import Evidence
from ..records.measurement import HOST_ALONE, Build, CaseMeasurement, LoadLaunch, Turn
from ..report.junit import TestOutcome
from ..report.run_report import CoverageReport, Failure, LayersReport
from .manifest import Manifest

KEY = STAGE
CONFIRMATION = "confirmation"
"""The part that is no shard: what was suspected, and measured again."""


class CaseOutcome(msgspec.Struct, frozen=True):
    """What became of the latency test of a case: passed, failed or skipped, and why."""

    outcome: str
    said: str = ""


class CaseEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of a case, as the policy takes it."""

    evidence: Evidence
    uuid: str = ""
    """The card that it was first measured on."""
    recorded: str = ""
    """When it was measured last: UTC, ISO 8601."""
    pairable: bool = False
    """Whether it has a compiled module that could be measured beside the baseline's own."""
    lacking: bool = False
    """Whether the base does not have it."""
    known: Known | None = None
    """The session that made measuring its device latency needless."""
    machines: dict[str, dict[str, str]] = {}
    """Card → what decides a device latency there beside the program."""


class StageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one stage on one machine."""

    manifest: Manifest
    part: str
    """`2/8`, or CONFIRMATION."""
    attempt: str
    """Names this very run."""
    started: str
    """UTC, ISO 8601."""
    complete: bool = False
    """Whether every test of it was run to its end."""
    seconds: float = 0.0
    exit_status: int = 0
    command: list[str] = []
    """pytest's arguments, without those that name the part."""
    accelerator: Accelerator
    latency: dict[str, CaseOutcome] = {}
    evidence: dict[str, CaseEvidence] = {}
    failed: list[str] = []
    """Cases that could not be built or measured, or are wrong: their tests say so."""
    gone: list[str] = []
    """Cases of the base that the suite does not have any more."""
    unchecked: list[str] = []
    """Cases of the baseline whose accuracy a filter left out."""
    coverage: list[CoverageReport] = []
    profiles: list[LayersReport] = []
    failures: list[Failure] = []
    notices: list[Notice] = []
    tests: list[TestOutcome] = []
    """All that pytest ran of it."""


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """What a merge leaves for the stage that confirms: what is suspected, and what was measured of it so far."""

    manifest: Manifest
    evidence: dict[str, CaseEvidence]


class StageFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file as read: the record, and the JSON beside it."""

    path: Place
    record: StageRecord
    document: dict[str, Any]

    @property
    def name(self) -> str:
        """What messages call it."""
        part = self.record.part
        what = part if part == CONFIRMATION else f"shard {part}"
        return f"{what} of {self.record.manifest.key} ({self.path})"

    def entry(self, case_id: str) -> dict[str, Any] | None:
        """Return a case's benchmark as pytest-benchmark's JSON has it; None where it has none."""
        found = [one for one in self.document["benchmarks"] if _case_of(one) == case_id]
        return found[-1] if found else None


@explaining(Explanation.SHARD_REJECTED)
def read(path: Place) -> StageFile:
    """Read and check what a stage left. Raises TrtgateError, naming the file, for anything else."""
    document, given = _parsed(path)
    if "evidence" in given and "part" not in given:
        raise TrtgateError(f"{path} is the run of a merge already: name the files of its shards")
    try:
        record = msgspec.convert(given, StageRecord)
        shared = _checked(msgspec.json.encode(record.manifest))
        record = msgspec.structs.replace(record, manifest=shared)
        _check(record)
        if msgspec.convert(document["machine_info"].get("accelerator"), Accelerator) != record.accelerator:
            raise TrtgateError("its accelerator is not that of its machine")
    except (msgspec.ValidationError, TrtgateError) as error:
        raise TrtgateError(f"{path} is broken: {_why(error)}; run that stage again") from error
    return StageFile(path=path, record=record, document=document)


@functools.lru_cache(maxsize=8)
def _checked(manifest: bytes) -> Manifest:
    """Return a manifest that was checked: the same one, once, for all shards of a run. Raises TrtgateError."""
    found = msgspec.json.decode(manifest, type=Manifest)
    found.check()
    return found


@explaining(Explanation.SHARD_REJECTED)
def read_open(path: Place) -> Open:
    """Read what a merge left to be confirmed. Raises TrtgateError, naming the file, for anything else."""
    _, given = _parsed(path)
    if "part" in given:
        raise TrtgateError(
            f"{path} is {given['part']!s:.40} of a run: --trtgate-confirm takes what `trtgate merge` writes"
        )
    try:
        found = msgspec.convert(given, Open)
        found.manifest.check()
        _check_evidence(found.manifest, found.evidence)
    except (msgspec.ValidationError, TrtgateError) as error:
        raise TrtgateError(f"{path} is broken: {_why(error)}; merge the run again") from error
    if not found.evidence:
        raise TrtgateError(f"{path}: nothing in it asks for confirmation")
    return found


def _why(error: Exception) -> str:
    return printable(str(error) if isinstance(error, TrtgateError) else one_line(error))


def _parsed(path: Place) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's document, and what a stage or a merge put into it."""
    try:
        document = decoded(run_places.content_of(path), Any)
    except OSError as error:
        raise TrtgateError(f"{path} can't be read: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise TrtgateError(f"{path} is no run: it is cut short, or no JSON ({one_line(error)})") from error
    header = document.get("trtgate") if isinstance(document, dict) else None
    if not isinstance(header, dict) or header.get("schema") != SCHEMA or not isinstance(document.get(KEY), dict):
        raise TrtgateError(f"{path} is no run of a shard: make one with pytest --trtgate-shard I/N")
    if not isinstance(document.get("benchmarks"), list) or not isinstance(document.get("machine_info"), dict):
        raise TrtgateError(f"{path} is broken: it has no list of benchmarks, or no machine")
    return document, document[KEY]


# Whether it can be judged


def _check(record: StageRecord) -> None:
    manifest, part = record.manifest, record.part
    if part != CONFIRMATION and part not in manifest.names:
        raise TrtgateError(f"it is part {part!r} of a run of {len(manifest.shards)} shards")
    here = record.accelerator
    if (here.key, here.kind, here.versions) != (manifest.key, manifest.kind, manifest.versions):
        raise TrtgateError("its accelerator is not that of its manifest")
    taken = manifest.shard_of(part) if part != CONFIRMATION else [case for one in manifest.shards for case in one]
    strangers = [case for case in (*record.latency, *record.evidence) if case not in taken]
    if strangers:
        raise TrtgateError(f"it holds case {strangers[0]!r}, which is not of {part}")
    _check_evidence(manifest, record.evidence)


def _check_evidence(manifest: Manifest, evidence: Mapping[str, CaseEvidence]) -> None:
    for case_id in evidence.keys() - manifest.timed:
        raise TrtgateError(f"case {case_id!r} is not one that is timed")
    for case_id, found in evidence.items():
        check_case(case_id, found, beside_base=bool(manifest.base))


def check_case(case_id: str, found: CaseEvidence, *, beside_base: bool) -> None:
    """Raise TrtgateError for what no run measures of a case."""
    first = found.evidence.first
    if first is not None and (first.base is not None) != beside_base:
        raise TrtgateError(f"case {case_id!r} was measured {'without' if beside_base else 'beside'} a base")
    if first is None and not beside_base:
        _check_same(case_id, found)
    for measurement in _measurements(found.evidence):
        _check_measurement(case_id, measurement)
    for turn in _turns_of_pairs(found.evidence):
        _check_turn(case_id, turn)
    for build in _builds(found.evidence):
        if not _are_numbers([build.build_s, build.ready_s, build.leaf_error or 0.0], least=0.0):
            raise TrtgateError(f"case {case_id!r}: its build has a figure that can't be one")


def _check_same(case_id: str, found: CaseEvidence) -> None:
    """Check a case that was measured without device latency, since that must be the same."""
    host = found.evidence.host
    if host is None or found.known is None or host.case_id != case_id or not host.launches:
        raise TrtgateError(f"case {case_id!r} was not measured")
    if not _are_numbers([us for turn in host.turns for us in (*turn.host_us, *turn.enqueue_us)]):
        raise TrtgateError(f"case {case_id!r} has a latency that is no positive number")
    _check_beside_launches(case_id, host)


def _measurements(evidence: Evidence) -> Iterator[CaseMeasurement]:
    first = evidence.first
    found = (*((first.candidate, first.base) if first else ()), evidence.further, *evidence.fresh)
    return (one for one in found if one is not None)


def _turns_of_pairs(evidence: Evidence) -> Iterator[Turn]:
    return (turn for one in chain.from_iterable(evidence.pairs) for turn in (*one.base, *one.candidate))


def _builds(evidence: Evidence) -> Iterator[Build]:
    rebuilt = evidence.rebuilt
    found = (*(one.build for one in _measurements(evidence)), *((rebuilt.candidate, rebuilt.base) if rebuilt else ()))
    return (one for one in found if one is not None)


def _check_measurement(case_id: str, measurement: CaseMeasurement) -> None:
    if measurement.case_id != case_id:
        raise TrtgateError(f"case {case_id!r} has what was measured of {measurement.case_id!r}")
    if not measurement.launches or not all(launch.turns for launch in measurement.launches):
        raise TrtgateError(f"case {case_id!r} has a measurement without launches, or a launch without a turn")
    for turn in measurement.turns:
        _check_turn(case_id, turn)
    _check_beside_launches(case_id, measurement)


def _check_beside_launches(case_id: str, measurement: CaseMeasurement) -> None:
    if not _are_numbers([one.seconds for one in (*measurement.cold, *measurement.cold_cached)]):
        raise TrtgateError(f"case {case_id!r} has a cold start that took no time")
    for load in measurement.load:
        _check_load(case_id, load, measurement.load[0])


def _check_load(case_id: str, load: LoadLaunch, first: LoadLaunch) -> None:
    levels, others = ({(one.threads, one.processes) for one in launch.levels} for launch in (load, first))
    figures = [us for one in load.levels for us in (one.throughput_per_s, one.p50_us, one.p99_us)]
    figures += [us for capture in load.cold_l2 for us in capture.blocks_us]
    if not {(load.most, 1), (1, load.most)} <= levels or levels != others or not _are_numbers(figures):
        raise TrtgateError(f"case {case_id!r} has a load that lacks a level, or is no positive number")
    if (readings := load.readings) is not None and (readings.calls < 1 or min(readings.host_bytes, default=0) < 0):
        raise TrtgateError(f"case {case_id!r} has readings of memory that can't be any")


def _check_turn(case_id: str, turn: Turn) -> None:
    blocks = [us for capture in turn.captures for us in capture.blocks_us]
    of_host = turn.clock == HOST_ALONE and turn.host_us and turn.enqueue_us
    if not turn.clock or not (of_host or any(capture.blocks_us or capture.void for capture in turn.captures)):
        raise TrtgateError(f"case {case_id!r} has a turn without a block")
    if not _are_numbers([*blocks, *turn.host_us, *turn.enqueue_us, *turn.tail_us, *turn.canary_us.values()]):
        raise TrtgateError(f"case {case_id!r} has a latency that is no positive number")
    if any(capture.replays < 1 for capture in turn.captures):
        raise TrtgateError(f"case {case_id!r} has a capture that was never replayed")


def _are_numbers(values: list[float], *, least: float = math.ulp(0.0)) -> bool:
    return all(math.isfinite(value) and value >= least for value in values)


def _case_of(entry: Any) -> str | None:
    try:
        found = entry["extra_info"]["trtgate"]["case"]
    except (TypeError, KeyError, IndexError):
        return None
    return found if isinstance(found, str) else None
