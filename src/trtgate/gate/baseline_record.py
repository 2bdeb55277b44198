"""What a baseline or a saved run stores of a case, as data."""

from __future__ import annotations

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
    base: str = ""
    """What it was measured beside (`trtgate ab`): such a record is no session of its own, and never a baseline."""

    def of_card(self, uuid: str) -> list[StoredSession]:
        """Return the sessions that a card is held against: its own, or, where it has none, all."""
        return [session for session in self.sessions if session.uuid == uuid] or self.sessions

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
