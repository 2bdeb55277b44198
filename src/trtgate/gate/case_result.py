"""What came of one case: what was measured, the verdict, and the sentence that explains it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from .. import verdict
from ..common.metrics import NO_ERROR_RATE
from ..common.notices import Notice
from ..records.measurement import CaseMeasurement
from ..verdict import Judgement, Verdict


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate concludes: the verdict (None when nothing was to be judged) and the sentence that explains it."""

    case_id: str
    measurement: CaseMeasurement
    verdict: Verdict | None = None
    sentence: str = ""
    judgements: list[Judgement] = []
    stored: bool = False
    """Whether the run may store it as a baseline."""
    void: str = ""
    """Why so few of its blocks count that nothing could be judged; empty where enough do."""
    base: CaseMeasurement | None = None
    """What was measured beside it, if anything."""
    moved: str = ""
    """Why it is red although no metric got worse: nothing that decides its latency differs, and it moved."""
    checked: bool = False
    """Whether it is the same as a proven session, and was measured all the same, at random."""
    notices: tuple[Notice, ...] = ()
    """What else is worth saying at the end."""

    @property
    def suspected(self) -> bool:
        """Whether something looked worse, and measuring again could neither confirm nor refute it."""
        return any(judgement.suspected is not None for judgement in self.judgements)


def adjusted(results: Mapping[str, CaseResult]) -> dict[str, CaseResult]:
    """Return results with Holm's adjusted p-values in all judgements that have an error rate, once all are known."""
    ps = [one.p for result in results.values() for one in result.judgements if one.metric not in NO_ERROR_RATE]
    left = iter(verdict.adjusted(ps))
    replace = msgspec.structs.replace
    return {
        name: replace(
            result,
            judgements=[
                one if one.metric in NO_ERROR_RATE else replace(one, p_adjusted=next(left)) for one in result.judgements
            ],
        )
        for name, result in results.items()
    }
