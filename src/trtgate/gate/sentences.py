"""A verdict as one readable sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..common.explanations import Explanation, continued, explained
from ..common.metrics import (
    A_CALL,
    BUILD,
    COLD_GPU_MEMORY,
    COLD_HOST_MEMORY,
    COLD_L2,
    COLD_START,
    COLD_START_CACHED,
    DEVICE,
    EACH,
    ENGINE_BYTES,
    ENGINES,
    ENQUEUE,
    EXACT,
    GPU_MEMORY,
    GRAPHS,
    HOST,
    LEAF_ERROR,
    METRICS,
    OF_A_CALL,
    OF_GROWTH,
    OF_LOAD,
    PYTORCH_OPERATORS,
    QUEUED,
)
from ..common.text_columns import first_few, number_of, three_digits
from ..verdict import OTHER_CARD, Judgement, Verdict

if TYPE_CHECKING:
    from ..records.measurement import CaseMeasurement
    from .case_result import CaseResult

_SAYS = {
    Verdict.REGRESSED: "is slower",
    Verdict.IMPROVED: "is faster",
    Verdict.UNCHANGED: "is unchanged",
    Verdict.UNCONFIRMED: "looked slower, and fresh launches did not confirm it",
    Verdict.UNDERPOWERED: "can't be told from noise at its limit",
}
_SAYS_OF_COUNTS = {
    Verdict.REGRESSED: "got worse",
    Verdict.UNCONFIRMED: "looked worse, and doing it again did not confirm it",
}

_REGRESSED = {
    Explanation.REGRESSED_DEVICE: (DEVICE,),
    Explanation.REGRESSED_HOST: (HOST, ENQUEUE),
    Explanation.REGRESSED_BUILD: (BUILD,),
    Explanation.REGRESSED_SIZE: (ENGINE_BYTES, GPU_MEMORY),
    Explanation.REGRESSED_COLD_START: (COLD_START, COLD_START_CACHED, COLD_HOST_MEMORY, COLD_GPU_MEMORY),
    Explanation.REGRESSED_LOAD: (*OF_LOAD, COLD_L2),
    Explanation.REGRESSED_CALLS: OF_A_CALL,
    Explanation.REGRESSED_PARTITION: (ENGINES, PYTORCH_OPERATORS),
    Explanation.REGRESSED_ACCURACY: (LEAF_ERROR,),
    Explanation.MEMORY_GROWTH: OF_GROWTH,
}
EXPLANATIONS = {metric: explanation for explanation, metrics in _REGRESSED.items() for metric in metrics}
"""Metric → what explains that it got worse."""
_UNDECIDED = {
    Verdict.UNCONFIRMED: Explanation.UNCONFIRMED,
    Verdict.UNDERPOWERED: Explanation.UNDERPOWERED,
}


def explanation_of(verdict: Verdict, judgements: Sequence[Judgement]) -> Explanation | None:
    """Return what explains a verdict on judged metrics: of several that got worse the first; None if it asks nothing.

    A suspicion that is neither confirmed nor refuted is explained as one, whatever the verdict on other metrics is.
    """
    worse = [one.metric for one in judgements if one.verdict is Verdict.REGRESSED]
    if verdict is Verdict.REGRESSED and worse:
        return EXPLANATIONS[worse[0]]
    if any(one.suspected is not None and one.verdict is verdict for one in judgements):
        return Explanation.SUSPECTED
    return _UNDECIDED.get(verdict)


def sentence(case_id: str, verdict: Verdict, judgements: Sequence[Judgement], primary: str) -> str:
    """Say what a verdict rests on: case, metric, baseline, now, change with interval, limit."""
    shown = [judgement for judgement in judgements if judgement.verdict is verdict]
    if verdict is Verdict.UNCHANGED or not shown:
        shown = [judgement for judgement in judgements if judgement.metric == primary] or shown
    says = (_SAYS if METRICS[shown[0].metric].unit in ("us", EACH, "s") else _SAYS | _SAYS_OF_COUNTS)[verdict]
    open_ = [judgement for judgement in shown if judgement.suspected is not None]
    if open_:
        shown, says = open_, "looked worse, and measuring again neither confirmed nor refuted it"
    said = f"{case_id} {says}: {_listed(shown)}"
    seen = shown[0]
    if verdict is Verdict.UNDERPOWERED and METRICS[seen.metric].unit != A_CALL:
        more = "record one on this card, or " if OTHER_CARD in seen.evidence else "record more sessions, or "
        said += (
            f"; with {seen.evidence} only a change above {percent(seen.detectable)} would be seen: "
            f"{more * ('stored' in seen.evidence)}raise the limit"
        )
    return said


def same(case_id: str, recorded: str) -> str:
    """Say that device latency was left out, and why."""
    return f"{case_id} is the same as in the session of {recorded}: nothing that decides its device latency differs"


def moved(case_id: str, recorded: str, change: float) -> str:
    """Say that what was left out would have been worth measuring."""
    return explained(
        f"{case_id} was measured at random although it is the same as in the session of {recorded}, and its device "
        f"latency moved by {change:+.2%}: something decides it that trtgate does not see, so no case of this run that "
        "is called the same is proven; run it without --trtgate-changed",
        Explanation.SAME_MOVED,
    )


def going_on(said: str, judgements: Sequence[Judgement]) -> str:
    """Let a sentence go on with what some metrics read."""
    return continued(said, f"; {_listed(judgements)}" * bool(judgements))


def grows(case_id: str, judgement: Judgement) -> str:
    """Say that memory grows with every call, where that is judged by nothing."""
    return explained(f"{case_id}: {_figures(judgement)}", Explanation.MEMORY_GROWTH)


def not_checked(case_id: str, suspects: Sequence[Judgement], why: str) -> str:
    """Say what a case was suspected of, and why nothing could be said of it a second time."""
    return explained(f"{case_id}: suspected, not checked: {_listed(suspects)}; {why}", Explanation.SUSPECTED)


def not_stored(case_id: str, verdict: str, why: str = "", *, void: bool = False) -> str:
    """Say that a session was not added to the baseline, why, and how it would be; one whose blocks are `void` can't."""
    what_to_do = "record it again when nothing else runs" if void else f"to store it: {_accept(case_id)}"
    said = f"{case_id}: not stored, since it is {verdict}{': ' * bool(why)}{why}; {what_to_do}"
    return explained(said, Explanation.NOT_STORED)


def stored_as_accepted(case_id: str, verdict: str) -> str:
    """Say that a session is added to the baseline without proof."""
    return explained(f"{case_id}: stored although it is {verdict}, since it is accepted", Explanation.STORED_UNPROVEN)


def about_new(
    case_ids: Sequence[str], key: str, other_keys: Sequence[str], looked_for: str = "", elsewhere: str = "", *,
    recording: bool = False,
) -> str:  # fmt: skip
    """Say that nothing is stored for some cases, what there is, and how to record them unless this run is `recording`.

    `looked_for` is the file that is not there, `elsewhere` one of this accelerator in another folder.
    """
    there = [f"there are baselines for {', '.join(other_keys)}"] * bool(other_keys)
    there += [f"no file {looked_for}"] * bool(looked_for)
    there += [f"there is {elsewhere}: is the ini key trtgate_baselines right?"] * bool(elsewhere)
    others = f" ({'; '.join(there)})" if there else ""
    named = first_few(case_ids, 2)
    said = f"nothing is stored for {key}{others}: {named}; {_records(recording=recording)} them"
    return explained(said, Explanation.NEW_CASE)


def about_other_clock(
    case_ids: Sequence[str], clock: str, stored: Mapping[str, int], *, recording: bool = False
) -> str:
    """Say that nothing is stored of the clock with which some cases were timed, what there is, and how to record them.

    `stored` maps other clocks to how many sessions they have.
    """
    there = " and ".join(f"{number_of(count, 'session')} of {other}" for other, count in stored.items())
    return explained(
        f"timed with the clock {clock}, of which nothing is stored: {first_few(case_ids, 2)}; there {_are(stored)} "
        f"{there}, which {clock} is not compared with; {_records(recording=recording)} it beside them",
        Explanation.NEW_CASE,
    )


def _records(*, recording: bool) -> str:
    return "this run records" if recording else "add --trtgate-update-baselines to record"


def capture_lost(case_id: str, before: Iterable[str], now: CaseMeasurement) -> str:
    """Say that a case can't be captured into a CUDA graph any more; empty if it can, or `before` says it never was."""
    if now.clock != QUEUED or not any(clock.startswith(GRAPHS) for clock in before):
        return ""
    why = next((f": {turn.note}" for turn in now.turns if turn.note), "")
    said = f"{case_id} can't be captured into a CUDA graph any more{why}; latency is not compared with its graph's"
    return explained(said, Explanation.CAPTURE_LOST)


def _are(stored: Mapping[str, int]) -> str:
    return "is" if sum(stored.values()) == 1 else "are"


def about_wide_limits(results: Iterable[CaseResult]) -> list[str]:
    """Name the cases that pass by a limit alone that is wider than the default; an empty list where there are none."""
    passed = [
        f"{result.case_id} ({METRICS[one.metric].title} {change_text(one.metric, one.change, one.baseline)}, limit "
        f"{limit_text(one.metric, one.limit)})"
        for result in results
        for one in result.judgements
        if one.verdict is Verdict.UNCHANGED and METRICS[one.metric].limit < one.change <= one.limit
    ]
    said = f"slower than the default limit allows, and within one that was set: {first_few(passed, 3)}"
    return [explained(said, Explanation.WIDE_LIMIT)] * bool(passed)


def advice(verdict: str, case_id: str, *, beside_base: bool) -> str:
    """Say what to do about a verdict; empty where there is nothing to do, or the sentence says it already."""
    accept = _accept(case_id)
    if verdict == Verdict.REGRESSED:
        return "" if beside_base else f"if that is intended: {accept}"
    if verdict == Verdict.INCOMPARABLE and not beside_base:
        return f"bring the machine into the state of the baseline, or record it anew: {accept}"
    return "to record it: --trtgate-update-baselines" if verdict == Verdict.NEW and not beside_base else ""


def _accept(case_id: str) -> str:
    return f"--trtgate-update-baselines --trtgate-accept '{case_id}'"


def _listed(judgements: Sequence[Judgement]) -> str:
    """Return the figures of each; places that the next one has too, since launches are CUDA calls, are said there."""
    later = [*(one.groups for one in judgements), ""][1:]
    listed = zip(judgements, later, strict=True)
    return "; ".join(_figures(one).removesuffix(f" ({one.groups})" * (one.groups == places)) for one, places in listed)


def _figures(judgement: Judgement) -> str:
    metric = METRICS[judgement.metric]
    values = f"{metric.title} {value(judgement.baseline, metric.unit)} → {value(judgement.now, metric.unit)}"
    if judgement.metric in EXACT:
        change = f" ({judgement.change:+.2%})" * (judgement.baseline > 0)
        return f"{values}{change}, limit {percent(judgement.limit)}{f' ({judgement.groups})' * bool(judgement.groups)}"
    if metric.unit == A_CALL:
        return f"{_of_growth(judgement)}{f' ({judgement.groups})' * bool(judgement.groups)}"
    total = f" since {judgement.evidence}" * judgement.since_anchor
    first = "" if judgement.suspected in (None, judgement.change) else f"; at first {judgement.suspected:+.2%}"
    each = " time an inference" * (metric.unit == EACH)
    return (
        f"{values}{total}, {judgement.change:+.2%}{each} ({judgement.low:+.2%} to {judgement.high:+.2%}), "
        f"limit {percent(judgement.limit)}{first}{'; ' * bool(judgement.groups)}{judgement.groups}"
    )


def _of_growth(judgement: Judgement) -> str:
    """Return what memory grows by, its interval, and the limit: all in bytes a call."""
    metric, before = METRICS[judgement.metric], judgement.baseline

    def bytes_a_call(change: float) -> float:
        return before * (1 + change) if before > 0 else change

    low, high = bytes_a_call(judgement.low), bytes_a_call(judgement.high)
    values = f"{value(before, metric.unit)} → {value(judgement.now, metric.unit)}"
    suspected = judgement.suspected
    first = "" if suspected in (None, judgement.change) else f"; at first {bytes_a_call(suspected or 0.0):,.0f}"
    said = f"{metric.title} {values} ({low:,.0f} to {high:,.0f}, {judgement.evidence})"
    return f"{said}, limit {judgement.limit:,.0f}{first}"


def limit_text(metric: str, limit: float) -> str:
    """Return a metric's limit with its unit."""
    unit = METRICS[metric].unit if metric in METRICS else ""
    return f"{limit:,.4g} bytes a call" if unit == A_CALL else percent(limit)


def change_text(metric: str, change: float, baseline: float) -> str:
    """Return a metric's change: a percentage; of what grew a call and did not before, how many bytes."""
    of_bytes = metric in METRICS and METRICS[metric].unit == A_CALL and baseline <= 0
    return f"{change:+,.0f} bytes a call" if of_bytes else f"{change:+.2%}"


def value(number: float, unit: str) -> str:
    """Return a metric's value with a readable unit."""
    if unit == "us":
        return duration(number)
    if unit == EACH:
        return rate(1e6 / number)
    if unit == A_CALL:
        return f"{number:,.0f} bytes a call"
    if unit == "s":
        return f"{three_digits(number)} s"
    return f"{number / (1 << 20):,.4g} MiB" if unit == "bytes" else three_digits(number)


def duration(us: float) -> str:
    """Return microseconds with a readable unit and five digits."""
    return f"{us / 1e3:,.5g} ms" if us >= 1e3 else f"{us:.5g} µs"


def rate(per_s: float) -> str:
    """Return inferences a second with four digits."""
    return f"{per_s:,.0f}/s" if per_s >= 1e3 else f"{per_s:.4g}/s"


def percent(fraction: float) -> str:
    """Return a fraction as a percentage of three digits."""
    return f"{three_digits(fraction * 100)} %"
