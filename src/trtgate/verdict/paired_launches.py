"""A base against a candidate, measured side by side: quadruples in a pair of launches, then fresh pairs.

Two stages. *Screening*, within one pair of launches, decides nothing but who is suspected, and stops as soon as it can.
*Confirmation* measures fresh pairs of processes, whose means are free of what made the case suspect, and alone decides.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from .error_rates import FAMILY_ALPHA, POWER, PROOF_ALPHA, probability, quantile
from .judgement import Judgement, Verdict
from .launch_groups import slower_group

LOOKS = (6, 10, 16)
"""After how many quadruples, and in confirmation after how many pairs, it is looked whether enough is known."""
FIRST_LOOK = 3
"""After how many quadruples a case may be cleared already; none is suspected so soon."""
SCREENING_LOOKS = (FIRST_LOOK, *LOOKS)
SCREEN_ALPHA = 0.01
"""Error rate of either side of the screening within a pair, split among the looks."""
FEWEST_QUADRUPLES, QUADRUPLES_A_PAIR, MOST_QUADRUPLES = 2, 4, 12
"""Quadruples that each confirming pair measures: at least, as a rule, and where they are noisy at most."""
NEGLIGIBLE, COARSE = 0.05, 0.5
"""Standard errors of a pair's mean, as shares of the limit. Up to the first no further quadruple is needed: how far
fresh pairs lie apart is all that counts then. Above the second further ones tell more than another pair would."""
DOUBT = 1.0
"""Standard errors by which an estimate may lie below the limit, and leave open whether the metric exceeds it."""
QUEUED_SD = 0.026
"""How far the logs of device latency by queued events lie apart between launches of the same module: standard deviation
(1.5 % between means of three launches, docs/verdicts.md). One pair can't see that, and proves nothing of it. All else
is taken as it is measured, host latency too: sides that take turns on one CPU lie 1 to 3 % apart (docs/server.md)."""


class Screening(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at a pair says, arrays over cases; `mean`, `low`, `high` are differences of logs."""

    flagged: Any
    """Suspected: to be measured in fresh pairs."""
    cleared: Any
    """Proven, within this pair, to lie below the limit."""
    mean: Any
    low: Any
    high: Any


class Confirmation(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at fresh pairs says, arrays over cases; `mean`, `low`, `high` are differences of logs."""

    confirmed: Any
    refuted: Any
    mean: Any
    low: Any
    """At the alpha that decides."""
    high: Any
    """At PROOF_ALPHA."""
    p: Any


def differences(base: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Return d = ½·Σ ln(candidate / base) of quadruples; both arrays are (..., quadruples, 2), any one unit.

    In the order ABBA or BAAB a linear drift of the machine cancels (the classical switchback design). Raises ValueError
    for what is not a positive, finite number.
    """
    values = np.stack([base, candidate])
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("latencies must be positive, finite numbers")
    return np.asarray(0.5 * np.sum(np.log(candidate) - np.log(base), axis=-1))


def screen(d: np.ndarray, limit: float, unseen_sd: float = 0.0) -> Screening:
    """Look at quadruple differences `d` (..., n) of one pair of launches; n is one of SCREENING_LOOKS.

    One-sided t intervals (Student) for the mean of d, at SCREEN_ALPHA split evenly among the looks (Bonferroni over
    looks; sequential testing after e.g. Jennison and Turnbull, Group Sequential Methods, ch. 1). Flagged when the lower
    bound exceeds `limit`; cleared when the upper bound lies below it; else the next look decides, and at the last look
    what is estimated above the limit is flagged too. At the first look nothing is flagged. `unseen_sd` widens the upper
    bound by a known spread between two launches, ln: a suspicion costs fresh pairs, a proof must hold. Assumes
    independent, roughly normal d; of the launches' own offset it can know nothing, which is why a flag is a suspicion
    only.
    """
    n = d.shape[-1]
    mean, error = _mean_and_error(d)
    t = quantile(SCREEN_ALPHA / len(SCREENING_LOOKS), n - 1)
    log_limit = math.log1p(limit)
    low = mean - t * error
    high = mean + np.sqrt((t * error) ** 2 + 2 * (quantile(SCREEN_ALPHA, 1000) * unseen_sd) ** 2)
    cleared = high < log_limit
    flagged = (low > log_limit) & (n > FIRST_LOOK)
    if n >= LOOKS[-1]:
        flagged = flagged | (~cleared & (mean > log_limit))
    return Screening(flagged=flagged, cleared=cleared, mean=mean, low=low, high=high)


def may_exceed(d: np.ndarray, limit: float) -> np.ndarray:
    """Whether the mean of quadruple differences `d` (..., n) exceeds `limit`, or would within DOUBT standard errors.

    Three quadruples of a noisy host put one in ten changes of two and a half limits below the limit (docs/verdicts.md).
    """
    mean, error = _mean_and_error(d)
    return np.asarray(mean + DOUBT * error > math.log1p(limit))


def confirm(pair_means: np.ndarray, limit: float, tests: int) -> Confirmation:
    """Look at the means `pair_means` (..., n) of n fresh pairs of launches; n is one of LOOKS.

    A one-sided t interval over pairs (Student) at FAMILY_ALPHA / `tests` split evenly among the looks: Bonferroni over
    all that a run judges, so a run in which nothing changed fails with probability FAMILY_ALPHA at most, whatever
    screening let through, as far as pair means are normal. Where launches have two modes, six pairs that all fall the
    same way look certain: docs/verdicts.md has what that costs. Confirmed when the lower bound exceeds `limit`; refuted
    as soon as the upper bound at PROOF_ALPHA lies below it (stopping early can only lower the error rate).
    """
    n = pair_means.shape[-1]
    mean, error = _mean_and_error(pair_means)
    log_limit = math.log1p(limit)
    low = mean - quantile(FAMILY_ALPHA / tests / len(LOOKS), n - 1) * error
    high = mean + quantile(PROOF_ALPHA, n - 1) * error
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.where(error > 0, probability((mean - log_limit) / error, n - 1), np.where(mean > log_limit, 0.0, 1.0))
    return Confirmation(confirmed=low > log_limit, refuted=high < log_limit, mean=mean, low=low, high=high, p=p)


def pair_tells(d: np.ndarray, limit: float) -> np.ndarray:
    """Whether quadruple differences `d` (..., n) of a confirming pair are enough: its mean is all that is used of them.

    Their spread decides, not their mean, so that stopping early favours neither side.
    """
    if d.shape[-1] < FEWEST_QUADRUPLES:
        return np.zeros(d.shape[:-1], dtype=bool)
    _, error = _mean_and_error(d)
    if d.shape[-1] >= MOST_QUADRUPLES:
        return np.ones(d.shape[:-1], dtype=bool)
    wanted = COARSE if d.shape[-1] >= QUADRUPLES_A_PAIR else NEGLIGIBLE
    return np.asarray(error <= wanted * math.log1p(limit))


def _mean_and_error(values: np.ndarray) -> tuple[Any, Any]:
    n = values.shape[-1]
    return np.mean(values, axis=-1), np.std(values, axis=-1, ddof=1) / math.sqrt(n)


def judge_screened(
    metric: str,
    d: np.ndarray,
    base: float,
    *,
    limit: float,
    tests: int,
    unseen_sd: float = 0.0,
) -> tuple[Judgement, bool]:
    """Judge one metric of one case by its quadruples so far; returns (judgement, whether more would help).

    `base` is the base's typical value in the metric's unit, `unseen_sd` as in `screen`. `regressed` is a suspicion.
    `improved` is said when the upper bound lies below what is as far below as the limit is above.
    """
    found = screen(d, limit, unseen_sd)
    open_ = len(d) < LOOKS[-1]
    verdict = Verdict.UNDERPOWERED
    if found.flagged:
        verdict, open_ = Verdict.REGRESSED, False
    elif found.cleared:
        verdict, open_ = Verdict.IMPROVED if found.high < -math.log1p(limit) else Verdict.UNCHANGED, False
    mean = float(found.mean)
    half = float(quantile(PROOF_ALPHA, len(d) - 1) * np.std(d, ddof=1) / math.sqrt(len(d)))
    half = math.hypot(half, math.sqrt(2) * quantile(PROOF_ALPHA, 1000) * unseen_sd)
    pair_sd = math.hypot(float(np.std(d, ddof=1)) / math.sqrt(QUADRUPLES_A_PAIR), math.sqrt(2) * unseen_sd)
    judgement = _judgement(
        metric, verdict, mean, half, base, limit=limit, sd=pair_sd, tests=tests,
        evidence=f"{len(d)} quadruples in one pair of launches",
    )  # fmt: skip
    return judgement, open_


def judge_confirmed(
    metric: str, pair_means: np.ndarray, base: float, *, limit: float, tests: int
) -> tuple[Judgement, bool]:
    """Judge one suspected metric of one case by fresh pairs so far; returns (judgement, whether more would help).

    `unconfirmed` where they prove that it is not slower beyond the limit, `underpowered` where they can't tell.
    """
    found = confirm(pair_means, limit, tests)
    n = len(pair_means)
    open_ = n < LOOKS[-1] and not found.confirmed and not found.refuted
    verdict = Verdict.UNCONFIRMED if found.refuted else Verdict.UNDERPOWERED
    if found.confirmed:
        verdict = Verdict.REGRESSED
    mean, sd = float(found.mean), float(np.std(pair_means, ddof=1))
    judgement = _judgement(
        metric, verdict, mean, float(found.high) - mean, base, limit=limit, sd=sd, tests=tests,
        evidence=f"{n} fresh pairs of launches", p=float(found.p),
    )  # fmt: skip
    return msgspec.structs.replace(judgement, groups=slower_group(pair_means, 0.0, limit, "pairs of processes")), open_


def _judgement(
    metric: str, verdict: Verdict, mean: float, half: float, base: float, *,
    limit: float, sd: float, tests: int, evidence: str, p: float = 1.0,
) -> Judgement:  # fmt: skip
    """Put a judgement together; `sd` is that of a pair's mean, and with it what confirmation at its last look sees."""
    pairs = LOOKS[-1]
    error = sd / math.sqrt(pairs)
    threshold = math.log1p(limit) + error * quantile(FAMILY_ALPHA / tests / len(LOOKS), pairs - 1)
    return Judgement(
        metric=metric,
        verdict=verdict,
        now=base * math.exp(mean),
        baseline=base,
        change=math.expm1(mean),
        low=math.expm1(mean - half),
        high=math.expm1(mean + half),
        limit=limit,
        threshold=math.expm1(threshold),
        detectable=math.expm1(threshold + error * quantile(1 - POWER, pairs - 1)),
        evidence=evidence,
        p=p,
    )
