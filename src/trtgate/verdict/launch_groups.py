"""Launches that fall into two groups: processes in which a case is slower, beside others in which it is not."""

from __future__ import annotations

import math

import numpy as np

GAP = 5.0
"""So many times wider than what is usual between launches must the gap between two groups be."""


def slower_group(log_means: np.ndarray, usual: float, limit: float, what: str = "processes") -> str:
    """Return how many of the launches are how many times slower than the rest; empty where they are one group.

    `log_means` (launches,); `usual` is the standard deviation that is known between launches, ln. The widest gap
    between neighbours divides them. It counts where it exceeds the limit, and GAP times both `usual` and the range of
    the wider group: of three normal launches one in a thousand looks so.
    """
    ordered = np.sort(log_means)
    if len(ordered) < 3:
        return ""
    gaps = np.diff(ordered)
    cut = int(np.argmax(gaps)) + 1
    quick, slow = ordered[:cut], ordered[cut:]
    within = max(usual, float(np.ptp(quick)), float(np.ptp(slow)))
    if gaps[cut - 1] <= max(GAP * within, math.log1p(limit)):
        return ""
    factor = math.exp(float(np.mean(slow) - np.mean(quick)))
    slower = f"{factor:.1f} times" if factor >= 1.5 else f"{(factor - 1) * 100:.2g} %"
    return f"{len(slow)} of {len(ordered)} {what} {'are' if len(slow) > 1 else 'is'} {slower} slower"
