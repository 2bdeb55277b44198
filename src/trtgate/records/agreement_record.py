"""What was found of a case's accuracy, as data."""

from __future__ import annotations

import msgspec


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Outputs beside those of eager at fp32, over all inputs together; of several tensors, the worst figure of each."""

    inputs: int
    """How many were asked, each a row of a batch."""
    source: str
    """Where they come from."""
    weights: str
    """Where those come from: the file they were read from, or what the model says of its factory."""
    relative_l2: float
    """‖out - eager‖ / ‖eager‖."""
    cosine: float
    max_error: float
    """The largest difference of one value, in units of the output."""
    top1: float | None = None
    """Share of inputs whose largest output is the same; None for an output that is no (batch, classes) table."""
    top5: float | None = None
    """Share of inputs whose largest output of eager is among the five largest."""
