"""What came of one case: what was measured, the verdict, and the sentence that explains it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .. import verdict
from ..common.metrics import EXACT
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


def adjust(results: Iterable[CaseResult]) -> None:
    """Add Holm's adjusted p-values to all judgements that have an error rate, once all of them are known."""
    judged = [
        (result, number)
        for result in results
        for number, judgement in enumerate(result.judgements)
        if judgement.metric not in EXACT
    ]
    adjusted = verdict.adjusted([result.judgements[number].p for result, number in judged])
    for (result, number), p_adjusted in zip(judged, adjusted, strict=True):
        replaced = msgspec.structs.replace(result.judgements[number], p_adjusted=p_adjusted)
        result.judgements[number] = replaced
