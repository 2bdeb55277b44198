"""What a baseline or a saved run stores of a case, as data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from ..common.metrics import GRAPHS, OF_A_CALL
from ..records.measurement import CallCounts
from ..records.program_part import ProgramPart
from ..verdict import Judgement, launch_mean

ANCHOR_SESSIONS = 3
"""So many of a card's first sessions are its anchor."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The machine while a session measured a case; 0 and empty on a CPU."""

    sm_clock_mhz: float = 0.0
    temperature_c: float = 0.0
    power_w: float = 0.0
    throttle: list[str] = []
    canary_us: dict[str, float] = {}


class StoredSession(msgspec.Struct, frozen=True, kw_only=True):
    """One session's means of one case: metric → launch → capture, microseconds."""

    recorded: str
    uuid: str
    clock: str
    metrics: dict[str, list[list[float]]]
    state: State = State()
    versions: dict[str, str] = {}
    """What made it, as `Accelerator.versions` has it; empty in a file from before."""
    figures: dict[str, float] = {}
    """What is judged and was read off once, as `CaseRecord.figures` has it; empty in a file from before."""
    most_at_once: int = 0
    """How many threads, and processes, its metrics of load are of; 0 where it has none."""
    level: str = ""
    """`recorded` of the session that began the level which this one's total change is held against; empty where that is
    the card's first one."""
    program: ProgramPart | None = None
    """What was measured, beside the machine; None where that can't be said, and in a file from before."""
    machine: dict[str, str] = {}
    """The machine, as `known_programs.machine_part` has it; empty in a file from before."""
    proven: bool = False
    """Whether its run found the case unchanged or faster."""
    artifact: str = ""
    """As `Build` has it: which compiled module was measured."""
    runtime_cache: str = ""
    """As `CaseMeasurement` has it: where engines had their kernels from; empty in a file from before."""

    def log_launch_means(self, metric: str) -> np.ndarray | None:
        """Return one log mean a launch, or None when the session has no such metric."""
        launches = self.metrics.get(metric)
        return None if not launches else np.asarray([launch_mean(np.log(captures)) for captures in launches])


class CaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What `extra_info["trtgate"]` of a benchmark holds."""

    case: str
    settings: dict[str, Any]
    verdict: str
    sessions: list[StoredSession]
    figures: dict[str, float] = {}
    calls: CallCounts | None = None
    """What a call was counted to do on the host, and where."""
    disturbed: bool = False
    """Too many blocks did not count: never to be stored as a baseline."""
    judgements: list[Judgement] = []
    """What was said of each metric, and why; of a saved run."""
    anchor: list[StoredSession] = []
    """Sessions of the anchors that are no longer among `sessions`: they never go but with what they anchor."""
    unused: list[StoredSession] = []
    """Sessions whose latencies can't be any (`plausibility.py`): they stay stored, and nothing is judged by them."""
    began: str = ""
    """Of a saved run: `recorded` of the first session that it was judged by. If that is stored no more, the case was
    started anew meanwhile."""
    upgraded: bool = False
    """Of a saved run: whether it was judged by sessions of other versions than its own."""
    base: str = ""
    """What it was measured beside (`trtgate ab`): such a record is no session of its own, and never a baseline."""

    def of_clock(self, clock: str) -> CaseRecord:
        """Return the record of one clock: by what another clock read nothing is judged, and no mean is made with it.

        All that follows is asked of such a record.
        """
        sessions, anchor = ([one for one in some if one.clock == clock] for some in (self.sessions, self.anchor))
        return msgspec.structs.replace(self, sessions=sessions, anchor=anchor)

    def of_streams(self, streams: str) -> CaseRecord:
        """Return the record without graphs that were replayed in another state than that of `streams`, "one" or "many".

        Before it is measured a case has no clock: it may turn out to be of none of those that are left.
        """
        own = f"{GRAPHS}_{streams}_"
        sessions = [one for one in self.sessions if one.clock.startswith(own) or not one.clock.startswith(GRAPHS)]
        return msgspec.structs.replace(self, sessions=sessions)

    @property
    def clocks(self) -> dict[str, int]:
        """Clock → how many sessions it has, in the order in which they were first stored."""
        return dict(Counter(session.clock for session in self.sessions))

    def of_card(self, uuid: str) -> list[StoredSession]:
        """Return the sessions that a card is held against: its own, or, where it has none, all."""
        return [session for session in self.sessions if session.uuid == uuid] or self.sessions

    def compared_with(self, uuid: str, versions: Mapping[str, str]) -> list[StoredSession]:
        """Return the sessions that say where the case lies on a card with these versions.

        Of those that the card is held against the ones of the same versions or, where there are none, of the newest
        session's.
        """
        held = self.of_card(uuid)
        return [one for one in held if one.versions == versions] or [
            one for one in held if one.versions == held[-1].versions
        ]

    def figures_for(self, uuid: str, versions: Mapping[str, str]) -> dict[str, float]:
        """Return what was read off once by the newest session that a card is compared with."""
        return self.compared_with(uuid, versions)[-1].figures or self.figures

    def figures_like(self, now: Mapping[str, float], uuid: str, versions: Mapping[str, str]) -> dict[str, float]:
        """Return `figures_for`; of what a call is counted to do what is nearest to `now` within the sessions' range.

        The sessions are of the same code: where they differ the count varies by itself.
        """
        found, compared = dict(self.figures_for(uuid, versions)), self.compared_with(uuid, versions)
        for name in found.keys() & now.keys() & set(OF_A_CALL):
            counts = [one.figures[name] for one in compared if name in one.figures]
            if counts:
                found[name] = min(max(now[name], min(counts)), max(counts))
        return found

    def began_for(self, uuid: str, versions: Mapping[str, str]) -> str:
        """Return `recorded` of the first session of what a card is held against: it stays until that starts anew.

        Empty where nothing is stored.
        """
        known = self.all_of_level(uuid, versions) or [*self.anchor, *self.sessions]
        return known[0].recorded if known else ""

    def all_of_card(self, uuid: str) -> list[StoredSession]:
        """Return all that is known of one card in the order in which it was recorded, the anchor's sessions among it.

        A baseline of an older version has no `anchor`; the oldest sessions that it kept are taken for it.
        """
        return in_order([session for session in (*self.anchor, *self.sessions) if session.uuid == uuid])

    def all_of_level(self, uuid: str, versions: Mapping[str, str]) -> list[StoredSession]:
        """Return what is known of the card since its level began, over all versions: what `compared_with` is part of.

        Empty where the card has no session.
        """
        if uuid not in self.cards:
            return []
        level = self.compared_with(uuid, versions)[-1].level
        return [one for one in self.all_of_card(uuid) if one.level == level]

    def anchor_of(self, uuid: str, versions: Mapping[str, str]) -> list[StoredSession]:
        """Return the sessions that the total change of a card is held against: its level's first ANCHOR_SESSIONS."""
        return self.all_of_level(uuid, versions)[:ANCHOR_SESSIONS]

    def anchored_for(self, uuid: str, versions: Mapping[str, str]) -> bool:
        """Return whether a card has an anchor that says more than the sessions it is compared with."""
        anchor = self.anchor_of(uuid, versions)
        return bool(anchor) and anchor != self.compared_with(uuid, versions)

    @property
    def anchored(self) -> bool:
        """Whether there are a clock, a card and versions for which the change since the anchor is a judgement too."""
        return any(
            record.anchored_for(session.uuid, session.versions)
            for record in map(self.of_clock, self.clocks)
            for session in record.sessions
        )

    @property
    def cards(self) -> list[str]:
        """The cards that have sessions, those with most of them first."""
        return [uuid for uuid, _ in Counter(session.uuid for session in self.sessions).most_common()]


def in_order(sessions: Sequence[StoredSession]) -> list[StoredSession]:
    """Return sessions in the order in which they were recorded, those of the same second as they are given."""
    return sorted(sessions, key=lambda one: one.recorded)


def change_since_anchor(record: CaseRecord) -> float | None:
    """Return how much slower the newest session of the card with most sessions is than its anchor, a fraction.

    `record` is of one clock. None where the card has no anchor but its last sessions. A difference of means, no
    verdict.
    """
    newest = record.of_card(record.cards[0])[-1]
    if not record.anchored_for(newest.uuid, newest.versions):
        return None
    return _mean_us([newest]) / _mean_us(record.anchor_of(newest.uuid, newest.versions)) - 1


def typical_us(sessions: Sequence[StoredSession]) -> float:
    """Return the geometric mean of the first metric (device latency, on a CPU host latency), microseconds.

    Over the sessions of the newest one's clock and versions.
    """
    newest = sessions[-1]
    return _mean_us([one for one in sessions if (one.clock, one.versions) == (newest.clock, newest.versions)])


def _mean_us(sessions: Sequence[StoredSession]) -> float:
    metric = next(iter(sessions[-1].metrics))
    means = [session.log_launch_means(metric) for session in sessions]
    return math.exp(float(np.mean([np.mean(m) for m in means if m is not None])))
