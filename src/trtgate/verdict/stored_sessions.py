"""A session against stored ones: a prediction limit from the baseline's sessions, and a prior while they are few."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from ..common.metrics import DEVICE, OF_LOAD, ON_HOST, QUEUED
from ..common.text_columns import number_of
from .error_rates import FAMILY_ALPHA, POWER, PROOF_ALPHA, probability, quantiles
from .judgement import Judgement, Verdict
from .launch_groups import slower_group
from .session_order import ordered_spread

ENOUGH_SESSIONS = 8
"""From here on the spread between the baseline's own sessions is trusted without the prior."""
KNOWN_LAUNCHES = 4
"""So many stored launches, less one for each session, say how far launches lie apart without the prior."""
TRIMMED = 0.2
"""Share of captures left out at either end of a launch: one that was not warm yet must not move its mean."""


class Prior(msgspec.Struct, frozen=True):
    """What is known of the spread between sessions before there are enough: `sd` of the log, with its own `dof`."""

    sd: float
    dof: int


PRIORS = {
    # Measured: device 0.01-0.08 % between launches of a card over 16 launches; between cards of a key 0.95 %, of which
    # 1.2 % is the upper bound at 80 %; host 7-25 % over 16 launches; CPU 9.6 % between 20 runs on a shared machine
    # (docs/decisions/0002-spread-between-sessions.md, 0035-own-cards-sessions.md).
    ("device", True): Prior(0.001, 16),
    ("device", False): Prior(0.012, 16),
    # By queued events: 1.5 % between sessions, in twelve pairs of them on three H200s; 1.8 % is the upper bound at
    # 80 % (docs/verdicts.md).
    ("queued", True): Prior(0.018, 6),
    ("queued", False): Prior(0.018, 6),
    ("host", True): Prior(0.15, 16),
    ("host", False): Prior(0.15, 16),
    ("enqueue", True): Prior(0.15, 16),
    ("enqueue", False): Prior(0.15, 16),
    ("cpu", True): Prior(0.10, 19),
    ("cpu", False): Prior(0.10, 19),
    # One build a session: its time is the host's, at work for seconds, and moves less than a single host latency.
    ("build", True): Prior(0.10, 16),
    ("build", False): Prior(0.10, 16),
    # Under load: host time, as host latency is, on a CPU too; the 99th percentile lies further apart. Not measured on a
    # GPU (docs/server.md has two CPUs), nor is how far launches with a cold L2 lie apart: both are taken wide.
    **{
        (f"{of}_{what}", own): Prior(sd, 16)
        for of in ("threads", "processes")
        for what, sd in (("throughput", 0.15), ("p50", 0.15), ("p99", 0.40))
        for own in (True, False)
    },
    ("cold_l2", True): Prior(0.02, 16),
    ("cold_l2", False): Prior(0.02, 16),
    # Taken to be as a build, which is seconds of the host's work too: not measured on a GPU.
    **{(metric, own): Prior(0.10, 16) for metric in ("cold_start", "cold_start_cached") for own in (True, False)},
}
"""(what, whether the sessions are of this very card) → prior; "cpu" is host latency where there is no GPU, "queued"
device latency that no CUDA graph was captured for."""


def prior(metric: str, *clocks: str, own: bool = True) -> Prior:
    """Return what is known of the spread of a metric between sessions, of this card (`own`) or of others.

    `clocks` name what the sessions were timed with; of two the one whose sessions lie further apart counts.
    """
    clock = "+".join(sorted(set(clocks)))
    if clock.startswith(ON_HOST) and metric not in OF_LOAD:
        metric = "cpu"
    elif metric == DEVICE and QUEUED in clock:
        metric = "queued"
    return PRIORS[metric, own]


def launch_mean(log_captures: Sequence[float] | np.ndarray) -> float:
    """Return the trimmed mean over a launch's captures (Tukey), as scipy.stats.trim_mean does."""
    ordered = np.sort(log_captures)
    cut = int(TRIMMED * len(ordered))
    return float(ordered[cut : len(ordered) - cut].mean())


def log_launch_means(samples: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """Reduce launch → capture → block values to one number a launch.

    The trimmed mean over captures of the log of the median of their blocks. Raises ValueError when a launch is empty or
    a value is not a positive, finite number.
    """
    means = []
    for launch in samples:
        values = [np.asarray(blocks, dtype=float) for blocks in launch if len(blocks)]
        if not values:
            raise ValueError("a launch has no samples")
        if not all(np.isfinite(v).all() and (v > 0).all() for v in values):
            raise ValueError("latencies must be positive, finite numbers")
        means.append(launch_mean([np.log(np.median(v)) for v in values]))
    if not means:
        raise ValueError("there are no launches")
    return np.asarray(means)


def within_session_sd(sessions: Iterable[np.ndarray], launches: int) -> Any:
    """Return the standard error that the spread of launches gives the mean of a session of `launches`.

    Pools the variance of launches within sessions (one-way analysis of variance, e.g. Box, Hunter and Hunter,
    Statistics for Experimenters, ch. 4); assumes that the spread is the same in all. Each session is an array
    (..., launches of its own). 0 when no session has two.
    """
    squares: Any = 0.0
    dof = 0
    for launch_means in sessions:
        squares = squares + np.sum((launch_means - np.mean(launch_means, axis=-1, keepdims=True)) ** 2, axis=-1)
        dof += launch_means.shape[-1] - 1
    return np.sqrt(squares / dof / launches) if dof else np.zeros_like(squares)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A session held against stored ones, arrays over cases; all are differences of logs, but `p`."""

    change: Any
    gate: Any
    """How far a further session may lie off, at FAMILY_ALPHA shared among the tests."""
    proof: Any
    """Half the interval of the change, at PROOF_ALPHA."""
    threshold: Any
    detectable: Any
    p: Any
    regressed: Any
    improved: Any
    unchanged: Any


def compare_stored(
    now: np.ndarray, session_means: np.ndarray, within: Any, prior: Prior, *, limit: float, tests: int,
    others: Sequence[np.ndarray] = (), within_stored: Any = None, ordered: bool = True,
    compared: Sequence[int] | None = None, groups: Sequence[Sequence[int]] | None = None,
) -> Comparison:  # fmt: skip
    """Hold session means `now` (...) against stored ones `session_means` (..., S) by a prediction limit.

    The limit is ȳ + t·√(s² + s_ȳ²/S), with s_ȳ = s that of Hahn and Meeker (Statistical Intervals, ch. 4.8:
    prediction interval for one future observation of a normal distribution), at FAMILY_ALPHA / `tests`
    (Bonferroni), and never tighter than `limit`. s is the spread of the S means in the order of time, the oldest
    first, from which a trend or a step is left out (`ordered_spread`). It is pooled
    with that of each of `others` (..., S'): session means of other cards, which say how far sessions lie apart and not
    where this card's lie. With `compared` only the means of these numbers are compared with, while all of them say
    how far sessions lie apart: all together, or, with `groups`, those of each group by themselves, as sessions of other
    versions may lie elsewhere. Where the means have no order (`ordered` is False: each is another card's) s is their
    standard deviation. Fewer than ENOUGH_SESSIONS of one group, or as many differences of
    several, do not do alone: s is then the larger of that and the prior, with the prior's degrees of freedom. It is
    never less than `within` (`within_session_sd`), what the launches' spread alone gives a mean, and s_ȳ never less
    than `within_stored`, where stored sessions have other numbers of launches.
    `unchanged` asks for proof: the upper bound at PROOF_ALPHA lies below `limit`. Assumes normal, independent session
    means.
    """
    located = session_means if compared is None else session_means[..., list(compared)]
    stored = located.shape[-1]
    apart = [session_means] if groups is None else [session_means[..., list(group)] for group in groups]
    sd, dof = _spread([*apart, *others], ordered=ordered)
    if sum(means.shape[-1] - 1 for means in (*apart, *others)) < ENOUGH_SESSIONS - 1:
        sd, dof = np.maximum(sd, prior.sd), prior.dof
    sd_now, sd_stored = np.maximum(sd, within), np.maximum(sd, within if within_stored is None else within_stored)
    error = np.sqrt(sd_now**2 + sd_stored**2 / stored)
    change = now - np.mean(located, axis=-1)
    gate = error * quantiles(FAMILY_ALPHA / tests, dof)
    proof = error * quantiles(PROOF_ALPHA, dof)
    log_limit = math.log1p(limit)
    threshold = np.maximum(gate, log_limit)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = (
            probability((change - log_limit) / error, dof)
            if np.all(error > 0)
            else np.where(change > log_limit, 0.0, 1.0)
        )
    return Comparison(
        change=change, gate=gate, proof=proof, threshold=threshold,
        detectable=threshold + error * quantiles(1 - POWER, dof), p=p,
        regressed=change > threshold, improved=change < -threshold, unchanged=change + proof < log_limit,
    )  # fmt: skip


def _spread(groups: Sequence[np.ndarray], *, ordered: bool) -> tuple[Any, Any]:
    """Return the standard deviation of session means within groups (..., S of its own), and its degrees of freedom."""
    variances: Any = 0.0
    total: Any = 0.0
    for means in groups:
        dof: Any = means.shape[-1] - 1.0
        variance: Any = np.var(means, axis=-1, ddof=1) if dof else 0.0
        if ordered:
            variance, dof = ordered_spread(means)
        variances, total = variances + variance * dof, total + dof
    return np.sqrt(variances / np.maximum(total, 1)), total


def judge_stored(
    metric: str, now: np.ndarray, sessions: Sequence[np.ndarray], prior: Prior, *, limit: float, tests: int,
    others: Sequence[Sequence[np.ndarray]] = (), evidence: str = "", ordered: bool = True,
    compared: Sequence[int] | None = None, groups: Sequence[Sequence[int]] | None = None,
) -> Judgement:  # fmt: skip
    """Judge one session by `compare_stored`: `now` and each of `sessions` are `log_launch_means`, microseconds.

    `sessions` are in the order of time, the oldest first. A stored session with fewer launches than this one has a
    less certain mean; one with more gets no extra weight. `others` are those of other cards; `compared` and `groups` as
    `compare_stored` has them. On a card that has no session each of `sessions` is another card's, all its launches
    together, and not `ordered`. `evidence` replaces the default label "N stored sessions".
    Slower beyond the limit is `regressed` here: a suspicion, until fresh launches confirm it.
    """
    means = np.asarray([np.mean(session) for session in sessions])
    spread = within_session_sd([*sessions, now, *chain.from_iterable(others)], 1)
    located = range(len(sessions)) if compared is None else compared
    fewest = min(len(now), *(len(sessions[number]) for number in located))
    other_means = [np.asarray([np.mean(session) for session in card]) for card in others]
    found = compare_stored(
        np.asarray(np.mean(now)), means, spread / math.sqrt(len(now)), prior, limit=limit, tests=tests,
        others=other_means, within_stored=spread / math.sqrt(fewest), ordered=ordered,
        compared=compared, groups=groups,
    )  # fmt: skip
    usual = float(within_session_sd(sessions, 1))
    if sum(len(session) - 1 for session in sessions) < KNOWN_LAUNCHES:
        usual = max(usual, prior.sd)
    if found.regressed:
        verdict = Verdict.REGRESSED
    elif found.improved:
        verdict = Verdict.IMPROVED
    elif found.unchanged:
        verdict = Verdict.UNCHANGED
    else:
        verdict = Verdict.UNDERPOWERED
    change, proof = float(found.change), float(found.proof)
    return Judgement(
        metric=metric,
        verdict=verdict,
        now=math.exp(float(np.mean(now))),
        baseline=math.exp(float(np.mean(means[list(located)]))),
        change=math.expm1(change),
        low=math.expm1(change - proof),
        high=math.expm1(change + proof),
        limit=limit,
        threshold=math.expm1(float(found.threshold)),
        detectable=math.expm1(float(found.detectable)),
        evidence=evidence or f"{number_of(len(located), 'stored session')}{' of this card' * bool(others)}",
        p=float(found.p),
        groups=slower_group(now, usual, limit),
    )


def confirm_stored(first: Judgement, again: Judgement) -> Judgement:
    """Combine a suspicion with the same test on fresh launches, whose figures are free of the selection.

    `regressed` only if both say so, which can only lower the false-alarm rate. `unconfirmed` only if the fresh launches
    prove that it is not slower beyond the limit: they alone would be `unchanged` or `improved`, or `unconfirmed` where
    they are pairs. Else it is `underpowered`, and the suspicion stands.
    """
    if not first.suspicious:
        return first
    if first.verdict is Verdict.REGRESSED and again.verdict is Verdict.REGRESSED:
        return again
    if again.verdict in (Verdict.UNCHANGED, Verdict.IMPROVED, Verdict.UNCONFIRMED):
        return msgspec.structs.replace(again, verdict=Verdict.UNCONFIRMED)
    return msgspec.structs.replace(again, verdict=Verdict.UNDERPOWERED, suspected=first.change)
