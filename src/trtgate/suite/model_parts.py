"""A model of several modules, such as prefill and decode: each part of it is a model of its own."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..common.errors import TrtgateError
from . import declared_values


def checked(parts: Iterable[str], what: str) -> tuple[str, ...]:
    """Return the names of parts. Raises TrtgateError, which begins with `what`, for what is no name, or named twice."""
    found = declared_values.several(f"{what}: parts", parts, least=0)
    for part in found:
        if not isinstance(part, str) or not re.fullmatch(r"[A-Za-z0-9_]+", part):
            raise TrtgateError(f"{what}: {part!r} can't name a part: use letters, digits and '_' only")
        if found.count(part) > 1:
            raise TrtgateError(f"{what}: its part {part!r} is named twice")
    return found


def part_of(function: Callable[..., Any], part: str, what: str) -> Callable[..., Any]:
    """Return a function of the same parameters that gives one part of what a function gives, a mapping.

    It raises TrtgateError, which begins with `what`, where there is no such part.
    """

    @functools.wraps(function)
    def of_part(*args: Any, **kwargs: Any) -> Any:
        found = function(*args, **kwargs)
        if not isinstance(found, Mapping):
            raise TrtgateError(
                f"{what}: with parts= it must return a mapping of part to what a factory returns, not "
                f"{type(found).__name__}"
            )
        if part not in found:
            raise TrtgateError(
                f"{what}: it returns no part {part!r}; there are: {', '.join(map(str, found)) or 'none'}"
            )
        return found[part]

    return of_part
