"""A case that is to be measured on a card, and what a card is at."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from ..common.errors import TrtgateError
from ..launches.prebuild import Prebuilt
from ..records.measurement import Build
from ..suite.cases import Case
from .case_result import CaseResult


class CardLostError(TrtgateError):
    """A card, or its host, is gone: what it was at may be done elsewhere."""


@dataclass
class Job:
    """A case that is to be measured; `artifact` holds what was built of it if its frontend stores one."""

    case: Case
    artifact: Path | None = None
    build: Build | None = None
    """What building gave; None where the card that measures it is to build it first."""
    cost_s: float | None = None
    """What measuring it took before; None where that is not known."""
    home: str = ""
    """The card that it is to be measured on; empty where any will do."""
    timed: bool = True
    """Whether it is measured at all, once it is built."""
    lost: str = ""
    """Why the card that had it first is gone."""
    built: Future[Prebuilt] = field(default_factory=Future)
    result: Future[CaseResult] = field(default_factory=Future)

    def fail(self, error: BaseException) -> None:
        """Let whoever waits for it have the error."""
        for future in (self.built, self.result):
            if not future.done():
                future.set_exception(error)


@dataclass
class CardState:
    """What a card may do at once, what it is at, how many cases it has done, and why it is gone."""

    host: str = ""
    builders: int = 1
    """How many cases it may build at once."""
    together: int = 1
    """How many cases it may load together."""
    steps: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Case that is under way → its step, and since when (`time.monotonic`)."""
    given: float = 0.0
    """What its cases take to be measured: those that it has had and those that no other card may have."""
    done: int = 0
    lost: str = ""
