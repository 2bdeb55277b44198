"""Drives pairs of launches through the looks of the policy: screened in one pair, suspects confirmed by fresh ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ..common.metrics import DEVICE
from ..common.steps import OnStep
from ..launches.pair import BASE, CANDIDATE, Artifacts, DisturbedError, Pair
from ..launches.pair_session import PairSession
from ..records.measurement import CaseMeasurement, Quadruple
from ..verdict import LOOKS, Judgement
from . import policy
from .judging import LimitOf


class Screened(msgspec.Struct, frozen=True, kw_only=True):
    """What one pair of launches said; `regressed` in it is a suspicion."""

    base: CaseMeasurement
    candidate: CaseMeasurement
    judgements: list[Judgement]
    quadruples: list[Quadruple]
    delay: float
    """By which share the candidate was slower on purpose, as measured."""


class Suspicion(msgspec.Struct, frozen=True, kw_only=True):
    """A case and those of its metrics that fresh pairs are to confirm or refute."""

    case_id: str
    artifacts: Artifacts
    metrics: tuple[str, ...]
    delay: float = 0.0


class PairedGate:
    """The two stages, on the pairs of a session. All raise SideError or DisturbedError; a delay: DelayRefusedError."""

    def __init__(self, pairs: PairSession) -> None:
        self.pairs = pairs

    def screen(
        self, pair: Pair, case_id: str, limit_of: LimitOf, tests: int, step: OnStep, *, delay: float = 0.0
    ) -> Screened:
        """Measure quadruples of what a pair has loaded until a planned look needs no more, as `policy.screened` says.

        `delay` slows the candidate on purpose.
        """
        judged: list[Judgement] = []

        def enough(pair: Pair) -> bool:
            judged[:], more = policy.screened(pair.quadruples, pair.measurement(case_id, CANDIDATE), limit_of, tests)
            return not more

        delayed = self.pairs.measure(pair, enough, step, delay=delay)
        return Screened(
            base=pair.measurement(case_id, BASE),
            candidate=pair.measurement(case_id, CANDIDATE),
            judgements=judged,
            quadruples=pair.quadruples,
            delay=delayed,
        )

    def measure(
        self, suspicions: Sequence[Suspicion], count: int, limit_of: LimitOf, step: OnStep,
        started: Sequence[Pair] = (),
    ) -> list[list[list[Quadruple]]]:  # fmt: skip
        """Measure suspicions in `count` pairs, all in the same; returns the quadruples of each pair for each.

        A pair has not measured any of the cases before. `started` are such pairs; they are the session's again then, as
        are all others.
        """
        step(f"suspected: measuring {count} fresh pairs of processes")
        cases = {suspicion.case_id for suspicion in suspicions}
        fresh = [*started, *self.pairs.take(count - len(started), cases)]
        try:
            found = [list(self._measured(fresh, suspicion, limit_of, step)) for suspicion in suspicions]
        except BaseException:
            for pair in fresh:
                self.pairs.end(pair)
            raise
        self.pairs.put_back(fresh)
        return found

    def confirm(
        self, suspicions: Sequence[Suspicion], limit_of: LimitOf, tests: int, step: OnStep,
        started: Sequence[Pair] = (),
    ) -> list[list[Judgement]]:  # fmt: skip
        """Measure fresh pairs until every suspected metric of all cases is decided, or to the last look.

        Returns the judgements of each suspicion; `started` as `measure` has it.
        """
        measured: list[list[list[Quadruple]]] = [[] for _ in suspicions]
        judged: list[list[Judgement]] = [[] for _ in suspicions]
        left = dict.fromkeys(range(len(suspicions)), LOOKS[0])
        while left:
            count = next(iter(left.values()))  # all of them are at the same look
            found = self.measure([suspicions[number] for number in left], count, limit_of, step, started)
            started = ()
            for number, more in zip(list(left), found, strict=True):
                measured[number] += more
                primary = policy.primary_of(measured[number])
                metrics = suspicions[number].metrics
                said, left[number] = policy.confirmed_by_pairs(measured[number], metrics, primary, limit_of, tests)
                judged[number] = list(said.values())
            left = {number: count for number, count in left.items() if count}
        return judged

    def _measured(
        self, fresh: Sequence[Pair], suspicion: Suspicion, limit_of: LimitOf, step: OnStep
    ) -> Iterator[list[Quadruple]]:
        """Load a case in fresh pairs, as many at once as the device's memory holds, and measure them one by one."""

        def enough(pair: Pair) -> bool:
            return policy.pair_tells(pair.quadruples, suspicion.metrics, limit_of)

        for some in batched(fresh, self.pairs.at_once(suspicion.case_id)):
            step(f"loading in {len(some)} fresh pairs")
            self.pairs.load(some, suspicion.case_id, suspicion.artifacts)
            for pair in some:
                self.pairs.measure(pair, enough, step, delay=suspicion.delay, device=DEVICE in suspicion.metrics)
                _check_clocks(pair.quadruples)
                yield pair.quadruples
                pair.unload()


def _check_clocks(quadruples: Sequence[Quadruple]) -> None:
    """Raise DisturbedError where the sides were not timed with one clock: their latencies can't be compared."""
    base, candidate = ({turn.clock for one in quadruples for turn in getattr(one, side)} for side in (BASE, CANDIDATE))
    if base != candidate or len(base) > 1:
        before, now = ("+".join(sorted(clocks)) for clocks in (base, candidate))
        raise DisturbedError(f"the base was timed with the clock {before}, the candidate with {now}")


def in_fresh_pairs(
    pairs: PairSession, situation: policy.Situation, artifacts: Artifacts, wanted: policy.Pair, step: OnStep
) -> list[list[Quadruple]]:
    """Measure what the policy asks for in fresh pairs; returns the quadruples of each. Raises as `PairedGate`."""
    suspicion = Suspicion(case_id=situation.case.id, artifacts=artifacts, metrics=wanted.metrics)
    return PairedGate(pairs).measure([suspicion], wanted.count, situation.limit_of, step)[0]


def batched(pairs: Sequence[Pair], size: int) -> Iterator[Sequence[Pair]]:
    """Return consecutive parts of at most `size` (itertools.batched is Python 3.12's)."""
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]
