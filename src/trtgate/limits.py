"""Largest tolerated changes per metric: `device=1%`, written in ini files, on models and on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from .errors import TrtgateError
from .records import METRICS

DEFAULTS = {"device": 0.01, "host": 0.10, "enqueue": 0.10}
"""Fractions. Slower by more than this, and provably so, is a regression."""


def parse(texts: Iterable[str], where: str) -> dict[str, float]:
    """Return metric → fraction of texts such as `device=0.5%` or `host=0.1`.

    Raises TrtgateError, naming `where` they stand, for an unknown metric or a value that is not a positive number.
    """
    limits = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if name not in METRICS:
            close = difflib.get_close_matches(name, METRICS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(METRICS)}"
            raise TrtgateError(f"{where}: unknown metric {name!r} in {text!r}; {hint}")
        try:
            limit = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            limit = -1.0
        if not equals or not 0 < limit < 100:
            raise TrtgateError(f"{where}: {text!r} is no limit; write {name}=1% or {name}=0.01")
        limits[name] = limit
    return limits
