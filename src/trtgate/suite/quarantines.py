"""Cases that are measured and shown and fail nothing, for a reason and until a day."""

from __future__ import annotations

import datetime

import msgspec

from ..common.errors import TrtgateError


class Quarantine(msgspec.Struct, frozen=True):
    """The reason why a case fails nothing, and the last day of that."""

    reason: str
    until: datetime.date

    def __str__(self) -> str:
        return f"quarantined until {self.until} ({self.reason})"

    def expired(self, today: datetime.date) -> bool:
        """Whether its last day is over."""
        return today > self.until


def quarantine(reason: str, *, until: str | datetime.date) -> Quarantine:
    """Declare a quarantine: `quarantine=trtgate.quarantine("issue 12", until="2026-12-31")` in a suite.

    Quarantined cases are measured and shown, but their tests do not fail. From the day after `until` on, their
    latency tests fail. Raises TrtgateError if the reason is empty, or `until` is no ISO date.
    """
    said = " ".join(reason.split()) if isinstance(reason, str) else ""
    if not said:
        raise TrtgateError(f"quarantine({reason!r}, …): say why, such as the issue that ends it")
    return Quarantine(said, _day(until))


def in_force(quarantine: Quarantine | None) -> Quarantine | None:
    """Return the quarantine if there is one and it has not expired."""
    return None if quarantine is None or quarantine.expired(today()) else quarantine


def today() -> datetime.date:
    """Return the day that quarantines are held against."""
    return datetime.date.today()


def _day(until: object) -> datetime.date:
    if isinstance(until, datetime.datetime):
        return until.date()
    if isinstance(until, datetime.date):
        return until
    try:
        return datetime.date.fromisoformat(str(until))
    except ValueError:
        raise TrtgateError(f"quarantine(…, until={until!r}): write a date such as 2026-12-31") from None
