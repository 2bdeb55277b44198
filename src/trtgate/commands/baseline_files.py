"""What `trtgate baseline` does: show, compare and accept stored files. Needs neither a GPU nor torch."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ..common import accelerator, run_places
from ..common.errors import TrtgateError
from ..common.files import is_there
from ..common.text_columns import Line, TextTable
from ..common.urls import is_url
from ..coverage import coverage_baselines
from ..gate import baselines
from ..gate.baseline_record import CaseRecord, change_since_anchor, typical_us
from ..gate.baselines import Run, Update
from ..gate.sentences import duration
from ..profiles import profile_files
from ..report import terminal_table
from ..verdict import Verdict

NOT_STORED_UNASKED = (Verdict.REGRESSED, Verdict.INCOMPARABLE, Verdict.UNDERPOWERED, Verdict.UNCONFIRMED)
"""Recorded verdicts that keep a case out of a baseline, unless it is named."""


class CaseChange(msgspec.Struct, frozen=True, kw_only=True):
    """One case in two files; a latency is None where the case is not, `change` where the two can't be compared."""

    case_id: str
    before_us: float | None
    after_us: float | None
    change: float | None = None
    note: str = ""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What accepting a run did; `left_out` and `known` are cases that were not stored, or were stored before."""

    path: Path
    updates: list[Update]
    left_out: dict[str, str]
    """Case → its verdict."""
    known: list[str]
    unused: tuple[str, ...] = ()
    """A line for each session of the run that can't be used."""


# Which file


def find(name: str, folder: Path) -> Run:
    """Read the file, the object of a store, or the baseline of the accelerator key, of that name.

    Raises TrtgateError when there is neither, naming the nearest key, or the file is broken.
    """
    if is_url(name):
        return baselines.read(run_places.one(name))
    stored = baselines.path_of(folder, name)
    for path in (Path(name), Path(name) / baselines.FILE_NAME, stored):
        if path.is_file():
            return baselines.read(path)
    keys = baselines.keys(folder)
    raise TrtgateError(f"{name!r} is no file, and no accelerator key under {folder}; {_nearest(name, keys)}")


def everything(folder: Path) -> list[Run]:
    """Read the baselines of all keys. Raises TrtgateError when there is none, or one is broken."""
    found = _stored_runs(folder)
    if not found:
        raise TrtgateError(f"there is no baseline under {folder}: record one with --trtgate-update-baselines")
    return found


def _stored_runs(folder: Path) -> list[Run]:
    return [baselines.read(baselines.path_of(folder, key)) for key in baselines.keys(folder)]


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known) or 'none'}"


# Show


def shown(run: Run) -> list[Line]:
    """Return a file as lines: where it is from, and a table of its cases."""
    of_clocks = [
        (case_id, clock, record.of_clock(clock)) for case_id, record in sorted(run.cases.items())
        for clock in record.clocks
    ]  # fmt: skip
    totals = [change_since_anchor(record) for _, _, record in of_clocks]
    anchored = any(change is not None for change in totals)
    rows = [("case", "latency", "sessions", "cards", "recorded last", *["since anchor"] * anchored, "clock")]
    for (case_id, clock, record), change in zip(of_clocks, totals, strict=True):
        last = max(session.recorded for session in record.sessions)
        counts = str(len(record.sessions)), str(len(record.cards))
        total = ["" if change is None else f"{change:+.2%}"] * anchored
        rows.append((case_id, duration(typical_us(record.sessions)), *counts, _when(last), *total, clock))
    return [str(run.path), terminal_table.describe(run.accelerator), TextTable(rows), *run.unused]


def _when(recorded: str) -> str:
    return recorded[:16].replace("T", " ")


# Diff


def compare(before: Run, after: Run) -> list[CaseChange]:
    """Return what became of every case of two files: the most slowed down first, then new ones, then gone ones.

    Raises TrtgateError when they have cases in common and are of different accelerators.
    """
    common = before.cases.keys() & after.cases.keys()
    if common and before.accelerator.key != after.accelerator.key:
        raise TrtgateError(
            f"{before.path} was recorded on {before.accelerator.key}, and {after.path} on {after.accelerator.key}: "
            "latencies of different accelerators can't be compared"
        )
    ids = before.cases.keys() | after.cases.keys()
    changes = [
        change for case_id in ids for change in _changes(case_id, before.cases.get(case_id), after.cases.get(case_id))
    ]
    return sorted(changes, key=_slowest_first)


def _changes(case_id: str, old: CaseRecord | None, new: CaseRecord | None) -> list[CaseChange]:
    """Return what became of a case, for each clock of its own."""
    before, after = ({} if one is None else _latencies(one) for one in (old, new))
    if before and after and not before.keys() & after.keys():
        note = f"clock {'+'.join(sorted(before))} → {'+'.join(sorted(after))}"
        was, now = (list(us.values())[-1] for us in (before, after))
        return [CaseChange(case_id=case_id, before_us=was, after_us=now, note=note)]
    clocks = dict.fromkeys((*before, *after))
    return [
        _change(case_id, before.get(one), after.get(one), of_clock=f" of the clock {one}" if len(clocks) > 1 else "")
        for one in clocks
    ]


def _latencies(record: CaseRecord) -> dict[str, float]:
    return {clock: typical_us(record.of_clock(clock).sessions) for clock in record.clocks}


def _change(case_id: str, before_us: float | None, after_us: float | None, *, of_clock: str) -> CaseChange:
    change, note = None, of_clock.strip()
    if before_us is None or after_us is None:
        note = f"{'new' if before_us is None else 'gone'}{of_clock}"
    else:
        change = after_us / before_us - 1
    return CaseChange(case_id=case_id, before_us=before_us, after_us=after_us, change=change, note=note)


def _slowest_first(change: CaseChange) -> tuple[bool, float, bool, str]:
    return change.change is None, -(change.change or 0.0), change.after_us is None, change.case_id


def compared(before: Run, after: Run) -> list[Line]:
    """Return the comparison of two files as lines."""
    changes = compare(before, after)
    rows = [("case", "old", "new", "change")]
    for change in changes:
        said = change.note if change.change is None else f"{change.change:+.2%} {change.note}".rstrip()
        old, new = ("" if us is None else duration(us) for us in (change.before_us, change.after_us))
        rows.append((change.case_id, old, new, said))
    lines: list[Line] = [f"old: {before.path}", f"new: {after.path}", TextTable(rows)]
    software = accelerator.differences(before.accelerator, after.accelerator)
    if software:
        lines.append(f"between them: {', '.join(software)}")
    return [*lines, "These are differences of means, no verdicts: pytest --benchmark-compare judges."]


# Accept


def accept(run: Run, folder: Path, names: Sequence[str]) -> Accepted:
    """Write cases of a run into the baseline of its accelerator key: those named, or all that may be stored.

    A name may be a pattern. A case that was compared with nothing may be stored unnamed only where its clock has no
    session of its card. A case whose sessions are all in the baseline already is left as it is, so that accepting
    twice does not count one measurement twice. Raises TrtgateError for a name that takes no case, when nothing may be
    stored, and when a file is broken or can't be written.
    """
    path = baselines.path_of(folder, run.accelerator.key)
    stored = baselines.read(path).cases if is_there(path) else {}
    fresh = _without_known_sessions(run, stored)
    refused = {case_id: record.verdict for case_id, record in run.cases.items() if _refused(record)}
    refused |= {
        case_id: f"{record.verdict}, and was not compared with what is stored"
        for case_id, record in fresh.cases.items()
        if case_id not in refused and _not_compared(record, stored.get(case_id))
    }
    named = _named(run, names)
    wanted = named or [case_id for case_id in run.cases if case_id not in refused]
    if not wanted:
        raise TrtgateError(
            f"{run.path}: nothing to store, {_listed(refused)}; name the cases that are meant to be so: "
            f"trtgate baseline accept {run.path} CASE"
        )
    new = [case_id for case_id in wanted if fresh.cases[case_id].sessions]
    updates = baselines.update(folder, fresh, new) if new else []
    return Accepted(
        path=path,
        updates=updates,
        left_out={} if named else refused,
        known=[case_id for case_id in wanted if case_id not in new],
        unused=run.unused,
    )


# Remove


def remove(folder: Path, names: Sequence[str]) -> list[str]:
    """Remove cases from the baselines of all accelerator keys and releases; returns what was done, a line each.

    A name may be a pattern. Raises TrtgateError for a name that takes no case at all; nothing is removed then.
    """
    runs = _stored_runs(folder)
    covered = coverage_baselines.case_ids(folder)
    profiles = profile_files.stored_baselines(folder)
    stored = {case_id for run in runs for case_id in (*run.cases, *run.unusable)}
    known = sorted(stored | covered | set(profiles.values()))
    for name in names:
        if not fnmatch.filter(known, name):
            raise TrtgateError(f"no baseline under {folder} has a case {name!r}; {_nearest(name, known)}")
    chosen = {case_id for case_id in known if any(fnmatch.fnmatch(case_id, name) for name in names)}
    lines = []
    for run in runs:
        gone = [case_id for case_id in (*run.cases, *run.unusable) if case_id in chosen]
        if gone:
            baselines.remove(Path(str(run.path)), gone)
            lines += [f"removed from {run.path}: {case_id}" for case_id in gone]
    for path, case_id in profiles.items():
        if case_id in chosen:
            path.unlink(missing_ok=True)
            lines.append(f"removed from {path.parent}: {case_id}")
    gone = [case_id for case_id in covered if case_id in chosen]
    return lines + [f"removed from {path}" for path in coverage_baselines.remove(folder, gone)]


def _refused(record: CaseRecord) -> bool:
    return record.disturbed or record.verdict in NOT_STORED_UNASKED


def _listed(refused: dict[str, str]) -> str:
    return ", ".join(f"{case_id} is {verdict}" for case_id, verdict in refused.items())


def _named(run: Run, names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        taken = fnmatch.filter(run.cases, name)
        if not taken:
            raise TrtgateError(f"{run.path} has no case {name!r}; {_nearest(name, list(run.cases))}")
        found += [case_id for case_id in taken if case_id not in found]
    return found


def _not_compared(record: CaseRecord, stored: CaseRecord | None) -> bool:
    """Whether a case has sessions to add to those of its card and clock, and nothing says that it is as they are."""
    if stored is None or not record.sessions or record.verdict in (Verdict.UNCHANGED, Verdict.IMPROVED):
        return False
    new = record.sessions[-1]
    return new.uuid in stored.of_clock(new.clock).cards


def _without_known_sessions(run: Run, stored: Mapping[str, CaseRecord]) -> Run:
    cases = {}
    for case_id, record in run.cases.items():
        known = [*stored[case_id].anchor, *stored[case_id].sessions] if case_id in stored else []
        known = [msgspec.structs.replace(session, level="") for session in known]  # a run does not know its level
        new = [session for session in record.sessions if session not in known]
        cases[case_id] = msgspec.structs.replace(record, sessions=new)
    return msgspec.structs.replace(run, cases=cases)
