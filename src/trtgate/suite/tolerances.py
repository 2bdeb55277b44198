"""Tolerances for single tensors of an output: `tolerances={"scores": 1e-2}` in a suite."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..common.errors import TrtgateError


def checked(tolerances: object) -> dict[str, float]:
    """Return path or name → largest error of a mapping. Raises TrtgateError for what is no tolerance.

    Which tensors an output has, and that a share is at most 1, is known only when it is compared.
    """
    if not isinstance(tolerances, Mapping):
        raise TrtgateError(f"tolerances={tolerances!r} is no mapping; write {{'scores': 1e-2}}")
    return {_name(key): _error(key, value) for key, value in tolerances.items()}


def _name(key: object) -> str:
    if isinstance(key, str) and key:
        return key
    raise TrtgateError(f"tolerances: {key!r} names no tensor of the output; write its path or name, as 'output[1]'")


def _error(key: object, value: object) -> float:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not 0 <= number < math.inf:
        raise TrtgateError(f"tolerances: {key}={value!r} is no tolerance; write a number from 0, such as 1e-2")
    return number
