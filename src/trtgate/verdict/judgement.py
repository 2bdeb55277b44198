"""What is said of a case and of each of its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

OTHER_CARD = "other card"
"""What stands in the evidence where none of it is of this very card."""


class Verdict(StrEnum):
    """What a run says of a case; docs/verdicts.md says how it is reached."""

    UNCHANGED = "unchanged"
    IMPROVED = "improved"
    REGRESSED = "regressed"
    UNCONFIRMED = "unconfirmed"
    UNDERPOWERED = "underpowered"
    NEW = "new"
    MISSING = "missing"
    INCOMPARABLE = "incomparable"
    SAME = "same"
    """Its device latency was not measured, on purpose: what decides it is as in a proven session."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one case against its baseline or base. Changes are fractions: 0.012 is 1.2 % more."""

    metric: str
    verdict: Verdict
    now: float
    """In the metric's unit, as is `baseline`."""
    baseline: float
    change: float
    low: float
    """`low` to `high` is the interval of the change, each side at PROOF_ALPHA."""
    high: float
    limit: float
    threshold: float
    """The change beyond which it counts as a regression: never tighter than `limit`."""
    detectable: float
    """Minimum detectable effect: the change that would be flagged with probability POWER."""
    evidence: str
    """What the interval rests on: "3 stored sessions", "stored sessions of 2 other cards", "6 pairs of launches"."""
    p: float = 1.0
    """One-sided p-value of "the change is at most the limit"; not yet corrected for the number of tests."""
    p_adjusted: float | None = None
    """The same after Holm, over all that the run judged with an error rate; for reports, once the run is over."""
    since_anchor: bool = False
    """Whether it is the total change since the first sessions of this card, which `evidence` names with their date."""
    suspected: float | None = None
    """The change that a first measurement showed, where measuring again could neither confirm nor refute it."""
    groups: str = ""
    """How many launches are how many times slower than the others; empty where they are one group."""

    @property
    def suspicious(self) -> bool:
        """Whether it asks for a second look: it is slower, or too noisy to tell since some launches are slower."""
        return self.verdict is Verdict.REGRESSED or (self.verdict is Verdict.UNDERPOWERED and bool(self.groups))


def case_verdict(judgements: Sequence[Judgement], primary: str) -> Verdict:
    """Return a case's verdict from its metrics'.

    Any metric that regressed decides, then any suspicion that is neither confirmed nor refuted (`underpowered`), then
    any that is refuted (`unconfirmed`). Without a suspicion `unchanged`, `improved` and `underpowered` are said of the
    primary metric: a noisy host latency can rarely be proven unchanged, and that must not hide what is proven.
    """
    said = {judgement.verdict for judgement in judgements}
    if Verdict.REGRESSED in said:
        return Verdict.REGRESSED
    if any(judgement.suspected is not None for judgement in judgements):
        return Verdict.UNDERPOWERED
    if Verdict.UNCONFIRMED in said:
        return Verdict.UNCONFIRMED
    return next(judgement.verdict for judgement in judgements if judgement.metric == primary)
