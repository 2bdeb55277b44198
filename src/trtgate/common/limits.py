"""Largest tolerated changes per metric: `device=1%`, in ini files, suites and markers and on the command line.

Of metrics that are bytes a call the limit is that many: `host_memory_growth=512`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping

from .errors import TrtgateError
from .metrics import A_CALL, EXACT, METRICS, RENAMED

LARGEST = 100.0
"""No limit is as large: 10000 % more is no tolerance."""


def parse(texts: Iterable[str], where: str) -> dict[str, float]:
    """Return metric → fraction of texts such as `device=0.5%` or `host=0.1`.

    Raises TrtgateError, naming `where` they stand, for an unknown metric or a value that is no limit.
    """
    limits = {}
    for text in texts:
        name, _, value = text.partition("=")
        limits[name] = _limit(name, value, text, where)
    return limits


def checked(mapping: Mapping[str, float | str], where: str, *, parsed: bool = False) -> dict[str, float]:
    """Return metric → fraction of a mapping such as `{"device": 0.005}` or `{"device": "0.5%"}`.

    Numbers above 1 are refused: 5 would be 500 %. Of limits that were `parsed` before, which may be as large, only
    integers are.
    Raises TrtgateError, naming `where` it stands, for an unknown metric or a value that is no limit.
    """
    if not isinstance(mapping, Mapping):
        raise TrtgateError(f"{where}: {mapping!r} is no mapping; write {{'device': '0.5%'}}")
    return {
        name: _limit(str(name), value, f"{name}={value}", where, large=parsed and isinstance(value, float))
        for name, value in mapping.items()
    }


def _limit(name: str, value: object, text: str, where: str, *, large: bool = False) -> float:
    if name in RENAMED:
        new, why = RENAMED[name]
        raise TrtgateError(f"{where}: the metric {name!r} of {text!r} is {new!r} now, {why}; write {new} there")
    if name not in METRICS:
        close = difflib.get_close_matches(name, METRICS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(METRICS)}"
        raise TrtgateError(f"{where}: unknown metric {name!r} in {text!r}; {hint}")
    if METRICS[name].unit == A_CALL:
        return _bytes_a_call(name, value, text, where)
    limit = _fraction(value)
    if limit > 1 and not large and not str(value).endswith("%"):
        number = f"{limit:g}"
        raise TrtgateError(
            f"{where}: {text!r} would be {100 * limit:g} %: did you mean {name}={number}%? Above 1 a limit needs its %"
        )
    if name in EXACT and limit == 0:
        return limit  # what is counted may be held to its count
    if not 0 < limit < LARGEST:
        raise TrtgateError(f"{where}: {text!r} is no limit; write {name}=1% or {name}=0.01")
    return limit


def _bytes_a_call(name: str, value: object, text: str, where: str) -> float:
    limit = math.nan if str(value).endswith("%") else _fraction(value)
    if not 0 <= limit < math.inf:
        raise TrtgateError(f"{where}: {text!r} is no limit; it is in bytes a call, write {name}=512")
    return limit


def _fraction(value: object) -> float:
    """Return the fraction that a number or a text means; NaN for what is neither."""
    if isinstance(value, str):
        try:
            return float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            return math.nan
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
