"""Statistics only: arrays in, verdict out. Imports neither torch nor pytest.

The unit of evidence is the session; in it the launch, then the capture, then the block, never raw iterations.
Everything is computed on logarithms of medians: latencies are positive and skewed, and a change is a factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec
import numpy as np
from scipy import stats

FAMILY_ALPHA = 0.01
"""Chance that a run in which nothing changed fails at all, over all its cases and metrics."""
PROOF_ALPHA = 0.01
"""Chance that a case is called `unchanged` although it moved by the limit; also the sides of shown intervals."""
POWER = 0.8
"""With which probability the minimum detectable effect would be flagged."""
ENOUGH_SESSIONS = 8
"""From here on the spread between the baseline's own sessions is trusted without the prior."""


class Verdict(StrEnum):
    """What a run says of a case (DESIGN §5's table)."""

    UNCHANGED = "unchanged"
    IMPROVED = "improved"
    REGRESSED = "regressed"
    UNCONFIRMED = "unconfirmed"
    UNDERPOWERED = "underpowered"
    NEW = "new"
    MISSING = "missing"
    INCOMPARABLE = "incomparable"


class Prior(msgspec.Struct, frozen=True):
    """What is known of the spread between sessions before there are enough: `sd` of the log, with its own `dof`."""

    sd: float
    dof: int


PRIORS = {
    # Measured: device 0.01-0.08 % between launches of a card over 16 launches, 0.35 % between two cards of a key;
    # host 7-25 % over 16 launches; CPU 9.6 % between 20 runs on a shared machine (docs/decisions.md).
    ("device", True): Prior(0.001, 16),
    ("device", False): Prior(0.004, 16),
    ("host", True): Prior(0.15, 16),
    ("host", False): Prior(0.15, 16),
    ("enqueue", True): Prior(0.15, 16),
    ("enqueue", False): Prior(0.15, 16),
    ("cpu", True): Prior(0.10, 19),
    ("cpu", False): Prior(0.10, 19),
}
"""(what, whether all sessions are of this very card) → prior; "cpu" is host latency where there is no GPU."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one case against its baseline. Changes are fractions: 0.012 is 1.2 % slower."""

    metric: str
    verdict: Verdict
    now_us: float
    baseline_us: float
    change: float
    low: float
    high: float
    limit: float
    threshold: float
    """The change beyond which it counts as slower: the prediction limit, never tighter than `limit`."""
    detectable: float
    """Minimum detectable effect: the change that would be flagged with probability POWER."""
    sessions: int


TRIMMED = 0.2
"""Share of captures left out at either end of a launch: one that was not warm yet must not move its mean."""


def launch_mean(log_captures: Sequence[float] | np.ndarray) -> float:
    """Return the trimmed mean over a launch's captures (Tukey; scipy.stats.trim_mean)."""
    return float(stats.trim_mean(np.asarray(log_captures), TRIMMED))


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


def within_session_sd(sessions: Iterable[np.ndarray], launches: int) -> float:
    """Return the standard error that the spread of launches gives a session's mean.

    Pools the variance of launches within sessions (one-way analysis of variance, e.g. Box, Hunter and Hunter,
    Statistics for Experimenters, ch. 4); assumes that the spread is the same in all. 0 when no session has two.
    """
    squares, dof = 0.0, 0
    for launch_means in sessions:
        squares += float(np.sum((launch_means - np.mean(launch_means)) ** 2))
        dof += len(launch_means) - 1
    return math.sqrt(squares / dof / launches) if dof else 0.0


def session_spread(sessions: Sequence[np.ndarray], now: np.ndarray, prior: Prior) -> Prior:
    """Return the standard deviation between session means to reckon with, and its degrees of freedom.

    With ENOUGH_SESSIONS their own; with fewer the larger of theirs and the prior, with the prior's degrees of
    freedom. Never less than what the launches' spread within sessions implies.
    """
    means = np.asarray([np.mean(s) for s in sessions])
    observed = float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
    within = within_session_sd([*sessions, now], len(now))
    if len(means) >= ENOUGH_SESSIONS:
        return Prior(max(observed, within), len(means) - 1)
    return Prior(max(observed, within, prior.sd), prior.dof)


def judge_stored(
    metric: str, now: np.ndarray, sessions: Sequence[np.ndarray], prior: Prior, *, limit: float, tests: int
) -> Judgement:
    """Judge a session against stored ones by a prediction limit for one further session.

    `now` and each of `sessions` are `log_launch_means`. The limit is ȳ + t·s·√(1 + 1/S) (Hahn and Meeker,
    Statistical Intervals, ch. 4.8: prediction interval for one future observation of a normal distribution), at
    FAMILY_ALPHA / `tests` (Bonferroni), and never tighter than `limit`. `unchanged` asks for proof: the upper
    bound at PROOF_ALPHA lies below `limit`. Assumes normal, independent session means. Slower beyond the limit
    is `regressed` here: a suspicion, until fresh launches confirm it.
    """
    base = float(np.mean([np.mean(s) for s in sessions]))
    change = float(np.mean(now)) - base
    spread = session_spread(sessions, now, prior)
    error = spread.sd * math.sqrt(1 + 1 / len(sessions))
    gate = error * float(stats.t.isf(FAMILY_ALPHA / tests, spread.dof))
    proof = error * float(stats.t.isf(PROOF_ALPHA, spread.dof))
    log_limit = math.log1p(limit)
    threshold = max(gate, log_limit)
    if change > threshold:
        verdict = Verdict.REGRESSED
    elif change < -threshold:
        verdict = Verdict.IMPROVED
    elif change + proof < log_limit:
        verdict = Verdict.UNCHANGED
    else:
        verdict = Verdict.UNDERPOWERED
    return Judgement(
        metric=metric,
        verdict=verdict,
        now_us=math.exp(float(np.mean(now))),
        baseline_us=math.exp(base),
        change=math.expm1(change),
        low=math.expm1(change - proof),
        high=math.expm1(change + proof),
        limit=limit,
        threshold=math.expm1(threshold),
        detectable=math.expm1(threshold + error * float(stats.t.isf(1 - POWER, spread.dof))),
        sessions=len(sessions),
    )


def case_verdict(judgements: Sequence[Judgement], primary: str) -> Verdict:
    """Return a case's verdict from its metrics'.

    Any metric that regressed decides. `unchanged`, `improved` and `underpowered` are said of the primary metric: a
    stored baseline can rarely prove a noisy host latency unchanged, and that must not hide what is proven.
    """
    if any(judgement.verdict is Verdict.REGRESSED for judgement in judgements):
        return Verdict.REGRESSED
    return next(judgement.verdict for judgement in judgements if judgement.metric == primary)


def confirm(first: Judgement, again: Judgement) -> Judgement:
    """Combine a suspicion with the same test on fresh launches, whose figures are free of the selection.

    `regressed` only if both say so; else `unconfirmed`. Requiring both can only lower the false-alarm rate.
    """
    if first.verdict is not Verdict.REGRESSED:
        return first
    confirmed = again.verdict is Verdict.REGRESSED
    return msgspec.structs.replace(again, verdict=Verdict.REGRESSED if confirmed else Verdict.UNCONFIRMED)


CANARY_TOLERANCE = {"sm_clock": 0.005, "memory_copy": 0.15, "hash": 0.25}
"""Relative difference beyond which the machine counts as another: the SM clock seen by a kernel, a copy in device
memory, one core's hashing. Between turns the clock moved by 0.1 % on an H200 and hashing by 4 % on a shared CPU."""
CLOCK_TOLERANCE = 0.005


def another_state(
    now: Mapping[str, float],
    baseline: Mapping[str, float],
    now_mhz: float,
    baseline_mhz: float,
    new_throttle: str,
) -> str:
    """Return why this machine's state can't be compared with the baseline's; empty when it can.

    `now` and `baseline` map canaries to microseconds; clocks are median SM clocks in MHz, 0 when unknown;
    `new_throttle` names a throttle reason that the baseline did not have.
    """
    for name, before in baseline.items():
        if name in now and before > 0 and abs(now[name] / before - 1) > CANARY_TOLERANCE.get(name, math.inf):
            return f"the canary {name!r} took {now[name]:.0f} µs, in the baseline {before:.0f} µs"
    if now_mhz and baseline_mhz and abs(now_mhz / baseline_mhz - 1) > CLOCK_TOLERANCE:
        return f"the SM clock was {now_mhz:.0f} MHz, in the baseline {baseline_mhz:.0f} MHz"
    if new_throttle:
        return f"the GPU was held back by its {new_throttle}, and was not in the baseline"
    return ""
