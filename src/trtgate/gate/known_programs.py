"""Which cases need no device latency: a proven session measured the same program on the same machine. Pure."""

from __future__ import annotations

import datetime
import hashlib
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

from .. import timing
from ..common.accelerator import Accelerator
from ..records.measurement import Build
from ..records.program_part import ProgramPart
from ..suite.cases import Case
from ..torch_trt import runtime_cache
from . import program_changes
from .baseline_record import CaseRecord, StoredSession
from .run_options import ChangedOnly

CHECKED = 0.05
"""So many of the cases that are the same are measured all the same, at random."""
FRONTENDS = ("dynamo",)
"""Those whose program says all that decides a device latency."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A session that measured the same program on the same machine; `checked`: the case is measured all the same."""

    recorded: str
    clock: str
    checked: bool = False


def machine_part(accelerator: Accelerator, streams: str) -> dict[str, str]:
    """Return what decides a device latency beside the program: the card and its state, drivers, and our own clock."""
    capability = "" if accelerator.capability is None else ".".join(map(str, accelerator.capability))
    return {
        "card": accelerator.name,
        "uuid": accelerator.uuid,
        "mig": accelerator.mig_profile,
        "capability": capability,
        "driver": accelerator.driver,
        "cuda": accelerator.cuda,
        "power limit W": str(accelerator.power_limit_w),
        "max SM MHz": str(accelerator.max_sm_clock_mhz),
        "streams": streams,
        "runtime cache": runtime_cache.by_default(),
        "clock": _clock(),
    }


@cache
def _clock() -> str:
    """Return the digest of what times: another clock, or another way of warming up, reads something else."""
    found = hashlib.sha256()
    for file in sorted(Path(str(timing.__file__)).parent.glob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def known(
    case: Case, build: Build | None, record: CaseRecord | None, machine: Mapping[str, str], wanted: ChangedOnly,
    now: datetime.datetime,
) -> Known | None:  # fmt: skip
    """Return the newest session that makes measuring a case's device latency needless; None where there is none.

    It is proven: its run found it unchanged or faster, or it measured this very compiled module. None where the card
    has a newer session of another program: the case is held against that one, and what went back to an older program
    may be slower.
    """
    if record is None or build is None or build.program is None or case.settings.frontend not in FRONTENDS:
        return None
    uuid = machine.get("uuid", "")
    for session in reversed(record.sessions):
        if session.uuid == uuid and not _is_of(session, build.program):
            return None
        if _vouches(session, build, machine) and _age_days(session, now) <= wanted.days:
            checked = random.Random(f"{wanted.seed} {case.id}").random() < CHECKED
            return Known(recorded=session.recorded, clock=session.clock, checked=checked)
    return None


def _is_of(session: StoredSession, program: ProgramPart) -> bool:
    return session.program is not None and program_changes.same(session.program, program)


def _vouches(session: StoredSession, build: Build, machine: Mapping[str, str]) -> bool:
    if build.program is None or not session.machine or runtime_cache.OWN in session.runtime_cache.split("+"):
        return False  # nobody knows what a user's own runtime cache holds
    same = session.machine == machine and _is_of(session, build.program)
    itself = bool(session.artifact) and session.artifact == build.artifact
    return same and (session.proven or itself)


def _age_days(session: StoredSession, now: datetime.datetime) -> float:
    """Return how old a session is; one whose date can't be read, or lies ahead, is too old."""
    try:
        recorded = datetime.datetime.fromisoformat(session.recorded)
        age = (now - recorded).total_seconds() / 86400
    except (ValueError, TypeError):  # TypeError: it has no time zone
        return float("inf")
    return age if age >= -1.0 else float("inf")
