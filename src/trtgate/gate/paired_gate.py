"""Judges a case by pairs of launches: screened in the resident pair, what is suspected confirmed by fresh ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from ..common.steps import OnStep
from ..launches.pair import BASE, CANDIDATE, Artifacts, Pair
from ..launches.pair_session import PairSession
from ..records.measurement import CaseMeasurement, Quadruple
from ..verdict import LAUNCH_SDS, LOOKS, QUADRUPLES_A_PAIR, Judgement, judge_confirmed, judge_screened
from . import judging
from .judging import LimitOf


class Screened(msgspec.Struct, kw_only=True):
    """What one pair of launches said; `regressed` in it is a suspicion."""

    base: CaseMeasurement
    candidate: CaseMeasurement
    judgements: list[Judgement]
    quadruples: list[Quadruple] = []
    delay: float = 0.0
    """By which share the candidate was slower on purpose, as measured."""

    @property
    def incomparable(self) -> str:
        """Why the two can't be compared; empty when they can."""
        if self.base.clock == self.candidate.clock:
            return ""
        return f"the base was timed with the clock {self.base.clock}, the candidate with {self.candidate.clock}"


class Suspicion(msgspec.Struct, frozen=True, kw_only=True):
    """A case and those of its metrics that fresh pairs are to confirm or refute."""

    case_id: str
    artifacts: Artifacts
    metrics: tuple[str, ...]
    delay: float = 0.0


class PairedGate:
    """The two stages, on the pairs of a session."""

    def __init__(self, pairs: PairSession) -> None:
        self.pairs = pairs

    def screen(
        self, pair: Pair, case_id: str, limit_of: LimitOf, tests: int, step: OnStep, *, delay: float = 0.0
    ) -> Screened:
        """Measure quadruples of what a pair has loaded until its primary metric is decided at a planned look.

        `delay` slows the candidate on purpose. Raises SideError or DisturbedError.
        """
        judged: list[Judgement] = []

        def enough(pair: Pair) -> bool:
            if len(pair.quadruples) not in LOOKS:
                return False
            measured = pair.measurement(case_id, CANDIDATE)
            found = [
                judge_screened(
                    metric,
                    judging.pair_differences(pair.quadruples, metric, measured.primary),
                    judging.typical_base(pair.quadruples, metric, measured.primary),
                    limit=limit_of(metric),
                    tests=tests,
                    launch_sd=0.0 if metric == measured.primary else LAUNCH_SDS[metric],
                )
                for metric in (measured.primary, *(m for m in measured.metrics if m != measured.primary))
            ]
            judged[:] = [judgement for judgement, _ in found]
            primary_is_open = found[0][1]
            return not primary_is_open

        delayed = self.pairs.measure(pair, enough, step, delay=delay)
        return Screened(
            base=pair.measurement(case_id, BASE),
            candidate=pair.measurement(case_id, CANDIDATE),
            judgements=list(judged),
            quadruples=pair.quadruples,
            delay=delayed,
        )

    def confirm(
        self,
        suspicions: Sequence[Suspicion],
        limit_of: LimitOf,
        tests: int,
        step: OnStep,
        started: Sequence[Pair] = (),
    ) -> list[list[Judgement]]:
        """Measure fresh pairs until every suspected metric is confirmed or refuted, or the last look is reached.

        Returns the judgements of each suspicion; all of them are measured in the same fresh pairs. `started` are fresh
        pairs that have not measured anything yet; they are ended, as are all others. Raises SideError or
        DisturbedError.
        """
        measured: list[list[list[Quadruple]]] = [[] for _ in suspicions]
        primary: list[str] = ["" for _ in suspicions]
        judged: list[list[tuple[Judgement, bool]]] = [[] for _ in suspicions]
        open_ = list(range(len(suspicions)))
        so_far = 0
        for look in LOOKS:
            step(f"suspected: measuring {look - so_far} fresh pairs of processes")
            fresh = [*started, *self.pairs.start(look - so_far - len(started))]
            so_far, started = look, ()
            try:
                for number in open_:
                    for pair in self._measured(fresh, suspicions[number], step):
                        primary[number] = pair.measurement(suspicions[number].case_id, CANDIDATE).primary
                        measured[number].append(pair.quadruples)
            finally:
                for pair in fresh:
                    self.pairs.end(pair)
            for number in open_:
                judged[number] = [
                    self._judged(metric, measured[number], primary[number], limit_of(metric), tests)
                    for metric in suspicions[number].metrics
                ]
            open_ = [number for number in open_ if any(more for _, more in judged[number])]
            if not open_:
                break
        return [[judgement for judgement, _ in found] for found in judged]

    def _measured(self, fresh: Sequence[Pair], suspicion: Suspicion, step: OnStep) -> Iterator[Pair]:
        """Load a case in fresh pairs, as many at once as the device's memory holds, and measure them one by one."""
        for some in batched(fresh, self.pairs.at_once(suspicion.case_id)):
            step(f"loading in {len(some)} fresh pairs")
            self.pairs.load(some, suspicion.case_id, suspicion.artifacts)
            for pair in some:
                self.pairs.measure(pair, _has_measured_enough, step, delay=suspicion.delay)
                yield pair
                pair.unload()

    @staticmethod
    def _judged(
        metric: str, measured: Sequence[Sequence[Quadruple]], primary: str, limit: float, tests: int
    ) -> tuple[Judgement, bool]:
        means = np.asarray([np.mean(judging.pair_differences(q, metric, primary)) for q in measured])
        base = judging.typical_base([quadruple for q in measured for quadruple in q], metric, primary)
        return judge_confirmed(metric, means, base, limit=limit, tests=tests)


def confirmed(
    pairs: PairSession, suspicion: Suspicion, limit_of: LimitOf, tests: int, step: OnStep
) -> dict[str, Judgement]:
    """Return what fresh pairs say of each suspected metric of one case. Raises SideError or DisturbedError."""
    (found,) = PairedGate(pairs).confirm([suspicion], limit_of, tests, step)
    return {judgement.metric: judgement for judgement in found}


def batched(pairs: Sequence[Pair], size: int) -> Iterator[Sequence[Pair]]:
    """Return consecutive parts of at most `size` (itertools.batched is Python 3.12's)."""
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def _has_measured_enough(pair: Pair) -> bool:
    return len(pair.quadruples) >= QUADRUPLES_A_PAIR
