"""Which judgements follow from a measurement and what is stored, or from pairs of launches: evidence to statistics."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from .. import verdict
from ..common.accelerator import Accelerator
from ..common.metrics import (
    BUILD,
    COLD_START,
    DEVICE,
    ENQUEUE,
    EXACT,
    GPU_MEMORY,
    HOST,
    LEAF_ERROR,
    METRICS,
    OF_A_CALL,
    OF_COLD_STARTS,
    OF_LOAD,
    sampled,
)
from ..common.text_columns import number_of
from ..records.measurement import CaseMeasurement, Quadruple, Turn
from ..suite.cases import Case
from ..verdict import Judgement, Verdict
from . import growth_judging, measurement_summary
from .baseline_record import CaseRecord, StoredSession

LimitOf = Callable[[str], float]
"""Metric → the largest tolerated change, a fraction."""

ANCHOR_LIMITS = 3.0
"""So many times its limit may a metric get worse in all since the anchor."""
OF_THE_BUILD = frozenset({BUILD, *EXACT} - {GPU_MEMORY, *OF_COLD_STARTS})
"""Metrics that another build of the same code may change: built again before a regression is believed."""


def statistical_metrics(case: Case, *, gpu: bool, cold: bool = False, load: bool = False) -> tuple[str, ...]:
    """Return the metrics of a case that are judged with an error rate, which is shared among them.

    With `cold` there are cold starts, with `load` it is called by several at once.
    """
    found = sampled(gpu=gpu, cold=cold, load=load)
    return (*found, BUILD) if case.settings.uses_tensorrt else found


def counted_metrics(case: Case) -> tuple[str, ...]:
    """Return the metrics of a case that are read off once: all of them where TensorRT builds engines."""
    return (BUILD, *EXACT) if case.settings.uses_tensorrt else (GPU_MEMORY, *OF_COLD_STARTS, LEAF_ERROR, *OF_A_CALL)


def against_stored(
    case: Case,
    measurement: CaseMeasurement,
    record: CaseRecord,
    accelerator: Accelerator,
    limit_of: LimitOf,
    tests: int,
) -> list[Judgement]:
    """Judge every metric that both have by a record of the measurement's clock; `regressed` is a suspicion.

    Compare with sessions from the same physical GPU. If there are none, use one observation per other GPU: repeated
    sessions on one GPU do not reveal how GPUs differ. Of these take the sessions of the running versions or, if there
    are none, of the newest session's versions. The total change since the anchor stands in for the change since
    the last sessions where it is the worse of the two.
    """
    judged = _sampled(measurement.metrics, measurement, record, accelerator, limit_of, tests)
    now = measurement_summary.figures(measurement)
    before = record.figures_like(now, accelerator.uuid, accelerator.versions)
    judged += counted(case, now, before, limit_of, tests)
    return judged + growth_judging.since_asked(measurement, record, accelerator, limit_of)


def without_device(
    case: Case, measurement: CaseMeasurement, record: CaseRecord, accelerator: Accelerator, limit_of: LimitOf,
    tests: int,
) -> list[Judgement]:  # fmt: skip
    """Judge, as `against_stored`, a measurement that leaves device latency out."""
    metrics = tuple(metric for metric in measurement.metrics if metric != DEVICE)
    judged = _sampled(metrics, measurement, record, accelerator, limit_of, tests)
    now = measurement_summary.figures_beside(measurement)
    before = record.figures_like(now, accelerator.uuid, accelerator.versions)
    judged += counted(case, now, before, limit_of, tests)
    return judged + growth_judging.since_asked(measurement, record, accelerator, limit_of)


def _sampled(
    metrics: Sequence[str], measurement: CaseMeasurement, record: CaseRecord, accelerator: Accelerator,
    limit_of: LimitOf, tests: int,
) -> list[Judgement]:  # fmt: skip
    totals = since_anchor(measurement, record, accelerator, limit_of, tests, metrics)
    judged = []
    for metric in metrics:
        measured = with_metric(record, metric, measurement)
        if not measured.sessions:
            continue
        compared = measured.compared_with(accelerator.uuid, accelerator.versions)
        limit = limit_of(metric)
        if accelerator.uuid in measured.cards:
            recent = _against_own(metric, measurement, measured, compared, accelerator, limit, tests)
        else:
            recent = _against_others(metric, measurement, compared, limit, tests)
        judged.append(_worse(recent, totals.get(metric)))
    return judged


def with_metric(record: CaseRecord, metric: str, now: CaseMeasurement) -> CaseRecord:
    """Return a record with the sessions that a metric is compared with: load of as many threads and processes."""
    sessions, anchor = (
        [one for one in some if _comparable(one, metric, now)] for some in (record.sessions, record.anchor)
    )
    return msgspec.structs.replace(record, sessions=sessions, anchor=anchor)


def _comparable(session: StoredSession, metric: str, now: CaseMeasurement) -> bool:
    if metric == COLD_START and bool(session.runtime_cache) != bool(now.runtime_cache):  # kernels lay there before
        return False
    return bool(session.metrics.get(metric)) and (metric not in OF_LOAD or session.most_at_once == now.most_at_once)


def _against_own(
    metric: str, measurement: CaseMeasurement, record: CaseRecord, compared: Sequence[StoredSession],
    accelerator: Accelerator, limit: float, tests: int, *, known: Sequence[StoredSession] = (), evidence: str = "",
) -> Judgement:  # fmt: skip
    """Compare with sessions of this card; all of the card that are `known` (by default its stored ones), and those of
    other cards, say how far sessions of one card and the same versions lie apart.
    """
    known = known or [one for one in record.sessions if one.uuid == accelerator.uuid]
    others = [one for one in record.sessions if one.uuid != accelerator.uuid]
    groups = _alike(known)
    return verdict.judge_stored(
        metric,
        verdict.log_launch_means(measurement.samples(metric)),
        _means(known, metric),
        verdict.prior(metric, measurement.clock),
        limit=limit,
        tests=tests,
        others=[_means([others[number] for number in group], metric) for group in _alike(others)],
        evidence=evidence or _evidence(compared, known, accelerator, of_card=bool(others)),
        compared=[number for number, one in enumerate(known) if any(one is other for other in compared)],
        groups=groups,
    )


def _against_others(
    metric: str, measurement: CaseMeasurement, compared: Sequence[StoredSession], limit: float, tests: int
) -> Judgement:
    """Compare with other cards, each counting once."""
    of_cards: dict[str, list[np.ndarray]] = {}
    for session, means in zip(compared, _means(compared, metric), strict=True):
        of_cards.setdefault(session.uuid, []).append(means)
    return verdict.judge_stored(
        metric,
        verdict.log_launch_means(measurement.samples(metric)),
        [np.concatenate(sessions) for sessions in of_cards.values()],
        verdict.prior(metric, measurement.clock, own=False),
        limit=limit,
        tests=tests,
        evidence=f"stored sessions of {number_of(len(of_cards), verdict.OTHER_CARD)}",
        ordered=False,
    )


def _evidence(
    compared: Sequence[StoredSession], known: Sequence[StoredSession], accelerator: Accelerator, *, of_card: bool
) -> str:
    versions = compared[-1].versions
    which = ["of this card"] * of_card
    if any(one.versions != versions for one in known):
        which.append("of these versions" if versions == accelerator.versions else "of the newest versions")
    said = number_of(len(compared), "stored session")
    return f"{said} {' and '.join(which)}" if which else said


def since_anchor(
    measurement: CaseMeasurement, record: CaseRecord, accelerator: Accelerator, limit_of: LimitOf, tests: int,
    metrics: Sequence[str] = (),
) -> dict[str, Judgement]:  # fmt: skip
    """Judge the total change of each sampled metric since the anchor of this card, by ANCHOR_LIMITS times its limit.

    Of `metrics`, where they are given, else of all that were measured.

    Over all versions: a case may creep from one to the next. Empty where the anchor is what the case is compared with:
    the last sessions say as much. How far sessions lie apart is estimated from all sessions, since the anchor's are
    few. Sessions that have nothing of a metric, such as those that no load was asked for, are passed over.
    """
    uuid, versions = accelerator.uuid, accelerator.versions
    judged = {}
    for metric in metrics or measurement.metrics:
        measured = with_metric(record, metric, measurement)
        if not measured.anchored_for(uuid, versions):
            continue
        anchor, known = measured.anchor_of(uuid, versions), measured.all_of_card(uuid)
        found = _against_own(
            metric, measurement, measured, anchor, accelerator,
            ANCHOR_LIMITS * limit_of(metric), tests, known=known,
            evidence=f"the anchor of {anchor[0].recorded[:10]}".removesuffix(" of "),
        )  # fmt: skip
        judged[metric] = msgspec.structs.replace(found, since_anchor=True)
    return judged


def _alike(sessions: Sequence[StoredSession]) -> list[list[int]]:
    """Return the numbers of the sessions of each card and versions, in the order of time."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], list[int]] = {}
    for number, session in enumerate(sessions):
        found.setdefault((session.uuid, frozenset(session.versions.items())), []).append(number)
    return list(found.values())


def _means(sessions: Sequence[StoredSession], metric: str) -> list[np.ndarray]:
    means = [session.log_launch_means(metric) for session in sessions]
    return [one for one in means if one is not None]


def upgrade(record: CaseRecord, accelerator: Accelerator, *, since_anchor: bool) -> str:
    """Return in which versions the sessions differ that the case is compared with, or its anchor; empty in none.

    Only versions that are known on both sides.
    """
    choose = record.anchor_of if since_anchor else record.compared_with
    now, found = accelerator.versions, []
    before = [one.versions for one in choose(accelerator.uuid, accelerator.versions) if one.versions]
    for name in sorted({name for one in (*before, now) for name in one}) if now else ():
        was = dict.fromkeys(one.get(name, "none") for one in before)
        if was and list(was) != [now.get(name, "none")]:
            found.append(f"with {name} {' and '.join(was)}, now {now.get(name, 'none')}")
    return f"recorded {'; '.join(found)}" if found else ""


def _worse(recent: Judgement, total: Judgement | None) -> Judgement:
    """Return the total change where it is a regression or can't be told, and the recent one is not as bad."""
    badness = {Verdict.UNDERPOWERED: 1, Verdict.REGRESSED: 2}
    if total is not None and badness.get(total.verdict, 0) > badness.get(recent.verdict, 0):
        return total
    return recent


def drift(measurement: CaseMeasurement, record: CaseRecord, accelerator: Accelerator) -> str:
    """Return that the sessions of this card and this one get slower one after the other; empty where they do not."""
    level = record.all_of_level(accelerator.uuid, accelerator.versions)
    means = _means([one for one in record.sessions if any(one is other for other in level)], measurement.primary)
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
        captures = [statistics.fmean(capture.blocks_us) for capture in turn.captures]
        return math.exp(verdict.launch_mean(np.log(captures)))
    return statistics.median({HOST: turn.host_us, ENQUEUE: turn.enqueue_us}[metric])


def pair_differences(quadruples: Sequence[Quadruple], metric: str, primary: str) -> np.ndarray:
    """Return d of every quadruple: ½·Σ ln(candidate / base)."""
    base, candidate = (pair_values(quadruples, metric, side, primary) for side in ("base", "candidate"))
    return verdict.differences(base, candidate)


def typical_base(quadruples: Sequence[Quadruple], metric: str, primary: str) -> float:
    """Return the base's geometric mean, microseconds."""
    return math.exp(float(np.mean(np.log(pair_values(quadruples, metric, "base", primary)))))
