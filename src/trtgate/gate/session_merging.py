"""What becomes of a case's stored sessions when one more is added: which go, and which level it belongs to. Pure.

A session stands beside those of its own clock, card and versions. What starts a case anew drops what it was judged by;
sessions of other clocks and other versions stay, for runs of theirs.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from ..verdict import Verdict
from .baseline_record import ANCHOR_SESSIONS, CaseRecord, StoredSession, in_order

KEPT_SESSIONS = 20
"""Of a clock. Beyond so many, the oldest of the card and versions that have most of them goes."""
OTHER = (Verdict.IMPROVED, Verdict.REGRESSED, Verdict.INCOMPARABLE)
"""Verdicts after which the sessions stored before can't be averaged with what is stored now."""
STARTED_ANEW = "another run has started it anew meanwhile: record it again"
DISTURBED = "too many of its blocks do not count: record it again"
SEVERAL = (
    "it has {} sessions, as a baseline has, and a saved run has one: name a saved run, or remove what is stored of the "
    "case first"
)

Sessions = list[StoredSession]


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """A case's sessions and anchor with one more session, or why that is refused."""

    sessions: Sessions = []
    anchor: Sessions = []
    restarted: bool = False
    """The sessions that it was judged by are dropped."""
    refused: str = ""


def merged(record: CaseRecord, old: CaseRecord | None) -> Merged:
    """Add the newest session of a run's `record` to what is stored of its case.

    If what judged it is of other versions, or of other cards, that is not dropped, and the session begins a level of
    its own where it lies elsewhere. What another run has stored since is not dropped either. A baseline's `record`, of
    several sessions with levels of their own, is taken as it is where nothing is stored, and refused elsewhere.
    """
    new = record.sessions[-1]
    if record.disturbed:
        return Merged(refused=DISTURBED)
    if old is None:
        return Merged(sessions=list(record.sessions), anchor=list(record.anchor))
    if len(record.sessions) > 1:
        return Merged(refused=SEVERAL.format(len(record.sessions)))
    same = old.of_clock(new.clock)
    own = [one for one in same.sessions if one.uuid == new.uuid]
    there = [one for one in own if one.versions == new.versions]
    elsewhere = record.verdict in OTHER or any(judgement.suspected is not None for judgement in record.judgements)
    if not elsewhere and _started_anew(record, same, own):
        return Merged(refused=STARTED_ANEW)
    restart = elsewhere and bool(there) and _judged_by_these(record, same)
    sessions, anchor = list(old.sessions), list(old.anchor)
    if restart:  # other code is other code on all cards, another state only this card's
        only_here = record.verdict == Verdict.INCOMPARABLE
        sessions, anchor = (
            [one for one in some if not _alike(one, new) or (only_here and one.uuid != new.uuid)]
            for some in (sessions, anchor)
        )
        own = [one for one in own if one not in there]
    if there and not restart:
        level = there[-1].level
    elif own:
        level = new.recorded if elsewhere else own[-1].level
    else:
        level = ""
    sessions, anchor = _without_the_oldest([*sessions, msgspec.structs.replace(new, level=level)], anchor, new.clock)
    return Merged(sessions=sessions, anchor=anchor, restarted=restart)


def _alike(one: StoredSession, other: StoredSession) -> bool:
    return (one.clock, one.versions) == (other.clock, other.versions)


def _started_anew(record: CaseRecord, same: CaseRecord, own: Sessions) -> bool:
    """Whether what a run calls unchanged was started anew since it was judged."""
    judged_by = next((one for one in (*same.anchor, *same.sessions) if one.recorded == record.began), None)
    if record.began == "":
        return False
    if judged_by is None:
        return True
    of_this_card = bool(own) and judged_by.uuid == record.sessions[-1].uuid
    return of_this_card and not _of_its_level(record, same)


def _judged_by_these(record: CaseRecord, same: CaseRecord) -> bool:
    """Whether the sessions of this card and these versions are what the run was judged by."""
    return not record.upgraded and (record.began == "" or _of_its_level(record, same))


def _of_its_level(record: CaseRecord, same: CaseRecord) -> bool:
    """Whether the first session that a run was judged by is of the level that its card has now."""
    new = record.sessions[-1]
    return any(one.recorded == record.began for one in same.all_of_level(new.uuid, new.versions))


def _without_the_oldest(sessions: Sessions, anchor: Sessions, clock: str) -> tuple[Sessions, Sessions]:
    """Return KEPT_SESSIONS of a clock's sessions and all others, and the anchors with those of their own that went.

    An anchor whose level has no session left goes too.
    """
    kept, anchor = list(sessions), list(anchor)
    while sum(one.clock == clock for one in kept) > KEPT_SESSIONS:
        counts = Counter(_group(one) for one in kept if one.clock == clock)
        most = max(counts.values())
        oldest = next(one for one in kept if one.clock == clock and counts[_group(one)] == most)
        level = in_order([one for one in (*anchor, *kept) if _level(one) == _level(oldest)])
        kept = [one for one in kept if one is not oldest]
        if any(one is oldest for one in level[:ANCHOR_SESSIONS]):
            anchor.append(oldest)
    levels = {_level(one) for one in kept}
    return kept, [one for one in anchor if _level(one) in levels]


def _group(session: StoredSession) -> tuple[str, frozenset[tuple[str, str]]]:
    return session.uuid, frozenset(session.versions.items())


def _level(session: StoredSession) -> tuple[str, str, str]:
    return session.clock, session.uuid, session.level
