"""What `trtgate affected` does: fingerprints this code's cases and a base's, and says which of them differ."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..common import machine
from ..common.accelerator import GIB
from ..common.errors import TrtgateError
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..common.text_columns import number_of
from ..common.time_limit import TimeLimit
from ..gate import program_changes
from ..launches.base_revision import BaseRequest, BaseRevision
from ..launches.comparison_side import Side
from ..launches.fingerprinting import Fingerprinting, groups_of
from ..launches.pair import BASE, CANDIDATE
from ..launches.suite_here import configured_suite
from ..records.program_part import Fingerprint
from ..suite.cases import Case
from ..suite.pytest_config import baselines_folder
from ..suite.selection import Selection

if TYPE_CHECKING:
    from ..gate.baseline_record import CaseRecord

BASELINE = "baseline"
"""What stands for stored sessions in a revision's place."""
BYTES_EACH = 4 * GIB
"""Memory that a process may need which exports large models."""
SCHEMA = 1
NEW, GONE = "is new: the base does not have it", "is gone: the base has it"
UNSTORED = Fingerprint(problem="its stored sessions are from before programs were stored: record it again")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, as the command's options have it."""

    base: str
    models: tuple[str, ...] = ()
    frontends: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    accelerator: str = ""
    setup: str = ""
    baselines: Path | None = None
    timeout_s: float

    @property
    def selection(self) -> Selection:
        """Which cases are asked of."""
        return Selection(models=self.models, frontends=self.frontends, precisions=self.precisions)


class Affected(msgspec.Struct, frozen=True, kw_only=True):
    """Which cases a change touches."""

    schema: int = SCHEMA
    base: str
    touched: dict[str, list[str]]
    """Case → what changed in it, or why nobody can tell."""
    same: list[str]


def ask(wanted: Wanted, step: OnStep) -> Affected:
    """Return which cases differ from the base's.

    Raises TrtgateError for a base that is not there, a suite that can't be imported, and an unknown model.
    """
    if not wanted.base:
        raise TrtgateError("--base is empty: name a git revision, or baseline")
    if wanted.accelerator and wanted.base != BASELINE:
        raise TrtgateError("--accelerator says whose baseline is meant, and a revision has none: drop it")
    variables = dict(os.environ)  # before this folder's conftest files say otherwise
    source, folder, _ = configured_suite(Path.cwd(), as_in_pytest=True)
    stored = _stored(wanted) if wanted.base == BASELINE else None
    run_folder = RunFolder(folder, step)
    timeout_s = TimeLimit(wanted.timeout_s, "--timeout")
    with ExitStack() as stack:
        sides = [Side(name=CANDIDATE, source=source)]
        if stored is None:
            step(f"checking out {wanted.base}, and asking its pytest")
            request = BaseRequest(revision=wanted.base, setup=wanted.setup)
            base = BaseRevision(request, source, run_folder.path, timeout_s=timeout_s, before=variables)
            sides.append(_of_its_suites(stack.enter_context(contextlib.closing(base))))
        workers = max(1, machine.processes(BYTES_EACH) // len(sides))
        asking = stack.enter_context(
            Fingerprinting(sides, run_folder.own_logs, workers=workers, timeout_s=timeout_s)
        )  # fmt: skip
        step("importing the suite")
        cases = {case.id: case for case in wanted.selection.select(source.load())}
        if stored is None:
            before, now = _beside_revision(asking, cases, wanted, step)
        else:
            before = {case_id: _of_record(record) for case_id, record in stored.items()}
            now = asking.ask({CANDIDATE: groups_of(cases.values())}, step)[CANDIDATE]
        differing = [case_id for case_id in now if case_id in before and _in_values(before[case_id], now[case_id])]
        random = _random(asking, [cases[case_id] for case_id in differing], now, step)
    return _compared(wanted, before, {name: now[name] for name in cases}, random)


def _of_its_suites(base: BaseRevision) -> Side:
    """Return a base's side with all suites that its configuration names. Raises TrtgateError where it names none."""
    if base.configured is None:
        raise TrtgateError(
            "the base configures no suite (the ini key trtgate_suite), so all is new: nothing to compare with"
        )
    return msgspec.structs.replace(base.side, source=base.configured)


def _beside_revision(
    asking: Fingerprinting, cases: Mapping[str, Case], wanted: Wanted, step: OnStep
) -> tuple[dict[str, Fingerprint], dict[str, Fingerprint]]:
    known = asking.cases(BASE)
    both = [case for case in cases.values() if case.id in known]
    found = asking.ask({CANDIDATE: groups_of(both), BASE: groups_of(both)}, step)
    gone = [case_id for case_id in known if case_id not in cases and wanted.selection.takes_id(case_id)]
    new = {case_id: Fingerprint() for case_id in cases if case_id not in known}
    return {**found[BASE], **{case_id: Fingerprint() for case_id in gone}}, {**found[CANDIDATE], **new}


def _in_values(before: Fingerprint, now: Fingerprint) -> bool:
    return program_changes.differ_in_values(before, now)


def _random(asking: Fingerprinting, cases: list[Case], now: Mapping[str, Fingerprint], step: OnStep) -> set[str]:
    """Return the cases whose factory returns something else when it is called again; one case asks for each call."""
    groups = groups_of(cases)
    if not groups:
        return set()
    step("calling factories again")
    again = asking.ask({CANDIDATE: [group[:1] for group in groups]}, step, fresh=True)[CANDIDATE]
    return {
        case_id for first, *others in groups if _in_values(now[first], again[first]) for case_id in (first, *others)
    }


def _compared(
    wanted: Wanted, before: Mapping[str, Fingerprint], now: Mapping[str, Fingerprint], random: set[str]
) -> Affected:
    touched: dict[str, list[str]] = {}
    for case_id, fingerprint in now.items():
        if case_id not in before:
            touched[case_id] = [NEW]
        elif case_id in random:
            touched[case_id] = [f"can't be fingerprinted: {program_changes.RANDOM}"]
        elif found := program_changes.changes(before[case_id], fingerprint):
            touched[case_id] = found
    gone = [case_id for case_id in before if case_id not in now and wanted.selection.takes_id(case_id)]
    touched |= {case_id: [GONE] for case_id in gone}
    same = [case_id for case_id in now if case_id not in touched]
    return Affected(base=wanted.base, touched=touched, same=same)


def _stored(wanted: Wanted) -> dict[str, CaseRecord]:
    """Return what the baseline has of each case. Raises TrtgateError where there is none, or several."""
    from ..gate import baselines  # imports SciPy, as what follows does: a revision needs neither

    if wanted.setup:
        raise TrtgateError("--base-setup makes a revision ready, and --base baseline checks none out: drop one")
    folder = baselines_folder(wanted.baselines)
    try:
        keys = baselines.keys(folder)
    except OSError:
        keys = []
    there = ", ".join(keys) or "none"
    if wanted.accelerator and wanted.accelerator not in keys:
        raise TrtgateError(f"--accelerator {wanted.accelerator!r}: {folder} has no such baseline; there are: {there}")
    if not keys:
        raise TrtgateError(f"{folder} has no baseline: record one with --trtgate-update-baselines, or name a revision")
    if len(keys) > 1 and not wanted.accelerator:
        raise TrtgateError(f"{folder} has several baselines: name one with --accelerator: {there}")
    return baselines.read_baseline(baselines.path_of(folder, wanted.accelerator or keys[0])).cases


def _of_record(record: CaseRecord) -> Fingerprint:
    """Return what the newest session of a case measured."""
    program = record.sessions[-1].program
    return UNSTORED if program is None else Fingerprint(program=program)


def lines(found: Affected) -> list[str]:
    """Return what is touched, a line a case, and a summary."""
    total = len(found.touched) + len(found.same)
    shown = [f"{case_id}: {'; '.join(what)}" for case_id, what in found.touched.items()]
    if not found.touched:
        return [f"nothing is touched: {number_of(total, 'case')}, the same as in {found.base}"]
    return [
        *shown,
        f"touched: {len(found.touched)} of {number_of(total, 'case')}; the same as in {found.base}: {len(found.same)}",
    ]


def as_json(found: Affected) -> str:
    """Return it as JSON."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode()
