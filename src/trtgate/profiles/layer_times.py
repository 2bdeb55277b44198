"""The statistics of layers: medians of blocks, their intervals, and shares."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from functools import lru_cache

from scipy import special  # scipy.stats takes two seconds to import on a GPU's host

from ..records.profile_record import Part

CONFIDENCE = 0.95


def timed(part: Part, blocks_us: Iterable[Sequence[float]]) -> None:
    """Give the layers of a part their times: medians of blocks, in the order of the layers; shares follow.

    The interval is the distribution-free one of a median by order statistics (binomial; Conover, Practical
    Nonparametric Statistics, §3.2); with fewer than 6 blocks it is their whole range.
    """
    for layer, blocks in zip(part.layers, blocks_us, strict=True):
        ordered = sorted(blocks)
        rank = _rank(len(ordered))
        layer.blocks_us = [round(value, 3) for value in blocks]
        layer.median_us = round(statistics.median(ordered), 3)
        layer.low_us, layer.high_us = round(ordered[rank], 3), round(ordered[-1 - rank], 3)
    total = part.sum_us
    for layer in part.layers:
        layer.share = round(layer.median_us / total, 6) if total else 0.0


@lru_cache
def _rank(blocks: int) -> int:
    """Return how many of the ordered values lie outside the interval on either side."""
    least = (1 - CONFIDENCE) / 2
    return max(0, next(k for k in range(blocks + 1) if special.bdtr(k, blocks, 0.5) >= least) - 1)
