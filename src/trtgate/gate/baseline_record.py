"""What a baseline or a saved run stores of a case, as data."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import msgspec
import numpy as np

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
    base: str = ""
    """What it was measured beside (`trtgate ab`): such a record is no session of its own, and never a baseline."""

    def of_card(self, uuid: str) -> list[StoredSession]:
        """Return the sessions that a card is held against: its own, or, where it has none, all."""
        return [session for session in self.sessions if session.uuid == uuid] or self.sessions

    def began_for(self, uuid: str) -> str:
        """Return `recorded` of the first session that a card is held against: it stays until the case starts anew."""
        return (self.all_of_card(uuid) or [*self.anchor, *self.sessions])[0].recorded

    def all_of_card(self, uuid: str) -> list[StoredSession]:
        """Return all that is known of one card in the order in which it was stored: the anchor's sessions come first.

        A baseline of an older version has no `anchor`; the oldest sessions that it kept are taken for it.
        """
        return [session for session in (*self.anchor, *self.sessions) if session.uuid == uuid]

    def anchor_of(self, uuid: str) -> list[StoredSession]:
        """Return the sessions that the total change of a card is held against: its first, up to ANCHOR_SESSIONS."""
        return self.all_of_card(uuid)[:ANCHOR_SESSIONS]

    @property
    def anchored(self) -> bool:
        """Whether a card has sessions beyond its anchor, so that the change since then is a judgement of its own."""
        return any(len(self.all_of_card(uuid)) > ANCHOR_SESSIONS for uuid in self.cards)

    @property
    def cards(self) -> list[str]:
        """The cards that have sessions, those with most of them first."""
        return [uuid for uuid, _ in Counter(session.uuid for session in self.sessions).most_common()]


def change_since_anchor(record: CaseRecord) -> float | None:
    """Return how much slower the newest session of the card with most sessions is than its anchor, a fraction.

    None where it has no sessions beyond its anchor. A difference of means, no verdict.
    """
    uuid = record.cards[0]
    if len(record.all_of_card(uuid)) <= ANCHOR_SESSIONS:
        return None
    anchor = msgspec.structs.replace(record, sessions=record.anchor_of(uuid))
    newest = msgspec.structs.replace(record, sessions=record.all_of_card(uuid)[-1:])
    return typical_us(newest) / typical_us(anchor) - 1


def typical_us(record: CaseRecord, uuid: str | None = None) -> float:
    """Return the geometric mean over a record's sessions of its first metric (device latency, on a CPU host).

    With `uuid` over those that this card is held against.
    """
    sessions = record.sessions if uuid is None else record.of_card(uuid)
    metric = next(iter(sessions[-1].metrics))
    means = [session.log_launch_means(metric) for session in sessions]
    return math.exp(float(np.mean([np.mean(m) for m in means if m is not None])))
