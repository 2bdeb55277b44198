"""Many tests in one run: the error rates that are shared among them, and the quantiles that follow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import special  # scipy.stats takes a second to import, and every run of pytest would wait for it

FAMILY_ALPHA = 0.01
"""Chance that a run in which nothing changed fails at all, over all its cases and metrics."""
PROOF_ALPHA = 0.01
"""Chance that a case is called `unchanged` although it moved by the limit; also the sides of shown intervals.

At one look, of normal means. In simulation up to 3.1 %, where further launches are a second look (docs/verdicts.md)."""
POWER = 0.8
"""With which probability the minimum detectable effect would be flagged."""


@lru_cache(maxsize=4096)
def quantile(alpha: float, dof: float) -> float:
    """Return Student's t that is exceeded with probability `alpha`, as scipy.stats.t.isf does."""
    return float(-special.stdtrit(dof, alpha))


def quantiles(alpha: float, dof: np.ndarray | float) -> Any:
    """Return `quantile` for degrees of freedom of each case; same shape."""
    if np.ndim(dof) == 0:
        return quantile(alpha, float(dof))
    different, places = np.unique(dof, return_inverse=True)
    return np.asarray([quantile(alpha, float(one)) for one in different])[places].reshape(np.shape(dof))


def probability(t: np.ndarray | float, dof: np.ndarray | float) -> Any:
    """Return with which probability Student's t exceeds a value, as scipy.stats.t.sf does; same shape."""
    return special.stdtr(dof, -np.asarray(t))


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values, in the order given; for reports, once all tests are known.

    S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6 (1979). Valid under any
    dependence. SciPy has false-discovery-rate control alone. The gate itself uses Bonferroni: a test must fail in its
    own body, before later p-values exist.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in result]
