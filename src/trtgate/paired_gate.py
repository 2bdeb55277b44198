"""Judges a case by pairs of launches: screened in the resident pair, what is suspected confirmed by fresh ones."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from . import judging
from .judging import LimitOf
from .pairs import BASE, CANDIDATE, Artifacts, Pair, PairSession
from .records import CaseMeasurement, Quadruple
from .session import Step
from .verdict import LOOKS, QUADRUPLES_A_PAIR, Judgement, judge_confirmed, judge_screened


class Screened(msgspec.Struct, kw_only=True):
    """What one pair of launches said; `regressed` in it is a suspicion."""

    base: CaseMeasurement
    candidate: CaseMeasurement
    judgements: list[Judgement]

    @property
    def comparable(self) -> str:
        """Why the two can't be compared; empty when they can."""
        if self.base.clock == self.candidate.clock:
            return ""
        return f"the base was timed with the clock {self.base.clock}, the candidate with {self.candidate.clock}"


class PairedGate:
    """The two stages, on the pairs of a session."""

    def __init__(self, pairs: PairSession) -> None:
        self.pairs = pairs

    def screen(
        self, case_id: str, artifacts: Artifacts, limit_of: LimitOf, tests: int, step: Step, pair: Pair | None = None
    ) -> Screened:
        """Measure quadruples in one pair (the resident one unless another is given) until each metric is decided.

        Raises SideError or DisturbedError.
        """
        pair = pair or self.pairs.resident()
        judged: list[Judgement] = []

        def enough(pair: Pair) -> bool:
            if len(pair.quadruples) not in LOOKS:
                return False
            found = [
                judge_screened(
                    metric,
                    judging.pair_differences(pair.quadruples, metric, primary),
                    judging.typical_base(pair.quadruples, metric, primary),
                    limit=limit_of(metric),
                    tests=tests,
                )
                for primary in [_primary(pair, case_id)]
                for metric in _metrics(pair, case_id)
            ]
            judged[:] = [judgement for judgement, _ in found]
            primary_open = found[0][1]
            return not primary_open or len(pair.quadruples) >= LOOKS[-1]

        self.pairs.measure(pair, case_id, artifacts, enough, step)
        return Screened(
            base=pair.measurement(case_id, BASE),
            candidate=pair.measurement(case_id, CANDIDATE),
            judgements=list(judged),
        )

    def confirm(
        self, case_id: str, artifacts: Artifacts, metrics: Sequence[str], limit_of: LimitOf, tests: int, step: Step
    ) -> list[Judgement]:
        """Measure fresh pairs until every suspected metric is confirmed or refuted, or the last look is reached.

        Raises SideError or DisturbedError.
        """
        measured: list[list[Quadruple]] = []
        primary = ""
        judged: list[tuple[Judgement, bool]] = []
        for look in LOOKS:
            step(f"suspected: measuring {look - len(measured)} fresh pairs of processes")
            fresh = self.pairs.start(look - len(measured))
            try:
                for pair in fresh:
                    self.pairs.measure(pair, case_id, artifacts, _has_measured_enough, step)
                    primary = _primary(pair, case_id)
                    measured.append(pair.quadruples)
                    self.pairs.end(pair)
            finally:
                for pair in fresh:
                    self.pairs.end(pair)
            judged = [self._judged(metric, measured, primary, limit_of(metric), tests) for metric in metrics]
            if not any(open_ for _, open_ in judged):
                break
        return [judgement for judgement, _ in judged]

    @staticmethod
    def _judged(
        metric: str, measured: Sequence[Sequence[Quadruple]], primary: str, limit: float, tests: int
    ) -> tuple[Judgement, bool]:
        means = np.asarray([np.mean(judging.pair_differences(q, metric, primary)) for q in measured])
        base = judging.typical_base([quadruple for q in measured for quadruple in q], metric, primary)
        return judge_confirmed(metric, means, base, limit=limit, tests=tests)


def _has_measured_enough(pair: Pair) -> bool:
    return len(pair.quadruples) >= QUADRUPLES_A_PAIR


def _primary(pair: Pair, case_id: str) -> str:
    return pair.measurement(case_id, CANDIDATE).primary


def _metrics(pair: Pair, case_id: str) -> tuple[str, ...]:
    return pair.measurement(case_id, CANDIDATE).metrics
