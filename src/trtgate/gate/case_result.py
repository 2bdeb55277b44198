"""What came of one case: what was measured, the verdict, and the sentence that explains it."""

from __future__ import annotations

import msgspec

from .. import verdict
from ..profiles.difference_text import LayerChange
from ..records.measurement import CaseMeasurement
from ..verdict import Judgement, Verdict
from .sentences import sentence


class CaseResult(msgspec.Struct, kw_only=True):
    """One case's outcome: the verdict (None when nothing was to be judged) and the sentence that explains it."""

    case_id: str
    measurement: CaseMeasurement
    verdict: Verdict | None = None
    sentence: str = ""
    judgements: list[Judgement] = []
    stored: bool = False
    """Whether the run may store it as a baseline."""
    base: CaseMeasurement | None = None
    """What was measured beside it, if anything."""
    where: str = ""
    """In which layers a regressed case lost its time."""
    layer_changes: list[LayerChange] = []
    """The largest of them."""

    def conclude(self, judgements: list[Judgement]) -> None:
        """Let the verdict follow from the judgements of all metrics, and say it."""
        primary = self.measurement.primary
        self.judgements = judgements
        self.verdict = verdict.case_verdict(judgements, primary)
        self.sentence = sentence(self.case_id, self.verdict, judgements, primary)
