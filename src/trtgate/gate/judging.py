"""Which judgements follow from a measurement and what is stored, or from pairs of launches: evidence to statistics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .. import verdict
from ..common.accelerator import Accelerator
from ..common.metrics import BUILD, ENQUEUE, EXACT, GPU_MEMORY, HOST, LEAF_ERROR, METRICS, SAMPLED
from ..records.measurement import CaseMeasurement, Quadruple, Turn
from ..suite.cases import Case
from ..verdict import Judgement
from . import measurement_summary
from .baseline_record import CaseRecord

LimitOf = Callable[[str], float]
"""Metric → the largest tolerated change, a fraction."""

OF_THE_BUILD = frozenset({BUILD, *EXACT} - {GPU_MEMORY})
"""Metrics that another build of the same code may change: built again before a regression is believed."""


def statistical_metrics(case: Case, *, gpu: bool) -> tuple[str, ...]:
    """Return the metrics of a case that are judged with an error rate, which is shared among them."""
    sampled = SAMPLED if gpu else (HOST,)
    return (*sampled, BUILD) if case.settings.uses_tensorrt else sampled


def counted_metrics(case: Case) -> tuple[str, ...]:
    """Return the metrics of a case that are read off once: all of them where TensorRT builds engines."""
    return (BUILD, *EXACT) if case.settings.uses_tensorrt else (GPU_MEMORY, LEAF_ERROR)


def against_stored(
    case: Case,
    measurement: CaseMeasurement,
    record: CaseRecord,
    accelerator: Accelerator,
    limit_of: LimitOf,
    tests: int,
) -> list[Judgement]:
    """Judge every metric that both have; `regressed` is a suspicion.

    By this very card's sessions, if there are any; other cards then say no more than how far sessions lie apart. How
    far another card of the key lies off no number of one card's sessions can tell, so on a card that has none each
    other card counts once.
    """
    judged = []
    for metric in measurement.metrics:
        of_cards: dict[str, list[np.ndarray]] = {}
        for session in record.sessions:
            means = session.log_launch_means(metric)
            if means is not None:
                of_cards.setdefault(session.uuid, []).append(means)
        if not of_cards:
            continue
        own = of_cards.pop(accelerator.uuid, None)
        others = f"stored sessions of {len(of_cards)} {verdict.OTHER_CARD}{'s' * (len(of_cards) > 1)}"
        kind = "cpu" if accelerator.kind == "cpu" else metric
        judged.append(
            verdict.judge_stored(
                metric,
                verdict.log_launch_means(measurement.samples(metric)),
                own or [np.concatenate(sessions) for sessions in of_cards.values()],
                verdict.PRIORS[kind, own is not None],
                limit=limit_of(metric),
                tests=tests,
                others=list(of_cards.values()) if own else [],
                evidence="" if own else others,
            )
        )
    return judged + counted(case, measurement_summary.figures(measurement), record.figures, limit_of, tests)


def counted(
    case: Case, now: Mapping[str, float], before: Mapping[str, float], limit_of: LimitOf, tests: int
) -> list[Judgement]:
    """Judge what is read off once, from two records' figures; build time by what is known of its spread."""
    judged = []
    for name in counted_metrics(case):
        metric = METRICS[name]
        if metric.figure not in now or metric.figure not in before:
            continue
        value, baseline, limit = now[metric.figure], before[metric.figure], limit_of(name)
        if name in EXACT:
            judged.append(verdict.judge_exact(name, value, baseline, limit=limit, resolution=metric.resolution))
        elif value > 0 and baseline > 0:
            one, other = np.log([value]), [np.log([baseline])]
            judged.append(verdict.judge_stored(name, one, other, verdict.PRIORS[name, True], limit=limit, tests=tests))
    return judged


def pair_values(quadruples: Sequence[Quadruple], metric: str, side: str, primary: str) -> np.ndarray:
    """Return a metric of one side, microseconds: (quadruples, 2), each the median of its turn."""
    return np.asarray([[_typical(turn, metric, primary) for turn in getattr(q, side)] for q in quadruples])


def _typical(turn: Turn, metric: str, primary: str) -> float:
    if metric == primary:
        return statistics.median(us for capture in turn.captures for us in capture.blocks_us)
    return statistics.median({HOST: turn.host_us, ENQUEUE: turn.enqueue_us}[metric])


def pair_differences(quadruples: Sequence[Quadruple], metric: str, primary: str) -> np.ndarray:
    """Return d of every quadruple: ½·Σ ln(candidate / base)."""
    base, candidate = (pair_values(quadruples, metric, side, primary) for side in ("base", "candidate"))
    return verdict.differences(base, candidate)


def typical_base(quadruples: Sequence[Quadruple], metric: str, primary: str) -> float:
    """Return the base's geometric mean, microseconds."""
    return math.exp(float(np.mean(np.log(pair_values(quadruples, metric, "base", primary)))))
