"""The rules of a verdict: what one case needs next, or what is concluded of it. Knows no processes, files or pytest.

Against a stored baseline: what is too noisy to tell is measured by as many fresh launches, once, if they could. What is
suspected must be so again: metrics of the build in another build, latencies in fresh pairs beside the baseline's own
compiled module, the total change since the anchor and what neither could say in fresh launches. Fresh launches that
can't be judged are measured once more. Beside a base: screened in one pair at planned looks, and suspects confirmed
by another build, another load, and fresh pairs at planned looks. Builds of one program may differ in their kernels: a
latency that is suspected of another build than what it is held against is confirmed in yet another one. A suspicion
that was neither confirmed nor refuted is told as one. Only what is proven unchanged or faster is stored unasked.
The statistics are `verdict`'s.

It is longer than other files: to change a rule of a verdict one opens this file alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from .. import verdict
from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError
from ..common.explanations import Explanation, bare, continued, explained
from ..common.metrics import (
    COLD_L2,
    COLD_START,
    COLD_START_CACHED,
    DEVICE,
    GPU_MEMORY,
    HOST,
    METRICS,
    OF_A_CALL,
    ON_HOST,
    QUEUED,
    SAMPLED,
)
from ..common.notices import Notice, Severity
from ..records.measurement import Build, CaseMeasurement, Quadruple
from ..suite.cases import Case
from ..verdict import (
    LOOKS,
    QUEUED_SD,
    SCREENING_LOOKS,
    Judgement,
    Verdict,
    judge_confirmed,
    judge_screened,
    may_exceed,
)
from . import growth_judging, judging, measurement_summary, program_changes
from .baseline_record import CaseRecord
from .case_result import CaseResult
from .judging import LimitOf
from .known_programs import Known
from .sentences import (
    about_other_clock,
    capture_lost,
    explanation_of,
    going_on,
    grows,
    moved,
    not_checked,
    not_stored,
    same,
    sentence,
    stored_as_accepted,
)

Judged = dict[str, Judgement]
NOT_PROVEN = (Verdict.UNDERPOWERED, Verdict.UNCONFIRMED, Verdict.INCOMPARABLE)
"""Verdicts after which a case may be as it was, or not: it is stored where that is accepted."""
TRIES = 2
"""So often is a suspicion checked beside a base before it is told that it could not be."""

COUNTS_APART = 0.01
"""A count that differs by more than this share between two builds of the same code varies by itself."""

# What may be done next


class Measure(msgspec.Struct, frozen=True):
    """Measure it, in resident launches or in the resident pair."""


class MeasureFresh(msgspec.Struct, frozen=True):
    """Measure it in fresh launches; `further` ones are added to the first, else they are to confirm a suspicion."""

    further: bool


class MeasureHost(msgspec.Struct, frozen=True):
    """Measure what the host sees of it, and no device latency: what decides that is as it was."""


class Rebuild(msgspec.Struct, frozen=True):
    """Build it again in a fresh process, the base too where there is one; what that stored is timed from then on.

    `pairs_next` says that latencies are suspected too, so that fresh pairs are asked for after it.
    """

    pairs_next: bool = False


class Reload(msgspec.Struct, frozen=True):
    """Load it and its base again in processes that have not had it, for the memory that they take."""


class Pair(msgspec.Struct, frozen=True):
    """Measure it in `count` more fresh pairs, beside the base or the baseline's own compiled module.

    `metrics` are what is suspected.
    """

    count: int
    metrics: tuple[str, ...]


class Conclude(msgspec.Struct, frozen=True):
    """This is what came of it."""

    result: CaseResult


Step = Measure | MeasureFresh | MeasureHost | Rebuild | Reload | Pair | Conclude


def is_of_first_stage(step: Step) -> bool:
    """Whether a step measures a case for the first time, and confirms nothing: what a shard does."""
    return isinstance(step, Measure | MeasureHost) or (isinstance(step, MeasureFresh) and step.further)


# What is known


class Measured(msgspec.Struct, frozen=True):
    """The first measurement; beside a base with what the base took, and what the planned looks at both said."""

    candidate: CaseMeasurement
    base: CaseMeasurement | None = None
    screened: tuple[Judgement, ...] = ()


class Rebuilt(msgspec.Struct, frozen=True):
    """A case built again, and its base where there is one."""

    candidate: Build
    base: Build | None = None


class Reloaded(msgspec.Struct, frozen=True):
    """The GPU memory of a case and its base, loaded again, in bytes."""

    candidate_bytes: float
    base_bytes: float


class Problem(msgspec.Struct, frozen=True):
    """Why nothing can be said beside a base or a kept module; where that one failed, that is its own fault."""

    reason: str
    failed: bool = False
    times: int = 1
    """How often this was tried."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was found so far, step by step."""

    host: CaseMeasurement | None = None
    """Without device latency, of a case that is the same."""
    first: Measured | None = None
    further: CaseMeasurement | None = None
    rebuilt: Rebuilt | None = None
    reloaded: Reloaded | None = None
    pairs: tuple[list[Quadruple], ...] = ()
    """The quadruples of each fresh pair."""
    fresh: tuple[CaseMeasurement, ...] = ()
    """What fresh launches measured to confirm a suspicion: the last one counts."""
    problem: Problem | None = None


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """One case in one run, and what is known of it."""

    case: Case
    accelerator: Accelerator
    limit_of: LimitOf
    tests: int
    """How many judgements of the run share the error rate."""
    record: CaseRecord | None = None
    """What the baseline has of it."""
    baseline: str = ""
    """The baseline's path, for what is said of it."""
    new: str = ""
    """What to say where nothing is stored, or the base lacks the case."""
    compare: bool = True
    update: bool = False
    accepted: bool = False
    failing: bool = False
    """Its test fails whatever is found, so nothing of it is stored: its quarantine is over."""
    beside_base: bool = False
    pairable: bool = False
    """It has a compiled module that could be measured beside the baseline's own."""
    known: Known | None = None
    """The session that makes measuring its device latency needless."""
    evidence: Evidence = Evidence()


def next_step(situation: Situation) -> Step:
    """Return what the case needs next. Raises TrtgateError where no block counts and no verdict was asked for."""
    if situation.beside_base:
        return _beside_base(situation)
    left_out = _without_device(situation)
    if left_out is not None:
        return left_out
    lost = _capture_lost_since_stored(situation)
    situation = _of_its_clock(situation)
    step = Conclude(lost) if lost is not None else _against_stored(situation)
    if not isinstance(step, Conclude):
        return step
    checked = situation.known is not None and situation.known.checked
    result = msgspec.structs.replace(step.result, moved=_moved(situation, step.result), checked=checked)
    return Conclude(_noting(result, *_about_storing(situation, result)))


# Where nothing that decides device latency differs


def _without_device(situation: Situation) -> Step | None:
    """Return the step of a case that is the same; None where it is measured as any other.

    So it is where it is checked at random, and where something beside device latency looks worse.
    """
    known, record, host = situation.known, situation.record, situation.evidence.host
    if known is None or known.checked or record is None or not situation.compare:
        return None
    if host is None:
        return MeasureHost()
    held = record.of_clock(known.clock)
    judged = judging.without_device(
        situation.case, host, held, situation.accelerator, situation.limit_of, situation.tests
    )
    if any(one.suspicious or one.verdict is Verdict.REGRESSED for one in judged):
        return None
    beside = msgspec.structs.replace(_beside_launches(host), build=host.build)
    said = same(situation.case.id, known.recorded)
    told = msgspec.structs.replace(_told(situation, beside, Verdict.SAME, said, stored=False), judgements=judged)
    return Conclude(_noting(told, *_about_load(situation, told)))


def _beside_launches(measurement: CaseMeasurement) -> CaseMeasurement:
    """Return what processes of their own measured: it is there whatever may be said of the launches."""
    return CaseMeasurement(
        case_id=measurement.case_id, launches=[], uuid=measurement.uuid, cold=measurement.cold,
        cold_cached=measurement.cold_cached, load=measurement.load,
    )  # fmt: skip


def _moved(situation: Situation, result: CaseResult) -> str:
    """Return why a case is red that was measured although it is the same: its device latency is another.

    Another build that is faster proves nothing: a slower one is confirmed with a second, a faster one is not.
    """
    known = situation.known
    device = next((one for one in result.judgements if one.metric == DEVICE), None)
    if known is None or device is None or device.verdict not in (Verdict.REGRESSED, Verdict.IMPROVED):
        return ""
    before = _artifact_before(situation, since_anchor=device.since_anchor)
    if device.verdict is Verdict.IMPROVED and is_another_build(result.measurement.build, before):
        return ""
    return moved(situation.case.id, known.recorded, device.change)


def concluded_so_far(situation: Situation, why: str) -> CaseResult:
    """Conclude of a case that was measured and asks for more which it does not get: a suspicion stays one.

    `why` says what it does not get. Raises TrtgateError as `next_step`.
    """
    step = next_step(situation)
    if isinstance(step, Conclude):
        return step.result
    evidence = situation.evidence
    if situation.beside_base:
        untold = msgspec.structs.replace(evidence, problem=Problem(why, times=TRIES))
        return concluded_so_far(msgspec.structs.replace(situation, evidence=untold), why)
    assert evidence.first is not None
    situation = _of_its_clock(situation)
    first = judge(situation, evidence.first.candidate)
    if evidence.further is not None and _further_might_tell(situation, first):
        first = _with_further(situation, first, evidence.further)
    suspects = _suspects(first.judgements, first.measurement.primary)
    if not suspects:  # more launches were not measured
        return first
    told = _not_checked(situation, first, {}, suspects, Verdict.UNDERPOWERED, why)
    return msgspec.structs.replace(told, notices=first.notices)


# Against a stored baseline


def _of_its_card(situation: Situation, measurement: CaseMeasurement) -> Situation:
    """Return the situation on the card that a measurement is of: a suspicion may be confirmed on another one."""
    first = situation.evidence.first
    if first is None or measurement.uuid == first.candidate.uuid:
        return situation
    card = msgspec.structs.replace(situation.accelerator, uuid=measurement.uuid)
    return msgspec.structs.replace(situation, accelerator=card)


def _of_its_clock(situation: Situation) -> Situation:
    """Return the situation with what is stored of the clock with which the case was timed; the case is new without.

    As it is where launches had different clocks: that is no clock of its own.
    """
    record, first = situation.record, situation.evidence.first
    if record is None or first is None or not first.candidate.blocks_us() or len(first.candidate.clocks) > 1:
        return situation
    clock = first.candidate.clock
    held = record.of_clock(clock)
    if held.sessions:
        return msgspec.structs.replace(situation, record=held)
    new = f"NEW: {about_other_clock([situation.case.id], clock, record.clocks, recording=situation.update)}"
    return msgspec.structs.replace(situation, record=None, new=new)


def _capture_lost_since_stored(situation: Situation) -> CaseResult | None:
    """Return the result of a case that was stored as a CUDA graph, and that can't be captured now; None otherwise.

    The newest session of the running versions decides (of all versions where these have none): a case that could not be
    captured once, and was captured since, has lost it again.
    """
    record, first = situation.record, situation.evidence.first
    if record is None or first is None or not situation.compare:
        return None
    versions = situation.accelerator.versions
    sessions = [one for one in record.sessions if one.versions == versions] or record.sessions
    before = [sessions[-1].clock] if record.of_clock(first.candidate.clock).sessions else record.clocks
    lost = capture_lost(situation.case.id, before, first.candidate)
    if not lost or measurement_summary.void_problem(first.candidate):
        return None
    figures = measurement_summary.figures(first.candidate)
    told = _told(situation, first.candidate, Verdict.REGRESSED, lost, stored=situation.accepted)
    return _going_on_with_counts(situation, told, figures, _stored_figures(situation, figures))


def _against_stored(situation: Situation) -> Step:
    evidence = situation.evidence
    if evidence.first is None:
        return Measure()
    result = judge(situation, evidence.first.candidate)
    if _further_might_tell(situation, result):
        if evidence.further is None:
            return MeasureFresh(further=True)
        result = _with_further(situation, result, evidence.further)
    suspects = _suspects(result.judgements, result.measurement.primary)
    if not suspects:
        return Conclude(result)
    sampled = suspects - judging.OF_THE_BUILD
    total = {one.metric for one in result.judgements if one.since_anchor}
    timed = [metric for metric in SAMPLED if metric in sampled - total]
    again: Judged = {}
    before = _artifact_before(situation, since_anchor=result.measurement.primary in total)
    if evidence.rebuilt is None and _to_be_built_again(result.judgements, result.measurement, before):
        return Rebuild(pairs_next=bool(timed) and situation.pairable)
    if suspects & judging.OF_THE_BUILD:
        assert evidence.rebuilt is not None
        now = _of_build(evidence.rebuilt.candidate)
        again = _counted(situation, now, _stored_figures(situation, now))
        build = evidence.first.candidate.build
        again = _counted_again(result.judgements, again, build, evidence.rebuilt.candidate)
    if timed and situation.pairable and evidence.problem is None:
        paired, count = _paired(situation, timed, result.measurement.primary)
        if count:
            return Pair(count, tuple(timed))
        result, paired = _slower_all_the_same(situation, result, paired)
        again, sampled = again | paired, sampled - paired.keys()
    if sampled and _wants_fresh(situation):
        return MeasureFresh(further=False)
    return Conclude(_confirmed(situation, result, again, sampled))


def _slower_all_the_same(situation: Situation, first: CaseResult, paired: Judged) -> tuple[CaseResult, Judged]:
    """Let the suspicion since the anchor stand where pairs do not confirm the one since the last sessions.

    The kept module is the last session's, so pairs beside it can say nothing of what came before.
    """
    assert situation.record is not None
    totals = judging.since_anchor(
        first.measurement, situation.record, situation.accelerator, situation.limit_of, situation.tests
    )
    stand = {
        metric: totals[metric]
        for metric, judgement in paired.items()
        if judgement.verdict is not Verdict.REGRESSED
        and metric in totals
        and totals[metric].verdict is Verdict.REGRESSED
    }
    judged = [stand.get(judgement.metric, judgement) for judgement in first.judgements]
    left = {metric: judgement for metric, judgement in paired.items() if metric not in stand}
    return msgspec.structs.replace(first, judgements=judged), left


def _wants_fresh(situation: Situation) -> bool:
    """Whether fresh launches are to be measured: none were, or the first could not be judged."""
    fresh = situation.evidence.fresh
    return not fresh or (len(fresh) == 1 and bool(_problem_of(situation, fresh[0])))


def _problem_of(situation: Situation, measurement: CaseMeasurement) -> str:
    """Return why a measurement can't be judged by what is stored; empty when it can."""
    assert situation.record is not None
    void = measurement_summary.void_problem(measurement)
    return void or _incomparable(situation, situation.record, measurement)


def _incomparable(situation: Situation, record: CaseRecord, measurement: CaseMeasurement) -> str:
    accelerator = _of_its_card(situation, measurement).accelerator
    return measurement_summary.incomparable(measurement, record.compared_with(accelerator.uuid, accelerator.versions))


def judge(situation: Situation, measurement: CaseMeasurement) -> CaseResult:
    """Judge one measurement by what is stored; `regressed` is a suspicion."""
    situation = _of_its_card(situation, measurement)
    case_id, record = situation.case.id, situation.record
    void = measurement_summary.void_problem(measurement)
    if not measurement.blocks_us():
        said = explained(f"{case_id}: not one block counts: {void}", Explanation.VOID_BLOCKS)
        if not situation.compare or situation.update:
            leaks = [
                bare(grows(case_id, one)).removeprefix(f"{case_id}: ")
                for one in growth_judging.grown(measurement, {}, situation.limit_of)
                if one.verdict is Verdict.REGRESSED
            ]
            raise TrtgateError(continued(said, "".join(f"; {leak}" for leak in leaks)))
        return _undecided(situation, _beside_launches(measurement), said)
    if not situation.compare:
        return CaseResult(case_id=case_id, measurement=measurement, stored=not situation.failing)
    if void:
        return _undecided(situation, measurement, explained(f"{case_id}: {void}", Explanation.VOID_BLOCKS))
    if record is None:
        return _told(situation, measurement, Verdict.NEW, situation.new, stored=True)
    problem = _incomparable(situation, record, measurement)
    if problem:
        said = explained(f"{case_id}: {problem}", Explanation.INCOMPARABLE)
        return _told(situation, measurement, Verdict.INCOMPARABLE, said, stored=situation.accepted)
    judged = judging.against_stored(
        situation.case, measurement, record, situation.accelerator, situation.limit_of, situation.tests
    )
    if measurement.primary not in {judgement.metric for judgement in judged}:
        said = f"{situation.baseline}: case {case_id} has no {measurement.primary} latency"
        said = f"{said}: trtgate baseline remove {case_id}, and record it anew"
        raise TrtgateError(explained(said, Explanation.BASELINE_BROKEN))
    return _concluded(situation, measurement, judged)


def _undecided(situation: Situation, measurement: CaseMeasurement, why: str) -> CaseResult:
    """Conclude of a measurement whose blocks are void: where nothing is stored, that is what must be known first."""
    void, said, told = bare(why).removeprefix(f"{situation.case.id}: "), Verdict.UNDERPOWERED, why
    if situation.record is None and not situation.update:
        said, told = Verdict.NEW, continued(situation.new, f"; {void}")
    return msgspec.structs.replace(_told(situation, measurement, said, told, stored=False), void=void)


def _further_might_tell(situation: Situation, result: CaseResult) -> bool:
    """Whether as many launches again, if they lay just as these do, would prove the case unchanged.

    Of the simulated cases that are measured further, mostly a third to nine tenths are proven then (docs/verdicts.md).
    """
    if result.verdict is not Verdict.UNDERPOWERED or not result.judgements:
        return False
    measurement = result.measurement
    twice = msgspec.structs.replace(measurement, launches=[*measurement.launches, *measurement.launches])
    return any(
        one.metric == measurement.primary and one.verdict is Verdict.UNCHANGED
        for one in judge(situation, twice).judgements
    )


def _with_further(situation: Situation, first: CaseResult, more: CaseMeasurement) -> CaseResult:
    """Judge by the launches that there are and as many fresh ones, unless these can't be compared."""
    problem, case_id = _problem_of(situation, more), situation.case.id
    if not problem and more.uuid != first.measurement.uuid:
        problem = f"measured on another card, {more.uuid}"
    if problem:
        return _noting(first, Notice(f"{case_id}: further launches do not count: {problem}"))
    both = together(first.measurement, more)
    said = f"{case_id}: {len(first.measurement.launches)} launches could not tell; judged by {len(both.launches)}"
    return _noting(judge(situation, both), Notice(said))


def together(one: CaseMeasurement, more: CaseMeasurement) -> CaseMeasurement:
    """Return one measurement of the launches of two."""
    return msgspec.structs.replace(
        one, launches=[*one.launches, *more.launches], cold=[*one.cold, *more.cold],
        cold_cached=[*one.cold_cached, *more.cold_cached], load=[*one.load, *more.load],
        seconds=one.seconds + more.seconds,
    )  # fmt: skip


def _confirmed(situation: Situation, first: CaseResult, again: Judged, sampled: set[str]) -> CaseResult:
    """Conclude from a suspicion and what was done again: `sampled` is what fresh launches are to say."""
    fresh, problem, notices = situation.evidence.fresh, situation.evidence.problem, first.notices
    if problem is not None:
        why = f"{'it failed: ' * problem.failed}{bare(problem.reason)}"
        said = f"{situation.case.id}: not measured beside the baseline's compiled module: {why}"
        notices = (*notices, Notice(said))
    measurement = first.measurement
    if sampled:
        unjudged = _problem_of(situation, fresh[-1]) or _of_another_anchor(first, fresh[-1], sampled)
        if unjudged:
            void = bool(measurement_summary.void_problem(fresh[-1]))
            verdict_of_fresh = Verdict.UNDERPOWERED if void else Verdict.INCOMPARABLE
            concluded = _not_checked(situation, first, again, sampled, verdict_of_fresh, unjudged)
            return msgspec.structs.replace(concluded, notices=notices)
        measurement, judged = fresh[-1], _of_fresh(situation, first, fresh[-1])
        again = again | {metric: judged[metric] for metric in sampled & judged.keys()}
    concluded = _concluded(situation, measurement, _both_say(first.judgements, again))
    return msgspec.structs.replace(concluded, notices=notices)


def _of_another_anchor(first: CaseResult, fresh: CaseMeasurement, suspects: set[str]) -> str:
    """Return why fresh launches say nothing of a total change: they are of a card that has another anchor."""
    before = first.measurement.uuid
    totals = [one.metric for one in first.judgements if one.since_anchor and one.metric in suspects]
    if not totals or fresh.uuid == before:
        return ""
    return f"the change since the anchor is of card {before}, and fresh launches ran on {fresh.uuid}"


def _of_fresh(situation: Situation, first: CaseResult, fresh: CaseMeasurement) -> Judged:
    """Judge fresh launches, and name groups among all launches that there are.

    What pairs cleared of the change since the last sessions is judged by the total change alone.
    """
    situation = _of_its_card(situation, fresh)
    assert situation.record is not None
    record, limit_of, tests = situation.record, situation.limit_of, situation.tests
    judged = {one.metric: one for one in judge(situation, fresh).judgements}
    totals = judging.since_anchor(fresh, record, situation.accelerator, limit_of, tests)
    cleared = situation.pairable and situation.evidence.problem is None
    by_total = {one.metric for one in first.judgements if one.since_anchor and cleared}
    judged |= {metric: one for metric, one in totals.items() if metric in by_total}
    if fresh.uuid != first.measurement.uuid or artifact_of(fresh) != artifact_of(first.measurement):
        return judged  # launches of two cards, or of two builds, are two groups anyway
    all_of_it = together(first.measurement, fresh)
    of_all = judging.against_stored(situation.case, all_of_it, record, situation.accelerator, limit_of, tests)
    groups = {one.metric: one.groups for one in of_all}
    return {
        metric: msgspec.structs.replace(one, groups=groups.get(metric) or one.groups) for metric, one in judged.items()
    }


def _not_checked(
    situation: Situation, first: CaseResult, again: Judged, suspects: set[str], said: Verdict, why: str
) -> CaseResult:
    """Tell suspicions that could not be checked: behind what is confirmed, if another one is."""
    open_ = {
        one.metric: msgspec.structs.replace(one, verdict=Verdict.UNDERPOWERED, suspected=one.change)
        for one in first.judgements
        if one.metric in suspects
    }
    judged = [open_.get(one.metric, one) for one in _both_say(first.judgements, again)]
    concluded = _concluded(situation, first.measurement, judged)
    told = not_checked(situation.case.id, list(open_.values()), why)
    if concluded.verdict is Verdict.REGRESSED:
        if not open_:
            return concluded
        more = bare(told).removeprefix(f"{situation.case.id}: ")
        return msgspec.structs.replace(concluded, sentence=continued(concluded.sentence, f"; {more}"))
    told = continued(told, _upgrade(situation, said, judged))
    return msgspec.structs.replace(concluded, verdict=said, sentence=told)


# What is stored


def _about_storing(situation: Situation, result: CaseResult) -> list[Notice]:
    """Return what is worth saying of a case that is held against a baseline, or added to one."""
    notices, record = _about_load(situation, result), situation.record
    if record is not None and result.judgements:
        drift = judging.drift(result.measurement, record, situation.accelerator)
        if drift:
            notices.append(Notice(f"{situation.case.id}: {drift}"))
    updating = situation.update and situation.compare and not situation.failing
    told = updating and result.verdict in NOT_PROVEN
    if told and not result.stored:
        notices.append(_about_not_storing(result))
    if (told or (updating and result.verdict is Verdict.REGRESSED)) and result.stored and situation.accepted:
        notices.append(Notice(stored_as_accepted(situation.case.id, str(result.verdict)), Severity.WARNING))
    return notices


def _about_load(situation: Situation, result: CaseResult) -> list[Notice]:
    """Say what grows though nothing says that it did not, and that nothing stored is of as much load."""
    measurement, record = result.measurement, situation.record
    judged = {one.metric for one in result.judgements}
    notices = [
        Notice(grows(situation.case.id, one), Severity.WARNING)
        for one in growth_judging.grown(measurement, {}, situation.limit_of)
        if one.verdict is Verdict.REGRESSED and one.metric not in judged
    ]
    told = {one.metric for one in result.judgements if one.verdict is not Verdict.UNDERPOWERED or one.suspicious}
    notices += [
        Notice(continued(grows(situation.case.id, one), ": not steady enough to tell whether it goes on"))
        for one in growth_judging.grown(measurement, {}, situation.limit_of)
        if one.verdict is Verdict.UNDERPOWERED and one.now > one.limit and one.metric not in told
    ]
    most = measurement.most_at_once
    stored = set() if record is None else {one.most_at_once for one in record.sessions if one.most_at_once}
    if most and stored - {most} and most not in stored:
        numbers = " and ".join(map(str, sorted(stored)))
        said = f"a load of {most} is not compared with what is stored, of {numbers}: --trtgate-load {max(stored)} is"
        notices.append(Notice(f"{situation.case.id}: {said}"))
    notices += [Notice(f"{situation.case.id}: {said}") for said in _without_baseline(situation, result)]
    return notices + [
        Notice(explained(f"{situation.case.id}: {said}", Explanation.METRIC_UNKNOWN), Severity.WARNING)
        for said in _unknown(situation, result)
    ]


def _without_baseline(situation: Situation, result: CaseResult) -> list[str]:
    """Say what was measured and is not compared, since nothing is stored of it: else it would pass in silence."""
    measurement, record = result.measurement, situation.record
    if record is None or situation.update or not result.judgements:
        return []
    lacking = ["cold starts"] * bool(
        measurement.cold and not any(one.metrics.get(COLD_START) for one in record.sessions)
    )
    at_once = any(one.most_at_once for one in record.sessions)
    lacking += ["throughput and latencies under load"] * bool(measurement.load and not at_once)
    which = " and ".join(lacking)
    said = f"{which} are not compared: nothing is stored of them; --trtgate-update-baselines stores them"
    return [said] if lacking else []


def _unknown(situation: Situation, result: CaseResult) -> list[str]:
    """Say what was asked for, or is stored, and is not known of this run: else it would pass in silence."""
    measurement, record, accelerator = result.measurement, situation.record, situation.accelerator
    readings = next((one.readings for one in measurement.load if one.readings is not None), None)
    said = []
    if readings is not None and len(readings.host_bytes) < verdict.LEAST_READINGS:
        few = f"{len(readings.host_bytes)} readings, and {verdict.LEAST_READINGS} are needed"
        said.append(f"it is not known whether host memory grows: {few}")
    asked = [COLD_START_CACHED] * bool(measurement.cold) + [COLD_L2] * bool(measurement.load)
    compared = [] if record is None else record.compared_with(accelerator.uuid, accelerator.versions)
    with_cold = [bool(one.runtime_cache) for one in compared if one.metrics.get(COLD_START)]
    if measurement.cold and measurement.launches and with_cold and bool(measurement.runtime_cache) not in with_cold:
        said.append(f"{METRICS[COLD_START].title} is in its baseline from before runtime caches, and is not compared")
    return said + [
        f"{METRICS[one].title} is in its baseline, and could not be measured now: nothing says that it is no worse"
        for one in asked
        if one not in measurement.metrics and any(session.metrics.get(one) for session in compared)
    ]


def _about_not_storing(result: CaseResult) -> Notice:
    """Say why a case is not stored: loudly where it is noise, as an error where nothing could be compared at all."""
    case_id, said = result.case_id, str(result.verdict)
    if result.judgements:
        return Notice(not_stored(case_id, said), Severity.WARNING)
    why = bare(result.sentence).removeprefix(f"{case_id}: ")
    return Notice(not_stored(case_id, said, why, void=result.verdict is Verdict.UNDERPOWERED), Severity.ERROR)


def _may_be_stored(situation: Situation, said: Verdict, judgements: Sequence[Judgement]) -> bool:
    """Whether a session is added to the baseline: proven, accepted, or the first of its card and no suspect."""
    record = situation.record
    if situation.accepted or said in (Verdict.UNCHANGED, Verdict.IMPROVED):
        return True
    first_of_card = record is not None and situation.accelerator.uuid not in record.cards
    open_ = said is Verdict.REGRESSED or any(judgement.suspected is not None for judgement in judgements)
    return first_of_card and not open_


# Beside a base


def _beside_base(situation: Situation) -> Step:
    evidence, problem, case_id = situation.evidence, situation.evidence.problem, situation.case.id
    if situation.new:
        return Conclude(_beside(situation, Verdict.NEW, situation.new))
    if problem is not None and evidence.first is None:
        failed = Verdict.INCOMPARABLE if problem.failed else Verdict.UNDERPOWERED
        explanation = Explanation.BASE_FAILED if problem.failed else Explanation.VOID_BLOCKS
        said = explained(f"{case_id}: {_why(problem)}", explanation)
        return Conclude(_beside(situation, failed, said))
    if evidence.first is None:
        return Measure()
    now, before = evidence.first.candidate, evidence.first.base
    assert before is not None
    figures, of_base = measurement_summary.figures(now), measurement_summary.figures(before)
    if before.clock != now.clock or len(now.clocks) > 1:
        said = f"the base was timed with the clock {before.clock}, the candidate with {now.clock}"
        if lost := capture_lost(case_id, [before.clock], now):
            told = _beside(situation, Verdict.REGRESSED, lost)
            return Conclude(_going_on_with_counts(situation, told, figures, of_base))
        said = explained(f"{case_id}: {said}", Explanation.INCOMPARABLE)
        return Conclude(_beside(situation, Verdict.INCOMPARABLE, said))
    counted = _counted(situation, figures, of_base)
    judged = [*evidence.first.screened, *counted.values()]
    suspects = _suspects(judged, now.primary)
    if problem is not None and (problem.failed or problem.times >= TRIES):
        first, checked = CaseResult(case_id=case_id, measurement=now, judgements=judged), _recounted(situation, judged)
        failed = Verdict.INCOMPARABLE if problem.failed else Verdict.UNDERPOWERED
        concluded = _not_checked(situation, first, checked, suspects - checked.keys(), failed, _why(problem))
    else:
        again = _again_beside_base(situation, judged, suspects, now.primary)
        if not isinstance(again, dict):
            return again
        concluded = _concluded(situation, now, _both_say(judged, again))
    return Conclude(msgspec.structs.replace(concluded, base=before, stored=False))


def _why(problem: Problem) -> str:
    return f"{'the base failed: ' * problem.failed}{bare(problem.reason)}"


def _again_beside_base(
    situation: Situation, judged: Sequence[Judgement], suspects: set[str], primary: str
) -> Judged | Step:
    """Return what doing it again says of all that is suspected, or what is to be done again next."""
    first = situation.evidence.first
    assert first is not None
    before = "" if first.base is None else artifact_of(first.base)
    if situation.evidence.rebuilt is None and _to_be_built_again(judged, first.candidate, before):
        return Rebuild(pairs_next=not suspects.isdisjoint(SAMPLED))
    if GPU_MEMORY in suspects and situation.evidence.reloaded is None:
        return Reload()
    again = _recounted(situation, judged)
    timed = [metric for metric in SAMPLED if metric in suspects]
    if timed:
        paired, count = _paired(situation, timed, primary)
        if count:
            return Pair(count, tuple(timed))
        again |= paired
    return again


def _recounted(situation: Situation, judged: Sequence[Judgement]) -> Judged:
    """Judge what was built and loaded again."""
    again: Judged = {}
    rebuilt, reloaded = situation.evidence.rebuilt, situation.evidence.reloaded
    if rebuilt is not None:
        assert rebuilt.base is not None
        counted = _counted(situation, _of_build(rebuilt.candidate), _of_build(rebuilt.base))
        first = situation.evidence.first
        if first is not None and first.base is not None:
            counted = _counted_again(judged, counted, first.candidate.build, rebuilt.candidate)
            counted = _counted_again(judged, counted, first.base.build, rebuilt.base)
        again |= counted
    if reloaded is not None:
        figure = METRICS[GPU_MEMORY].figure
        again |= _counted(situation, {figure: reloaded.candidate_bytes}, {figure: reloaded.base_bytes})
    return again


def _beside(situation: Situation, said: Verdict, why: str) -> CaseResult:
    first = situation.evidence.first or Measured(CaseMeasurement(case_id=situation.case.id, launches=[]))
    return msgspec.structs.replace(_told(situation, first.candidate, said, why, stored=False), base=first.base)


# In pairs, at planned looks


def screened(
    quadruples: Sequence[Quadruple], measured: CaseMeasurement, limit_of: LimitOf, tests: int
) -> tuple[list[Judgement], bool]:
    """Judge all sampled metrics by the quadruples of one pair; returns that, and whether more are needed.

    `regressed` is a suspicion. Between two planned looks more are needed, and until the primary metric is decided. So
    are they while another metric may exceed its limit: a few quadruples of what is noisy neither suspect nor clear it.
    """
    if len(quadruples) not in SCREENING_LOOKS:
        return [], True
    primary = measured.primary
    judged, more = list[Judgement](), False
    for metric in (primary, *(metric for metric in measured.metrics if metric != primary)):
        d = judging.pair_differences(quadruples, metric, primary)
        judgement, open_ = judge_screened(
            metric, d, judging.typical_base(quadruples, metric, primary), limit=limit_of(metric), tests=tests,
            unseen_sd=QUEUED_SD if metric == DEVICE and QUEUED in measured.clock else 0.0,
        )  # fmt: skip
        judged.append(judgement)
        more |= open_ and (metric == primary or bool(may_exceed(d, limit_of(metric))))
    return judged, more


def confirmed_by_pairs(
    pairs: Sequence[Sequence[Quadruple]], metrics: Sequence[str], primary: str, limit_of: LimitOf, tests: int
) -> tuple[Judged, int]:
    """Judge suspected metrics by fresh pairs; returns that, and how many more pairs the next planned look takes.

    0 when every metric is confirmed or refuted, when the primary one is confirmed (where it is not suspected: any), or
    the last look is reached. A case that is proven slower fails: what else of it is suspected is told as that, and ten
    more pairs for a noisy metric of the host would change no exit code.
    """
    if len(pairs) not in LOOKS:
        return {}, min(look for look in LOOKS if look > len(pairs)) - len(pairs)
    together = [quadruple for quadruples in pairs for quadruple in quadruples]
    found = [
        judge_confirmed(
            metric,
            np.asarray([np.mean(judging.pair_differences(one, metric, primary)) for one in pairs]),
            judging.typical_base(together, metric, primary),
            limit=limit_of(metric),
            tests=tests,
        )
        for metric in metrics
    ]
    judged = {judgement.metric: judgement for judgement, _ in found}
    confirmed = {metric for metric, judgement in judged.items() if judgement.verdict is Verdict.REGRESSED}
    proven = primary in confirmed or (primary not in judged and confirmed)
    if proven or not any(open_ for _, open_ in found):
        return judged, 0
    return judged, min((look - len(pairs) for look in LOOKS if look > len(pairs)), default=0)


def pair_tells(quadruples: Sequence[Quadruple], metrics: Sequence[str], limit_of: LimitOf) -> bool:
    """Whether a fresh pair has measured enough quadruples for all suspected metrics."""
    primary = primary_of([quadruples])
    return all(
        bool(verdict.pair_tells(judging.pair_differences(quadruples, metric, primary), limit_of(metric)))
        for metric in metrics
    )


def _paired(situation: Situation, timed: Sequence[str], primary: str) -> tuple[Judged, int]:
    return confirmed_by_pairs(situation.evidence.pairs, timed, primary, situation.limit_of, situation.tests)


# What both ways share


def _suspects(judgements: Sequence[Judgement], primary: str) -> set[str]:
    """Return the metrics that look regressed, and the primary one where some launches are slower than others."""
    return {
        judgement.metric
        for judgement in judgements
        if judgement.verdict is Verdict.REGRESSED or (judgement.metric == primary and judgement.suspicious)
    }


def _to_be_built_again(judgements: Sequence[Judgement], measurement: CaseMeasurement, before: str) -> bool:
    """Whether a suspicion is of the build, or of the latency of another build than that of `before`, its digest.

    Launches of one build of which some are slower differ in something else.
    """
    worse = {one.metric for one in judgements if one.verdict is Verdict.REGRESSED}
    other = measurement.primary in worse and is_another_build(measurement.build, before)
    return other or bool(worse & judging.OF_THE_BUILD)


def is_another_build(build: Build | None, before: str) -> bool:
    """Whether a module is stored, and is not the one of this digest: its kernels may be others."""
    return build is not None and build.artifact not in ("", before)


def artifact_of(measurement: CaseMeasurement) -> str:
    """Return the digest of the compiled module that was measured; empty where nothing is stored of it."""
    return "" if measurement.build is None else measurement.build.artifact


def _artifact_before(situation: Situation, *, since_anchor: bool) -> str:
    """Return that of the session that a case is held against; empty where it is not known."""
    record, accelerator = situation.record, situation.accelerator
    if record is None:
        return ""
    held = record.anchor_of if since_anchor else record.compared_with
    return held(accelerator.uuid, accelerator.versions)[-1].artifact


def _both_say(first: Sequence[Judgement], again: Judged) -> list[Judgement]:
    """Return the first judgements, each suspicion as the second look has it: `regressed` only if both say so."""
    return [
        verdict.confirm_stored(judgement, again[judgement.metric]) if judgement.metric in again else judgement
        for judgement in first
    ]


def _stored_figures(situation: Situation, now: dict[str, float]) -> dict[str, float]:
    record, accelerator = situation.record, situation.accelerator
    return {} if record is None else record.figures_like(now, accelerator.uuid, accelerator.versions)


def _counted_again(first: Sequence[Judgement], again: Judged, before: Build | None, now: Build) -> Judged:
    """Return judgements of another build of the same code: no count is confirmed in which the two builds differ.

    Neither is one that the other build could not count.
    """
    one, other = (_of_build(build) if build is not None else {} for build in (before, now))
    found = dict(again)
    for judgement in first:
        metric = judgement.metric
        if metric not in OF_A_CALL or judgement.verdict is not Verdict.REGRESSED:
            continue
        counts = sorted(build.get(metric, math.inf) for build in (one, other))
        if metric not in again or counts[1] > counts[0] * (1 + COUNTS_APART):
            found[metric] = msgspec.structs.replace(again.get(metric, judgement), verdict=Verdict.UNCONFIRMED)
    return found


def _of_build(build: Build) -> dict[str, float]:
    return measurement_summary.build_figures(build)


def _counted(situation: Situation, now: dict[str, float], before: dict[str, float]) -> Judged:
    judged = judging.counted(situation.case, now, before, situation.limit_of, situation.tests)
    return {judgement.metric: judgement for judgement in judged}


def _going_on_with_counts(
    situation: Situation, told: CaseResult, now: dict[str, float], before: dict[str, float]
) -> CaseResult:
    """Return a result with what a call does more of than its baseline or base, and where."""
    counted = _counted(situation, now, before).values()
    more = [one for one in counted if one.metric in OF_A_CALL and one.verdict is Verdict.REGRESSED]
    more = [_with_places(situation, told.measurement, one) for one in more]
    return msgspec.structs.replace(told, sentence=going_on(told.sentence, more), judgements=more)


def _with_places(situation: Situation, measurement: CaseMeasurement, judgement: Judgement) -> Judgement:
    """Return a judgement of what a call was counted to do with what there is more of, and where."""
    if judgement.metric not in OF_A_CALL or judgement.verdict != Verdict.REGRESSED:
        return judgement
    first = situation.evidence.first
    base = None if first is None or first.base is None else first.base.build
    before = base.calls if base is not None else situation.record.calls if situation.record is not None else None
    now = None if measurement.build is None else measurement.build.calls
    if before is None or now is None:
        return judgement
    if base is None and before.counts.get(judgement.metric) != judgement.baseline:
        return judgement  # counted with other versions than it is held against, or in another session
    more = verdict.more_of(before.places.get(judgement.metric), now.places.get(judgement.metric))
    return msgspec.structs.replace(judgement, groups=more)


def _concluded(situation: Situation, measurement: CaseMeasurement, judgements: list[Judgement]) -> CaseResult:
    """Let the verdict follow from the judgements of all metrics, and from that whether it may be stored."""
    situation = _of_its_card(situation, measurement)
    judgements = [_with_places(situation, measurement, one) for one in judgements]
    said = verdict.case_verdict(judgements, measurement.primary)
    why = sentence(situation.case.id, said, judgements, measurement.primary)
    of_latency = any(one.metric == measurement.primary and one.verdict is said for one in judgements)
    second = _of_second_build(situation, said) if of_latency else ""
    why += second
    why += _upgrade(situation, said, judgements) or _same_program(situation, measurement, judgements, bool(second))
    explanation = explanation_of(said, judgements)
    why = why if explanation is None else explained(why, explanation)
    stored = _may_be_stored(situation, said, judgements)
    return msgspec.structs.replace(_told(situation, measurement, said, why, stored=stored), judgements=judgements)


def _upgrade(situation: Situation, said: Verdict, judgements: Sequence[Judgement]) -> str:
    """Return what goes on with the sentence where the baseline is of other versions."""
    if situation.record is None:
        return ""
    since_anchor = any(one.since_anchor and one.verdict is said for one in judgements)
    found = judging.upgrade(situation.record, situation.accelerator, since_anchor=since_anchor)
    return f"; {found}" if found else ""


def _of_second_build(situation: Situation, said: Verdict) -> str:
    """Return what goes on with the sentence where a latency was measured again of another build of the same program."""
    first, rebuilt = situation.evidence.first, situation.evidence.rebuilt
    if first is None or rebuilt is None or not is_another_build(rebuilt.candidate, artifact_of(first.candidate)):
        return ""
    if said is Verdict.UNCONFIRMED:
        return "; that was a second build of it, and builds of a program may differ"
    return "; a second build of it is slower too" if said is Verdict.REGRESSED else ""


def _same_program(
    situation: Situation, measurement: CaseMeasurement, judgements: Sequence[Judgement], second: bool
) -> str:
    """Return what goes on with the sentence of a case that is slower though its program is that of the baseline.

    Its code did not do that: TensorRT may have built it otherwise, or the machine is slower. Nothing is said of the
    total change, whose anchor may be of another program, nor by a session of another card. `second` says that the
    sentence tells of a second build.
    """
    record, build, uuid = situation.record, measurement.build, situation.accelerator.uuid
    recent = [one for one in judgements if one.metric == DEVICE and not one.since_anchor]
    slower = any(one.verdict is Verdict.REGRESSED for one in recent)
    if not slower or record is None or not record.sessions or build is None or build.program is None:
        return ""
    session = record.compared_with(uuid, situation.accelerator.versions)[-1]
    if session.uuid != uuid or session.program is None or not program_changes.same(session.program, build.program):
        return ""
    if session.artifact and session.artifact == build.artifact:
        return "; it is the compiled module of the baseline: look at the machine"
    builds = "in other builds" if second else "in another build"
    return f"; it is the same program {builds}, and builds of a program may differ"


def _told(situation: Situation, measurement: CaseMeasurement, said: Verdict, why: str, *, stored: bool) -> CaseResult:
    return CaseResult(
        case_id=situation.case.id, measurement=measurement, verdict=said, sentence=why,
        stored=stored and not situation.failing,
    )  # fmt: skip


def _noting(result: CaseResult, *notices: Notice) -> CaseResult:
    return msgspec.structs.replace(result, notices=(*result.notices, *notices))


def primary_of(pairs: Sequence[Sequence[Quadruple]]) -> str:
    """Return the metric that decides in pairs: host latency where the candidate was timed with the host's clock."""
    return HOST if pairs[0][0].candidate[0].clock.startswith(ON_HOST) else DEVICE
