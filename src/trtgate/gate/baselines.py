"""Stored runs and baselines: pytest-benchmark's JSON with our sessions in it, read strictly, written atomically."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from ..common import run_file, run_places
from ..common.accelerator import Accelerator, check_kind
from ..common.errors import TrtgateError, explaining
from ..common.explanations import Explanation
from ..common.files import STAGE, decoded, is_there, key_twice, listed, locked, write_json
from ..common.run_places import Place
from ..common.text_columns import number_of
from . import session_merging
from .baseline_record import CaseRecord, StoredSession, typical_us
from .plausibility import check, usable, why_unused

SCHEMA = 1
FILE_NAME = "latency.json"
RESTORE = "restore it from version control, or delete it and record it anew"


class _ExtraInfo(msgspec.Struct):
    trtgate: CaseRecord | None = None


class _Benchmark(msgspec.Struct):
    fullname: str
    stats: dict[str, Any]
    extra_info: _ExtraInfo


class _MachineInfo(msgspec.Struct):
    accelerator: Accelerator


class _Header(msgspec.Struct):
    schema: int
    stage: str = ""


class _Document(msgspec.Struct):
    trtgate: _Header
    machine_info: _MachineInfo
    benchmarks: list[_Benchmark]


class BrokenFileError(TrtgateError):
    """A file that can't be read, or not as what it should be: it is nobody else's either."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A file as read: typed records by case id, and the JSON itself, which keeps what we do not know."""

    path: Place
    accelerator: Accelerator
    cases: dict[str, CaseRecord]
    """Without sessions that can't be used; a case that has no other is in `unusable`."""
    document: dict[str, Any]
    unused: tuple[str, ...] = ()
    """A line for each session that can't be used."""
    unusable: dict[str, str] = {}
    """Case id → why none of its sessions can be used."""
    stage: str = ""  # which part of a run it is, such as `shard 2/8`
    unfinished: bool = False
    """Of a saved run: whether it goes on, or was killed."""

    def judged(self) -> Run:
        """Return it. Raises TrtgateError for a part of a run."""
        if self.stage:
            raise TrtgateError(f"{self.path} is {self.stage}, judged by nobody: take what `trtgate merge` writes")
        return self

    def entry(self, case_id: str) -> dict[str, Any]:
        """Return a case's benchmark as pytest-benchmark's JSON has it."""
        return next(b for b in reversed(self.document["benchmarks"]) if _case_of(b) == case_id)


def path_of(folder: Path, key: str) -> Path:
    """Return where the baseline of an accelerator key lies."""
    return folder / key / FILE_NAME


def keys(folder: Path) -> list[str]:
    """Return the accelerator keys that have a baseline. Raises OSError for a folder that can't be read."""
    return [place.name for place in listed(folder) if place.is_dir() and is_there(place / FILE_NAME)]


@explaining(Explanation.BASELINE_BROKEN)
def read(path: Place) -> Run:
    """Read and check a baseline or a saved run, which may lie in a store.

    Raises TrtgateError when it can't be read, is not JSON, has another schema, no benchmark of ours, or a value
    that is not a positive, finite number; BrokenFileError where it is not even JSON that others may have written.
    """
    document, typed = _parsed(path)
    records = [b.extra_info.trtgate for b in typed.benchmarks if b.extra_info.trtgate]
    cases = {record.case: record for record in records}
    document.pop(STAGE, None)
    unfinished = document["trtgate"].pop(run_file.UNFINISHED, False)  # a case measured twice is in it twice
    if len(cases) < len(records) and not unfinished:
        twice = Counter(record.case for record in records).most_common(1)[0][0]
        raise TrtgateError(f"{path} has case {twice} twice, as a merge may leave it: take one of the two out")
    if not (cases or typed.trtgate.stage):
        raise TrtgateError(f"{path} holds no case, so nothing could be compared: {RESTORE}")
    for record in cases.values():
        check(path, record, typed.machine_info.accelerator, RESTORE)
    used = {case_id: usable(record) for case_id, record in cases.items()}
    lines = {case_id: [why_unused(one) for one in record.unused] for case_id, record in used.items()}
    return Run(
        path=path,
        accelerator=typed.machine_info.accelerator,
        cases={case_id: record for case_id, record in used.items() if record.sessions},
        document=document,
        unused=tuple(f"{path}: case {case_id}: {line}" for case_id, some in lines.items() for line in some),
        unusable={case_id: lines[case_id][0] for case_id, record in used.items() if not record.sessions},
        stage=typed.trtgate.stage,
        unfinished=bool(unfinished),
    )


def _parsed(path: Place) -> tuple[dict[str, Any], _Document]:
    """Return a file as it stands, and what of it is ours. Raises as `read`."""
    try:
        text = run_places.content_of(path)
    except OSError as error:
        raise BrokenFileError(f"{path} can't be read: {error.strerror}") from error
    try:
        document = decoded(text, Any)  # refuses NaN and truncated files
        if not isinstance(document, dict):
            raise BrokenFileError(f"{path} is not one of trtgate's files: it holds no object")
        if "trtgate" not in document:
            raise TrtgateError(f"{path} is not one of trtgate's files: it was saved by a run without trtgate's cases")
        schema = document["trtgate"].get("schema") if isinstance(document["trtgate"], dict) else None
        if schema != SCHEMA:
            raise TrtgateError(
                f"{path} has schema {schema!r}, and this version reads {SCHEMA}: delete it and record it anew, or "
                "install the trtgate that wrote it"
            )
        typed = msgspec.convert(document, _Document)
    except msgspec.ValidationError as error:
        raise BrokenFileError(f"{path} is broken: {error}; {RESTORE}") from error
    except msgspec.DecodeError as error:
        raise BrokenFileError(f"{path} is not valid JSON ({error}); {RESTORE}") from error
    if path.name == FILE_NAME and (key := key_twice(text)):
        raise TrtgateError(f"{path} has the key {key!r} twice, as a merge may leave it: make one of the two")
    return document, typed


@explaining(Explanation.BASELINE_BROKEN)
def read_baseline(path: Path) -> Run:
    """Read what is compared with. Raises TrtgateError as `read`, and for a case that has no session to compare with."""
    found = read(path).judged()
    for case_id, why in found.unusable.items():
        raise TrtgateError(
            f"{path}: case {case_id} has no session that can be used: {why}; trtgate baseline remove {case_id}, and "
            "record it anew"
        )
    return found


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What writing one case into a baseline does; latencies of the case's primary metric in microseconds."""

    case_id: str
    before_us: float | None = None
    after_us: float = 0.0
    sessions: int = 0
    restarted: bool = False
    """The sessions that it was judged by were of other code or of another machine state, and are dropped."""
    first_of_card: bool = False
    """There were sessions, and none of this card: from now on it is held against this one."""
    first_of_versions: bool = False
    """There were sessions, and none of these versions."""
    clock: str = ""
    """Of a case that was stored before, and not with this clock."""
    refused: str = ""
    """Why it is not written after all; empty when it is."""


def describe(change: Update) -> str:
    """Return what a change does to a case, in one line."""
    if change.refused:
        return f"{change.case_id}: {change.refused}"
    after = f"{change.after_us:,.5g} µs, {number_of(change.sessions, 'session')}"
    if change.before_us is None:
        return f"{change.case_id}: {after} (new{f' of the clock {change.clock}' * bool(change.clock)})"
    moved = f"{change.before_us:,.5g} → {after} ({change.after_us / change.before_us - 1:+.2%})"
    more = ", the first of this card" * change.first_of_card + ", older sessions dropped" * change.restarted
    more += ", the first of these versions" * (change.first_of_versions and not change.first_of_card)
    return f"{change.case_id}: {moved}{more}"


def update(folder: Path, run: Run, case_ids: Sequence[str]) -> list[Update]:
    """Write the given cases of a run into the baseline of its accelerator key; all others stay byte for byte.

    Sessions accumulate, those of each clock for themselves; `session_merging.merged` says which go, or are refused.
    Raises TrtgateError when the baseline there is broken, of another kind, or can't be written; it is then as it was.
    """
    path = path_of(folder, run.judged().accelerator.key)
    with locked(path):
        before = read_baseline(path) if is_there(path) else None
        if before is not None:
            check_kind(path, before.accelerator, run.accelerator, str(run.path))
        document = dict(before.document) if before else {**run.document, "benchmarks": []}
        document["machine_info"] = run.document["machine_info"]
        entries = {case: entry for entry in document["benchmarks"] if (case := _case_of(entry)) is not None}
        others = [entry for entry in document["benchmarks"] if _case_of(entry) is None]
        updates = []
        for case_id in case_ids:
            old = before.cases.get(case_id) if before else None
            stored = entries.get(case_id, {}).get("extra_info", {}).get("trtgate", {})
            entry, change = _merged(run, case_id, old, stored)
            updates.append(change)
            if entry is not None:
                entries[case_id] = entry
        document["benchmarks"] = [*(entries[case_id] for case_id in sorted(entries)), *others]
        if not all(change.refused for change in updates):
            write_json(path, document)
    return updates


def remove(path: Path, case_ids: Sequence[str]) -> None:
    """Remove cases from a baseline; all others stay byte for byte, and a file without cases goes.

    Raises TrtgateError when it is broken, or can't be written; it is then as it was.
    """
    with locked(path):
        document = read(path).document
        document["benchmarks"] = [entry for entry in document["benchmarks"] if _case_of(entry) not in case_ids]
        if document["benchmarks"]:
            write_json(path, document)
        else:
            path.unlink()


def _merged(
    run: Run, case_id: str, old: CaseRecord | None, before: Mapping[str, Any] = MappingProxyType({})
) -> tuple[dict[str, Any] | None, Update]:
    """Return a case as it is to be written, None where it is refused, and what that does; `before` is `old` as JSON."""
    if case_id in run.unusable:
        return None, Update(case_id=case_id, refused=run.unusable[case_id])
    record = run.cases[case_id]
    if record.base:
        raise TrtgateError(
            f"{run.path}: {case_id} was measured beside the base {record.base}, one launch: it is no session that a "
            "baseline could hold; record one with --trtgate-update-baselines"
        )
    done = session_merging.merged(record, old)
    if done.refused:
        return None, Update(case_id=case_id, refused=done.refused)
    unused = [] if old is None else old.unused
    stored = msgspec.structs.replace(
        record, sessions=done.sessions, anchor=done.anchor, unused=unused, judgements=[], began="", upgraded=False
    )
    entry = msgspec.to_builtins(run.entry(case_id))
    entry["extra_info"] = {**entry["extra_info"], "trtgate": _as_it_was(stored, before)}
    new = record.sessions[-1]
    held = None if old is None else old.of_clock(new.clock)
    compared = held.compared_with(new.uuid, new.versions) if held is not None and held.sessions else []
    return entry, Update(
        case_id=case_id,
        before_us=typical_us(compared) if compared else None,
        after_us=typical_us(record.sessions),
        sessions=sum(one.clock == new.clock for one in done.sessions),
        restarted=done.restarted,
        first_of_card=held is not None and bool(compared) and new.uuid not in held.cards,
        first_of_versions=bool(compared) and compared[-1].versions not in ({}, new.versions),
        clock=new.clock if old is not None and not compared else "",
    )


def _as_it_was(record: CaseRecord, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as JSON has it; sessions that are in the JSON `before` stay as they are there."""
    found = msgspec.to_builtins(record)
    raw = [one for name in ("anchor", "sessions") for one in before.get(name, [])]
    known = [(msgspec.convert(one, StoredSession), one) for one in raw]
    for name in ("anchor", "sessions"):
        found[name] = [
            next((json for session, json in known if session == one), msgspec.to_builtins(one))
            for one in getattr(record, name)
        ]
    return found


def _case_of(entry: Mapping[str, Any]) -> str | None:
    return (entry.get("extra_info", {}).get("trtgate") or {}).get("case")
