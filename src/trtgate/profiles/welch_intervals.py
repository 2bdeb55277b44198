"""Welch's t intervals for what sets of layers take after less before: many sets at once, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from scipy import special

from ..records.profile_record import Layer

CONFIDENCE = 0.95
LAUNCH_SD_US, LAUNCH_SD_SHARE = 0.25, 0.005
"""Standard deviation of a layer's time from launch to launch, where nothing changed: this many µs and, besides, this
share of it. Over five launches each of resnet18 and vit_b_16 on an H100 (studies/profiles.py), nine layers in ten had
less: 0.16 and 0.13 µs at the median, 0.24 at the 90th percentile, 0.6 of a layer of 142 µs."""
RESOLUTION_US = 1e-6
"""Less is a rounding error of the arithmetic: blocks are kept to 1e-3 µs."""

Sides = tuple[Sequence[Layer], Sequence[Layer]]
"""Layers before, layers after; one of them may be empty."""


class Estimates(NamedTuple):
    """Arrays over sets of layers, in µs; NaN where a layer has fewer than two blocks."""

    before: np.ndarray
    """Sum of the layers' means."""
    after: np.ndarray
    change: np.ndarray
    low: np.ndarray
    """`low` to `high` is the 95 % interval of the change."""
    high: np.ndarray
    p: np.ndarray
    """Two-sided, of no change."""


class _Moments(NamedTuple):
    """Arrays over layers."""

    is_after: np.ndarray
    mean: np.ndarray
    """Of its blocks, µs; its median where no blocks were kept."""
    variance: np.ndarray
    """Of that mean in its launch, µs²; NaN with fewer than two blocks."""
    between: np.ndarray
    """Of that mean from launch to launch, µs²; 0 of what takes no time."""
    degrees: np.ndarray
    """Of freedom: blocks less one; NaN with fewer than two."""


def estimates(sets: Sequence[Sides]) -> tuple[Estimates, Estimates]:
    """Return what each set of layers takes before and after, and what all of them together take (arrays of one).

    Means and variances of the mean of the layers of a set are added, as if layers were independent. The interval is
    Student's with degrees of freedom by B. L. Welch (1947) and F. E. Satterthwaite (1946); for one layer on either side
    it is that of `scipy.stats.ttest_ind(equal_var=False)`, but for the noise from launch to launch, which one launch on
    either side does not show: its variance (LAUNCH_SD_US, LAUNCH_SD_SHARE) is added as known.
    """
    layers = [layer for before, after in sets for layer in (*before, *after)]
    is_after = [side for before, after in sets for side in (*(False for _ in before), *(True for _ in after))]
    owner = np.repeat(np.arange(len(sets)), [len(before) + len(after) for before, after in sets])
    moments = _moments(layers, np.array(is_after, dtype=bool))
    return _summed(moments, owner, len(sets)), _summed(moments, np.zeros_like(owner), 1)


def _moments(layers: Sequence[Layer], is_after: np.ndarray) -> _Moments:
    blocks = np.array([len(layer.blocks_us) for layer in layers], dtype=int)
    medians = np.array([layer.median_us for layer in layers], dtype=float)
    values = np.fromiter(chain.from_iterable(layer.blocks_us for layer in layers), dtype=float)
    owner = np.repeat(np.arange(len(layers)), blocks)
    mean = np.where(blocks > 0, np.bincount(owner, values, len(layers)) / np.maximum(blocks, 1), medians)
    squares = np.bincount(owner, (values - mean[owner]) ** 2, len(layers))
    degrees = np.where(blocks > 1, blocks - 1.0, np.nan)
    between = np.where(mean > 0, LAUNCH_SD_US**2 + (LAUNCH_SD_SHARE * mean) ** 2, 0.0)
    return _Moments(is_after, mean, squares / degrees / np.maximum(blocks, 1), between, degrees)


def _summed(layers: _Moments, owner: np.ndarray, count: int) -> Estimates:
    """Sum over layers; `owner` is the index of the set that each belongs to."""
    before = np.bincount(owner, np.where(layers.is_after, 0.0, layers.mean), count)
    after = np.bincount(owner, np.where(layers.is_after, layers.mean, 0.0), count)
    change = after - before
    change[np.abs(change) < RESOLUTION_US] = 0.0
    variance = np.bincount(owner, layers.variance + layers.between, count)
    error = np.sqrt(variance)
    error[error < RESOLUTION_US] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        degrees = variance**2 / np.bincount(owner, layers.variance**2 / layers.degrees, count)
        half = np.where(error == 0, 0.0, error * -special.stdtrit(degrees, (1 - CONFIDENCE) / 2))
        p = np.where(error == 0, change == 0, 2 * special.stdtr(degrees, -np.abs(change) / error))
    return Estimates(before, after, change, change - half, change + half, p)
