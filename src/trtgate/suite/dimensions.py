"""Dimensions: the named sizes that a case varies, such as `batch` and `seq`. A shape is one size for each of them.

Nothing here imports torch. Sizes are numbers of elements along an axis, or whatever a factory makes of them.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from ..common.errors import TrtgateError

BATCH = "batch"
LIMITS = "limits"
"""The key of a shape that holds limits of the cases at that shape; so no dimension can have this name."""

Sizes = dict[str, int]
Range = tuple[int, int, int]
"""Minimum, optimum and maximum."""
Ranges = tuple[Range, ...]
"""One for each optimization profile."""

TRACED_AT_LEAST = 2
"""torch.export and torch.compile take a size of 0 or 1 for a constant."""
WRITE_RANGE = "write (minimum, optimum, maximum), from small to large and more than one size"


class Dimensions(NamedTuple):
    """The dimensions of a model: parameters of its factory, or of its `inputs` function."""

    names: tuple[str, ...]
    required: frozenset[str]
    """Those without a default."""


class Point(NamedTuple):
    """A shape at which cases are measured, and their limits, beside the grid's."""

    sizes: Sizes
    limits: Mapping[str, float | str]


def of(function: Callable[..., Any]) -> Dimensions:
    """Return the dimensions of a function: its parameters that can be given by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of some builtins nobody knows them
        return Dimensions((), frozenset())
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    return Dimensions(
        tuple(one.name for one in named), frozenset(one.name for one in named if one.default is one.empty)
    )


def checked_sizes(sizes: Any, what: str) -> Sizes:
    """Return sizes by dimension, in the order of names. Raises TrtgateError for what is no positive integer."""
    if not isinstance(sizes, Mapping):
        raise TrtgateError(f'{what}={sizes!r}: write {{"seq": 128}}, a size for each dimension')
    for name, size in sizes.items():
        _check_name(name, what)
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise TrtgateError(f"{what}: {name} must be a positive integer, not {size!r}")
    return {name: sizes[name] for name in sorted(sizes)}


def checked_ranges(dynamic: Any) -> dict[str, Ranges]:
    """Return the ranges of dynamic dimensions, in the order of names: a tuple of one for each optimization profile.

    Raises TrtgateError for what is neither (minimum, optimum, maximum) nor a list of them.
    """
    if not isinstance(dynamic, Mapping):
        raise TrtgateError(f'dynamic={dynamic!r}: write {{"seq": (16, 128, 512)}}: minimum, optimum and maximum')
    for name in dynamic:
        _check_name(name, "dynamic")
    found = {name: _ranges(name, dynamic[name]) for name in sorted(dynamic)}
    counts = {name: len(ranges) for name, ranges in found.items() if len(ranges) > 1}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise TrtgateError(f"dynamic: every dimension has one range, or one for each optimization profile: {said}")
    return found


def with_batch(dynamic: Any, dynamic_batch: Any) -> dict[str, Ranges]:
    """Return ranges with the batch's, which `dynamic_batch` is another spelling of.

    Raises TrtgateError as `checked_ranges`, and where both say it, and not the same.
    """
    if dynamic_batch is None:
        return checked_ranges(dynamic)
    found = checked_ranges({BATCH: dynamic_batch})
    given = checked_ranges(dynamic)
    if given.get(BATCH, found[BATCH]) != found[BATCH]:
        raise TrtgateError(
            f"dynamic_batch is {text_of(found[BATCH])}, and dynamic has {text_of(given[BATCH])} for the batch: give "
            "one of them"
        )
    return dict(sorted({**given, **found}.items()))


def _check_name(name: Any, what: str) -> None:
    if not isinstance(name, str) or not name.isidentifier() or name == LIMITS:
        raise TrtgateError(f"{what}: {name!r} is no name of a dimension: it is a parameter of the model's factory")


def _ranges(name: str, given: Any) -> Ranges:
    is_list = isinstance(given, list | tuple) and bool(given) and all(isinstance(one, list | tuple) for one in given)
    ranges = given if is_list else (given,)
    for one in ranges:
        if not (isinstance(one, list | tuple) and len(one) == 3 and all(type(size) is int for size in one)):
            raise TrtgateError(f"dynamic {name} {one!r}: {WRITE_RANGE}")
        least, optimal, largest = one
        if least < 1:
            raise TrtgateError(f"dynamic {name} {tuple(one)}: a minimum is at least 1: TensorRT takes no empty tensor")
        if not least <= optimal <= largest or least == largest:
            raise TrtgateError(f"dynamic {name} {tuple(one)}: {WRITE_RANGE}")
    return tuple(tuple(one) for one in ranges)


def text_of(ranges: Ranges) -> str:
    """Return ranges as an id has them: `16..128..512`, those of several profiles with a `+` between them."""
    return "+".join("..".join(map(str, one)) for one in ranges)


def profiles_of(dynamic: Mapping[str, Ranges]) -> list[dict[str, Range]]:
    """Return the range of each dynamic dimension in each optimization profile; empty where nothing is dynamic."""
    count = max(map(len, dynamic.values()), default=0)
    return [{name: ranges[min(number, len(ranges) - 1)] for name, ranges in dynamic.items()} for number in range(count)]


def profile_of(dynamic: Mapping[str, Ranges], sizes: Mapping[str, int]) -> int | None:
    """Return the first optimization profile that takes a shape; None where none does."""
    for number, profile in enumerate(profiles_of(dynamic)):
        if all(least <= sizes[name] <= largest for name, (least, _, largest) in profile.items()):
            return number
    return None


def check_held(dynamic: Mapping[str, Ranges], sizes: Mapping[str, int]) -> None:
    """Raise TrtgateError for a shape that lacks a dynamic dimension, or that no optimization profile takes."""
    for name, ranges in dynamic.items():
        if name not in sizes:
            raise TrtgateError(f"dynamic {name} {text_of(ranges)}: no {name} is given to be measured")
        if not any(least <= sizes[name] <= largest for least, _, largest in ranges):
            raise TrtgateError(f"dynamic {name} {text_of(ranges)} does not hold the {name} {sizes[name]} that is fed")
    if dynamic and profile_of(dynamic, sizes) is None:
        shape = " ".join(f"{name}={sizes[name]}" for name in dynamic)
        raise TrtgateError(f"dynamic: no optimization profile holds all of {shape}")


def points(
    batches: Iterable[int | None], shapes: Iterable[Mapping[str, Any]], dynamic: Mapping[str, Ranges],
    at: Iterable[Mapping[str, Any]] | None,
) -> list[Point]:  # fmt: skip
    """Return the shapes that a grid measures: each of `shapes` at each batch, and each of those at each of `at`.

    A dynamic dimension that neither names is at its optimum, of every optimization profile. Raises TrtgateError for
    an `at` that names a dimension which is not dynamic, and for no shape at all.
    """
    static, measured = [_point(one, "shapes") for one in _listed(shapes, "shapes")], _measured(dynamic, at)
    optima = [{name: optimal for name, (_, optimal, _) in one.items()} for one in profiles_of(dynamic)] or [{}]
    found: dict[tuple[tuple[str, int], ...], Point] = {}
    for batch, shape, point, optimum in product(batches, static, measured, optima):
        own = {} if batch is None else {BATCH: batch}
        sizes = {**optimum, **own, **shape.sizes, **point.sizes}
        limits = {**shape.limits, **point.limits}
        known = found.setdefault(tuple(sorted(sizes.items())), Point(sizes, limits))
        if known.limits != limits:
            named = " ".join(f"{name}={size}" for name, size in sizes.items())
            raise TrtgateError(f"the shape {named} is given twice, with limits {known.limits} and {limits}: drop one")
    return list(found.values())


def _measured(dynamic: Mapping[str, Ranges], at: Iterable[Mapping[str, Any]] | None) -> list[Point]:
    if at is None:
        return [Point({}, {})]
    found = [_point(one, "at") for one in _listed(at, "at")]
    for name in (name for point in found for name in point.sizes):
        if name not in dynamic:
            hint = nearest(name, dynamic, "dynamic dimension") if dynamic else "give dynamic={…}, or use shapes="
            raise TrtgateError(f"at: {name!r} is not dynamic; {hint}")
    return found


def _listed(given: Any, what: str) -> Sequence[Any]:
    shapes = [] if isinstance(given, Mapping | str) or not isinstance(given, Iterable) else list(given)
    if not shapes:
        raise TrtgateError(f'{what}={given!r}: write a list of shapes, such as [{{"seq": 128}}, {{"seq": 512}}]')
    return shapes


def _point(shape: Any, what: str) -> Point:
    if not isinstance(shape, Mapping):
        raise TrtgateError(f'{what}: {shape!r} is no shape: write {{"seq": 128}}, a size for each dimension')
    limits = shape.get(LIMITS, {})
    if not isinstance(limits, Mapping):
        raise TrtgateError(f'{what}: limits={limits!r}: write {{"device": 0.02}}')
    return Point(checked_sizes({name: size for name, size in shape.items() if name != LIMITS}, what), limits)


def check_known(given: Iterable[str], known: Dimensions, where: str) -> None:
    """Raise TrtgateError where sizes are given of other dimensions than a model has, or not of all; `where` names it.

    A parameter with a default may be left out.
    """
    names = set(given)
    for name in sorted(names - set(known.names)):
        if name == BATCH:
            raise TrtgateError(
                f"{where}: a batch size is asked for, and the factory takes no `batch`: add the parameter"
            )
        hint = nearest(name, known.names, "dimension")
        raise TrtgateError(f"{where}: a size of {name!r} is given, and nothing takes it: {hint}")
    for name in sorted(known.names, key=lambda one: one == BATCH):
        if name == BATCH and name not in names:
            raise TrtgateError(f"{where}: the factory takes `batch`, and the settings name none: add batches=(1,)")
        if name in known.required and name not in names:
            raise TrtgateError(
                f'{where}: the factory takes `{name}`, and the settings name none: add shapes=[{{"{name}": 128}}] or '
                f'dynamic={{"{name}": (16, 128, 512)}}'
            )


def nearest(name: str, known: Iterable[str], what: str) -> str:
    """Return which known name is meant, as the end of a sentence."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there is {what} {', '.join(names)}" if names else f"no {what}"
