"""Does memory grow with every call? An interval of the slope that neither steps nor random walks pass for a leak."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from ..common.text_columns import number_of
from .judgement import Judgement, Verdict

STRETCHES = 10
LEAST_READINGS = STRETCHES + 1
"""Fewer are too few."""
LEFT_OUT = 1
"""So many stretches at either end may say otherwise than the interval."""
THIRD = 3
"""So many stretches are compared with as many before, by their medians."""
SLOWING = 0.5
"""Growth that gets this much slower from one third to the next ends some time: a cache that fills up."""
LATE = 2
"""In so many stretches at the end memory grows that is read again."""
MORE = 0.1
"""Growth that the baseline has too must be so much more, as a share of it, to be worse."""


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a call, and the interval of that."""

    bytes_a_call: float
    low: float
    high: float


def growth(readings: Sequence[float], calls: int, resolution: float = 0.0) -> Growth | None:
    """Return by how much memory grows a call, from readings `calls` calls apart; None where there are too few.

    Medians of neighbouring readings are taken, LEAST_READINGS in all; the differences of one to the next are STRETCHES
    slopes. The estimate is their median, the interval reaches from the second lowest to the second highest: an interval
    of the median by order statistics (sign test), 97.9 % where the stretches are independent. A least-squares or
    Theil-Sen slope over all readings would take steps and random walks, as allocators make them, for a trend: its
    interval assumes independent errors. Here memory must grow in nine stretches of ten. Nor must growth slow down
    towards the end: else the interval reaches to 0. `resolution` is how many bytes the difference of two readings can't
    tell: it widens the interval.
    """
    of_each = len(readings) // LEAST_READINGS
    if not of_each:
        return None
    grouped = np.asarray(readings, dtype=float)[-LEAST_READINGS * of_each :].reshape(LEAST_READINGS, of_each)
    in_time = np.diff(np.median(grouped, axis=1)) / (of_each * calls)
    slopes, later, before = np.sort(in_time), in_time[-THIRD:], in_time[-2 * THIRD : -THIRD]
    settling = np.median(later) < SLOWING * np.median(before)
    unknown = resolution / (of_each * calls)
    lowest = float(slopes[LEFT_OUT])
    return Growth(
        bytes_a_call=float(np.median(slopes)),
        low=(min(lowest, 0.0) if settling else lowest) - unknown,
        high=float(slopes[-1 - LEFT_OUT]) + unknown,
    )


def grows_late(readings: Sequence[float], calls: int, resolution: float = 0.0) -> bool:
    """Whether memory grows in the last LATE stretches, and `growth` can't tell since it did not before.

    So looks a leak that begins late, and a step of an allocator: further calls tell one from the other.
    """
    found = growth(readings, calls, resolution)
    if found is None or found.low > 0:
        return False
    of_each = len(readings) // LEAST_READINGS
    last = np.median(np.asarray(readings, dtype=float)[-(LATE + 1) * of_each :].reshape(LATE + 1, of_each), axis=1)
    return bool((np.diff(last) > resolution).all())


def judge_growth(metric: str, now: Growth, baseline: float, *, limit: float, calls: int) -> Judgement:
    """Judge growth over `calls` calls: `regressed` where all of its interval lies above `limit`, in bytes a call.

    And above what the baseline grew by, and a tenth of that; `unchanged` where all of it lies below. Of a baseline of 0
    the change is the growth itself.
    """
    allowed = max(limit, baseline * (1 + MORE))
    verdict = Verdict.UNCHANGED if now.high <= allowed else Verdict.UNDERPOWERED
    if now.low > allowed:
        verdict = Verdict.REGRESSED
    elif baseline > limit and now.high < baseline / (1 + MORE):
        verdict = Verdict.IMPROVED

    def change(value: float) -> float:
        return value / baseline - 1 if baseline > 0 else value

    return Judgement(
        metric=metric, verdict=verdict, now=now.bytes_a_call, baseline=baseline, change=change(now.bytes_a_call),
        low=change(now.low), high=change(now.high), limit=limit, threshold=allowed,
        detectable=allowed + now.bytes_a_call - now.low, evidence=number_of(calls, "call"),
        p=0.0 if verdict is Verdict.REGRESSED else 1.0,
    )  # fmt: skip
