"""What a suite gives `trtgate.model` and `trtgate.grid`: refused in one line where it is of another kind."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..common.errors import TrtgateError


def several(what: str, values: Any, *, least: int = 1) -> tuple[Any, ...]:
    """Return values as a tuple. Raises TrtgateError for one text, for what is no collection, and for too few."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TrtgateError(f"{what}={values!r}: write a tuple, ({values!r},)")
    found = tuple(values)
    if len(found) < least:
        raise TrtgateError(f"{what}={values!r}: with none there would be no case; name one, or leave it out")
    return found


def names(what: str, values: Any) -> tuple[str, ...]:
    """Return names as a tuple. Raises TrtgateError as `several`, and for what is no text."""
    found = several(what, values, least=0)
    for name in found:
        if not isinstance(name, str):
            raise TrtgateError(f"{what}: {name!r} is no name; write a text, such as 'aten.relu'")
    return found


def named(what: str, values: Any) -> dict[str, Any]:
    """Return a mapping of names to values as a dict; an empty one for None. Raises TrtgateError, naming `what`."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise TrtgateError(f"{what} must map names to values, as a dict does, not {values!r}")
    for name in values:
        if not isinstance(name, str):
            raise TrtgateError(f"{what} must map names to values: {name!r} is no name")
    return dict(values)


def check_callable(what: str, function: Any) -> None:
    """Raise TrtgateError, which begins with `what`, for what can't be called."""
    if not callable(function):
        raise TrtgateError(f"{what} must be a function, not {function!r}")


def answers(value: Any) -> bool:
    """Whether a call of a value gives an output: a call of a class makes an object."""
    return callable(value) and not isinstance(value, type)


def kind_of(value: Any) -> str:
    """Return what a value is, as the end of a sentence that says what it should be."""
    return f"the class {value.__name__}: make an object of it" if isinstance(value, type) else type(value).__name__


def name_of(factory: Any, name: str | None) -> str:
    """Return a model's name: its factory's unless it is given. Raises TrtgateError where neither has one."""
    found = name or getattr(factory, "__name__", "")
    if not found:
        raise TrtgateError(f"trtgate.model: the factory is a {type(factory).__name__}, which has no name: give name=")
    return found


def check_keywords(what: str, given: Mapping[str, Any], function: Callable[..., Any], dynamic_shapes: Any) -> None:
    """Raise TrtgateError, which begins with `what`, for a keyword that a function does not take.

    And for `dynamic_shapes` where no dimension is dynamic: every shape would be a static one.
    """
    known = inspect.signature(function).parameters
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, [*known, "batches", "frontends", "precisions"], n=1)
            hint = f"did you mean {close[0]}=?" if close else f"there are {', '.join(known)}"
            raise TrtgateError(f"{what} takes no {name}=; {hint}")
    if dynamic_shapes is not None and not (given.get("dynamic") or given.get("dynamic_batch")):
        raise TrtgateError(
            f'{what}: dynamic_shapes= says which axes vary, and nothing does: add dynamic={{"seq": (16, 128, 512)}}'
        )
