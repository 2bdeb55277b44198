"""What was measured of each case, kept while a run goes on, for a run that is started again."""

from __future__ import annotations

import datetime

import msgspec

from ..common import run_places
from ..common.errors import PROBLEMS, TrtgateError, one_line
from ..common.files import decoded
from ..common.run_places import EVIDENCE, Folder
from ..common.run_store import MissingError
from ..records.program_part import ProgramPart
from .stage_record import CaseEvidence, check_case

OLDEST = datetime.timedelta(days=1)
"""What was measured longer ago is measured again: the machine may be in another state."""


class RunIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What two runs have in common whose measurements are interchangeable: code, what judges it, how it is measured."""

    trtgate: str
    key: str
    """The accelerator's."""
    versions: dict[str, str]
    commit: str
    suite: str
    """Digest of the files that the suites were imported from."""
    baseline: str
    """Digest of the baseline; empty where there is none."""
    launches: int
    streams: str
    cold_starts: int
    load: int
    tests: int
    """How many judgements share the error rate."""


class KeptEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One case of one run."""

    run: RunIdentity
    case_id: str
    limits: dict[str, float]
    """Metric → fraction, as the run had them: they say what was measured again."""
    program: ProgramPart | None
    """What was built; None where that can't be said."""
    found: CaseEvidence


def read(folder: Folder, wanted: RunIdentity) -> tuple[dict[str, KeptEvidence], list[str]]:
    """Return what a store has of a run that was begun before: case → what was measured first, and what is broken.

    Raises StoreError or OSError where the store can't be listed.
    """
    found: dict[str, KeptEvidence] = {}
    broken: list[str] = []
    now = datetime.datetime.now(datetime.UTC)
    try:
        places = run_places.named_runs(folder, (EVIDENCE,), key=wanted.key, commit=wanted.commit, all_dates=True)
    except MissingError:  # a new store: its first object makes its folder, or says that the store does not exist
        return found, broken
    for place in places.values():
        try:
            one = _decoded(run_places.content_of(place))
        except PROBLEMS as error:
            broken.append(f"{place} is not taken: {error}")
            continue
        if one.run == wanted and _is_recent(one.found.recorded, now):
            found.setdefault(one.case_id, one)
    return found, broken


def _decoded(content: bytes) -> KeptEvidence:
    try:
        one = decoded(content, KeptEvidence)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise TrtgateError(f"it is no evidence of a case ({one_line(error)})") from error
    check_case(one.case_id, one.found, beside_base=False)
    return one


def _is_recent(recorded: str, now: datetime.datetime) -> bool:
    try:
        age = now - datetime.datetime.fromisoformat(recorded)
    except (ValueError, TypeError):
        return False
    return datetime.timedelta() <= age <= OLDEST


def fits(one: KeptEvidence, limits: dict[str, float], program: ProgramPart | None) -> bool:
    """Whether what was kept of a case may be taken: its limits and its program are the same."""
    return one.limits == limits and one.program == program
