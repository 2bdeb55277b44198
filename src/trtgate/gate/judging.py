"""Which judgements follow from a measurement and what is stored, or from pairs of launches: evidence to statistics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from .. import verdict
from ..common.accelerator import Accelerator
from ..common.metrics import BUILD, ENQUEUE, EXACT, GPU_MEMORY, HOST, LEAF_ERROR, METRICS, SAMPLED
from ..records.measurement import CaseMeasurement, Quadruple, Turn
from ..suite.cases import Case
from ..verdict import Judgement, Verdict
from . import measurement_summary
from .baseline_record import ANCHOR_SESSIONS, CaseRecord, StoredSession

LimitOf = Callable[[str], float]
"""Metric → the largest tolerated change, a fraction."""

ANCHOR_LIMITS = 3.0
"""So many times its limit may a metric get worse in all since the anchor."""
OF_THE_BUILD = frozenset({BUILD, *EXACT} - {GPU_MEMORY})
"""Metrics that another build of the same code may change: built again before a regression is believed."""


def statistical_metrics(case: Case, *, gpu: bool) -> tuple[str, ...]:
    """Return the metrics of a case that are judged with an error rate, which is shared among them."""
    sampled = sampled_metrics(gpu=gpu)
    return (*sampled, BUILD) if case.settings.uses_tensorrt else sampled


def sampled_metrics(*, gpu: bool) -> tuple[str, ...]:
    """Return the metrics that launches measure block by block."""
    return SAMPLED if gpu else (HOST,)


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

    Compare with sessions from the same physical GPU. If there are none, use one observation per other GPU: repeated
    sessions on one GPU do not reveal how GPUs differ. The total change since the anchor stands in for the change since
    the last sessions where it is the worse of the two.
    """
    totals = since_anchor(measurement, record, accelerator, limit_of, tests)
    judged = []
    for metric in measurement.metrics:
        of_cards = _of_cards(record.sessions, metric)
        if not of_cards:
            continue
        own = of_cards.pop(accelerator.uuid, None)
        others = f"stored sessions of {len(of_cards)} {verdict.OTHER_CARD}{'s' * (len(of_cards) > 1)}"
        recent = verdict.judge_stored(
            metric,
            verdict.log_launch_means(measurement.samples(metric)),
            own or [np.concatenate(sessions) for sessions in of_cards.values()],
            _prior(accelerator, metric, own=own is not None),
            limit=limit_of(metric),
            tests=tests,
            others=list(of_cards.values()) if own else [],
            evidence="" if own else others,
            ordered=own is not None,
        )
        judged.append(_worse(recent, totals.get(metric)))
    return judged + counted(case, measurement_summary.figures(measurement), record.figures, limit_of, tests)


def since_anchor(
    measurement: CaseMeasurement, record: CaseRecord, accelerator: Accelerator, limit_of: LimitOf, tests: int
) -> dict[str, Judgement]:
    """Judge the total change of each sampled metric since the anchor of this card, by ANCHOR_LIMITS times its limit.

    Empty where the anchor is all that is stored: the last sessions say as much. How far sessions lie apart is
    estimated from all sessions, since the anchor's are few.
    """
    uuid, known = accelerator.uuid, record.all_of_card(accelerator.uuid)
    anchor = known[:ANCHOR_SESSIONS]
    judged = {}
    if len(known) == len(anchor) or {one.clock for one in known} != {measurement.clock}:
        return {}
    for metric in measurement.metrics:
        others = _of_cards([one for one in record.sessions if one.uuid != uuid], metric)
        if any(metric not in one.metrics for one in known):
            continue
        found = verdict.judge_stored(
            metric,
            verdict.log_launch_means(measurement.samples(metric)),
            _of_cards(known, metric)[uuid],
            _prior(accelerator, metric, own=True),
            limit=ANCHOR_LIMITS * limit_of(metric),
            tests=tests,
            others=list(others.values()),
            evidence=f"the anchor of {anchor[0].recorded[:10]}".removesuffix(" of "),
            anchor=len(anchor),
        )
        judged[metric] = msgspec.structs.replace(found, since_anchor=True)
    return judged


def _of_cards(sessions: Sequence[StoredSession], metric: str) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for session in sessions:
        means = session.log_launch_means(metric)
        if means is not None:
            found.setdefault(session.uuid, []).append(means)
    return found


def _prior(accelerator: Accelerator, metric: str, *, own: bool) -> verdict.Prior:
    return verdict.PRIORS["cpu" if accelerator.kind == "cpu" else metric, own]


def _worse(recent: Judgement, total: Judgement | None) -> Judgement:
    """Return the total change where it is a regression or can't be told, and the recent one is not as bad."""
    badness = {Verdict.UNDERPOWERED: 1, Verdict.REGRESSED: 2}
    if total is not None and badness.get(total.verdict, 0) > badness.get(recent.verdict, 0):
        return total
    return recent


def drift(measurement: CaseMeasurement, record: CaseRecord, accelerator: Accelerator) -> str:
    """Return that the sessions of this card and this one get slower one after the other; empty where they do not."""
    means = _of_cards(record.sessions, measurement.primary).get(accelerator.uuid, [])
    now = verdict.log_launch_means(measurement.samples(measurement.primary))
    over = [float(np.mean(session)) for session in (*means, now)]
    if not verdict.rises(over):
        return ""
    return (
        f"drifting: {len(over)} sessions get slower one after the other, {math.expm1(over[-1] - over[0]):+.2%} in all"
    )


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
    """Return a metric of one side, microseconds: (quadruples, 2), each what is typical of its turn."""
    return np.asarray([[_typical(turn, metric, primary) for turn in getattr(q, side)] for q in quadruples])


def _typical(turn: Turn, metric: str, primary: str) -> float:
    if metric == primary:
        captures = [statistics.median(capture.blocks_us) for capture in turn.captures]
        return math.exp(verdict.launch_mean(np.log(captures)))
    return statistics.median({HOST: turn.host_us, ENQUEUE: turn.enqueue_us}[metric])


def pair_differences(quadruples: Sequence[Quadruple], metric: str, primary: str) -> np.ndarray:
    """Return d of every quadruple: ½·Σ ln(candidate / base)."""
    base, candidate = (pair_values(quadruples, metric, side, primary) for side in ("base", "candidate"))
    return verdict.differences(base, candidate)


def typical_base(quadruples: Sequence[Quadruple], metric: str, primary: str) -> float:
    """Return the base's geometric mean, microseconds."""
    return math.exp(float(np.mean(np.log(pair_values(quadruples, metric, "base", primary)))))
