"""What `trtgate verify` found, as `verify.json` holds it: what to send when an installation does not work."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..common.version import VERSION
from .doctor_facts import Facts

SCHEMA = 1
Outcome = Literal["ok", "failed", "not here"]
OK: Outcome = "ok"
FAILED: Outcome = "failed"
NOT_HERE: Outcome = "not here"


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one check."""

    name: str
    outcome: Outcome
    """"not here" is what this machine, build or release can't answer: no failure."""
    seconds: float
    said: str
    """What was seen, what is wrong and what to do, or why it can't be answered here."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """An installation and what became of each check, in the order in which they ran."""

    schema: int = SCHEMA
    trtgate: str = VERSION
    recorded: str
    """UTC, ISO 8601."""
    facts: Facts
    """The machine and its versions, as `trtgate doctor` has them; baselines are left out."""
    checks: list[CheckResult]

    @property
    def failed(self) -> list[CheckResult]:
        """The checks that failed."""
        return [check for check in self.checks if check.outcome == FAILED]
