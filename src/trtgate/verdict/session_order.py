"""What the order of sessions says: how far apart they lie, trends and steps left out, and whether they rise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import special

ORDERED_P = 0.05
"""Chance that the order of independent sessions is taken to explain their spread."""
LEAST_RISING = 5
"""Sessions from which on a rise is looked for: of fewer no order is rarer than RISING_P."""
RISING_P = 0.01
"""One-sided."""
EXACT_RISING = 40
"""Sessions up to which all orders are counted: what that takes grows with the fourth power of how many there are."""


def successive_spread(means: np.ndarray) -> tuple[Any, float]:
    """Return the variance of session means (..., S), the oldest first, and its equivalent degrees of freedom.

    Half the mean square of successive differences (von Neumann, Kent, Bellinson and Hart, "The Mean Square Successive
    Difference", Annals of Mathematical Statistics 12, 1941). A trend adds only the square of what lies between two
    neighbours, a step counts once, where the usual variance takes both for noise. For independent normal means its
    variance is σ⁴·(3S - 4)/(S - 1)², that of a χ² estimate with 2·(S - 1)²/(3S - 4) degrees of freedom. (0, 0) of one.
    """
    count = means.shape[-1]
    if count < 2:
        return np.zeros(means.shape[:-1]), 0.0
    variance = np.mean(np.diff(means, axis=-1) ** 2, axis=-1) / 2
    return variance, 2 * (count - 1) ** 2 / (3 * count - 4)


def ordered_spread(means: np.ndarray) -> tuple[Any, Any]:
    """Return the variance of session means (..., S), the oldest first, and its degrees of freedom, a case each.

    The usual variance, unless their order explains it: where the ratio of the squared successive differences to the
    squares around the mean is low at ORDERED_P, a trend or a step is in it, and `successive_spread` leaves that out.
    The ratio's mean is 2 and its variance 4(S - 2)/(S² - 1) (von Neumann, "Distribution of the Ratio of the Mean Square
    Successive Difference to the Variance", Annals of Mathematical Statistics 12, 1941); taken as normal. Differences
    alone would cost power where nothing trends: of eight sessions they leave 4.9 degrees of freedom of 7.
    """
    count = means.shape[-1]
    variance, dof = successive_spread(means)
    if count < 3:
        return variance, dof
    squares = np.sum((means - np.mean(means, axis=-1, keepdims=True)) ** 2, axis=-1)
    low = 2 + float(special.ndtri(ORDERED_P)) * math.sqrt(4 * (count - 2) / (count**2 - 1))
    explained = 2 * (count - 1) * variance < low * squares
    return np.where(explained, variance, squares / (count - 1)), np.where(explained, dof, count - 1.0)


def rises(means: Sequence[float] | np.ndarray) -> bool:
    """Return whether later sessions are slower than earlier ones by more than chance explains, at RISING_P.

    Kendall's test against a trend (Mann, "Nonparametric Tests Against Trend", Econometrica 13, 1945), one-sided, exact
    up to EXACT_RISING sessions and by its normal limit beyond; equal means count as not rising. Of independent sessions
    one case in a hundred is said to rise.
    """
    values = np.asarray(means)
    count = len(values)
    if count < LEAST_RISING:
        return False
    falls = sum(int(np.count_nonzero(values[later] <= values[:later])) for later in range(count))
    if count > EXACT_RISING:
        mean, variance = count * (count - 1) / 4, count * (count - 1) * (2 * count + 5) / 72
        return float(special.ndtr((falls + 0.5 - mean) / math.sqrt(variance))) <= RISING_P
    orders = _orders(count)
    return sum(orders[: falls + 1]) <= RISING_P * sum(orders)


@lru_cache(maxsize=64)
def _orders(count: int) -> tuple[int, ...]:
    """Return how many orders of `count` values have 0, 1, 2, … falling pairs (Mahonian numbers)."""
    orders = [1]
    for size in range(2, count + 1):
        longer = [0] * (len(orders) + size - 1)
        for falls, ways in enumerate(orders):
            for more in range(size):
                longer[falls + more] += ways
        orders = longer
    return tuple(orders)
