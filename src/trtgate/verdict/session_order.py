"""What the order of sessions says: how far apart they lie, trends and steps left out, and whether they rise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

LEAST_RISING = 5
"""Sessions from which on a rise is looked for: of fewer no order is rarer than RISING_P."""
RISING_P = 0.01
"""One-sided."""


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


def rises(means: Sequence[float] | np.ndarray) -> bool:
    """Return whether later sessions are slower than earlier ones by more than chance explains, at RISING_P.

    Kendall's test against a trend (Mann, "Nonparametric Tests Against Trend", Econometrica 13, 1945), exact and
    one-sided; equal means count as not rising. Of independent sessions one case in a hundred is said to rise.
    """
    count = len(means)
    if count < LEAST_RISING:
        return False
    falls = sum(means[later] <= means[earlier] for later in range(count) for earlier in range(later))
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
