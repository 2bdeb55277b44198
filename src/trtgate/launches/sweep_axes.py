"""`--vary NAME=VALUES`: which settings a sweep tries, as points around a default. Imports no torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import msgspec

from ..common.errors import TrtgateError
from ..suite.dimensions import BATCH, checked_ranges, text_of
from ..suite.settings import (
    DEFAULT_MIN_BLOCK_SIZE,
    FRONTENDS,
    INDUCTOR_MODES,
    PRECISIONS,
    RUNTIMES,
    SPECIALIZATIONS,
    VERBOSITIES,
    Settings,
    fitting,
    one_of,
)
from ..torch_trt import compile_options, releases

RECOMMENDED, DEFAULT, NONE = "recommended", "default", "none"
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
DYNAMIC = "dynamic_"
"""What stands before a dimension where its range is varied: `dynamic_seq=none,16:128:512`."""
SWITCH = {"on": True, "off": False, "true": True, "false": False}


class Axis(msgspec.Struct, frozen=True):
    """A setting and the values that it takes; one of an option of Torch-TensorRT is in `Settings.options`.

    The name may be a dimension, or `dynamic_` with one, as well.
    """

    name: str
    values: tuple[Any, ...]
    option: bool = False


class Points(msgspec.Struct, kw_only=True):
    """What a sweep measures of a model: settings, the default first; and what can't be, with the reason."""

    settings: list[Settings]
    left_out: list[str]
    problems: list[str]
    """Why no block size could be recommended."""


def parse(text: str, dimensions: Iterable[str] = ()) -> Axis:
    """Return the axis of `min_block_size=1,5,recommended`, `optimization_level=0..5` or `cudagraphs=on,off`.

    Of `dimensions`, which are those of the models that are swept, `seq=16,128` and `dynamic_seq=none,16:128:512`.

    Raises TrtgateError, naming the nearest, for a name that is no setting and no option, and for other values.
    """
    name, equals, values = text.partition("=")
    name = name.strip()
    given = [part.strip() for part in values.split(",") if part.strip()]
    if not equals or not list(_expanded(given)):
        raise TrtgateError(f"--vary {text!r}: write NAME=VALUE,VALUE, such as min_block_size=1,5,recommended")
    of_shapes = {**dict.fromkeys(dimensions, _integer), **{f"{DYNAMIC}{one}": _sizes for one in dimensions}}
    convert = CONVERTERS.get(name) or of_shapes.get(name)
    if convert is not None:
        return Axis(name, tuple(_converted(text, convert, one) for one in _expanded(given)))
    kinds = _option_kinds(name, text, of_shapes)
    return Axis(name, tuple(_option_value(text, kinds, one) for one in _expanded(given)), option=True)


def _expanded(given: Iterable[str]) -> Iterable[str]:
    for one in given:
        found = RANGE.fullmatch(one)
        if found is None:
            yield one
        else:
            yield from map(str, range(int(found[1]), int(found[2]) + 1))


def _integer(text: str) -> int:
    return int(text)


def _block_size(text: str) -> int | str:
    return text if text == RECOMMENDED else int(text)


def _switch(text: str) -> bool:
    return SWITCH[text.lower()]


def _operators(text: str) -> tuple[str, ...]:
    return () if text == NONE else tuple(text.split("+"))


def _sizes(text: str) -> tuple[tuple[int, ...], ...] | tuple[int, ...] | None:
    """Return a range, `1:4:8`, or those of several optimization profiles, `1:4:8+9:16:32`."""
    if text == NONE:
        return None
    ranges = tuple(tuple(map(int, one.split(":"))) for one in text.split("+"))
    if any(len(one) != 3 for one in ranges):
        raise ValueError(text)
    return ranges if len(ranges) > 1 else ranges[0]


def _runtime(text: str) -> str:
    if text == DEFAULT:
        return ""
    one_of("runtime", text, RUNTIMES)
    return text


def _named(what: str, known: Iterable[str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        one_of(what, text, known)
        return text

    return convert


CONVERTERS: dict[str, Callable[[str], Any]] = {
    "frontend": _named("frontend", FRONTENDS), "precision": _named("precision", PRECISIONS), "batch": _integer,
    "dynamic_batch": _sizes, "min_block_size": _block_size, "torch_executed_ops": _operators,
    "mode": _named("mode", INDUCTOR_MODES), "runtime": _runtime, "cudagraphs": _switch,
    "profiling_verbosity": _named("profiling_verbosity", VERBOSITIES),
    "specialization": _named("specialization", SPECIALIZATIONS),
}  # fmt: skip
SETTINGS = [name for name in CONVERTERS if not name.startswith(DYNAMIC)] + ["options", "dynamic", "shape"]
EXAMPLES = {
    "batch": "1,8", "dynamic_batch": "none,1:4:8", "min_block_size": "1,5,recommended", "cudagraphs": "on,off",
    "torch_executed_ops": "none,aten.relu+aten.add",
}  # fmt: skip


def _converted(text: str, convert: Callable[[str], Any], value: str) -> Any:
    try:
        return convert(value)
    except (ValueError, KeyError):
        name = text.partition("=")[0]
        example = EXAMPLES.get(name) or ("none,16:128:512" if name.startswith(DYNAMIC) else "16,128,512")
        raise TrtgateError(f"--vary {text!r}: {value!r} is no {name}; write {name}={example}") from None


def _option_kinds(name: str, text: str, of_shapes: Iterable[str]) -> list[str]:
    if releases.unavailable():
        raise TrtgateError(f"--vary {text!r}: options of Torch-TensorRT: {releases.unavailable()}")
    known = compile_options.option_types()
    if name not in known:
        close = difflib.get_close_matches(name, [*CONVERTERS, *of_shapes, *known], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"settings are {', '.join([*CONVERTERS, *of_shapes])}"
        raise TrtgateError(f"--vary {text!r}: no setting and no compile option {name!r}; {hint}")
    return compile_options.plain_types(known[name])


def _option_value(text: str, kinds: Sequence[str], value: str) -> Any:
    if value == DEFAULT:
        return None
    for kind, convert in (("bool", _switch), ("int", int), ("float", float), ("str", str)):
        if kind in kinds:
            try:
                return convert(value)
            except (ValueError, KeyError):
                continue
    raise TrtgateError(f"--vary {text!r}: {value!r} is no {' or '.join(kinds) or 'value of a suite'}")


def points(base: Mapping[str, Any], axes: Sequence[Axis], recommended: Callable[[Settings], Sequence[int]]) -> Points:
    """Return the default, which `base` is, and every combination of the axes' values, each once.

    `recommended` answers with block sizes for settings. Values that do not go together are left out, with the reason.
    Raises TrtgateError when the default itself makes no sense.
    """
    found: dict[str, Settings] = {}
    default = _settings(base, {}, {})
    found[default.suffix] = default
    left_out, problems = [], []
    for values in product(*(axis.values for axis in axes)):
        fields = {axis.name: value for axis, value in zip(axes, values, strict=True) if not axis.option}
        options = {axis.name: value for axis, value in zip(axes, values, strict=True) if axis.option}
        try:
            for chosen in _resolved(base, fields, options, recommended):
                settings = _settings(base, chosen, options)
                found.setdefault(settings.suffix, settings)
        except _RecommendationError as error:
            problems.append(str(error))
        except TrtgateError as error:
            left_out.append(str(error))
    return Points(
        settings=list(found.values()), left_out=list(dict.fromkeys(left_out)), problems=list(dict.fromkeys(problems))
    )


class _RecommendationError(TrtgateError):
    """What the dry run of a point failed with."""


def _resolved(
    base: Mapping[str, Any], fields: dict[str, Any], options: dict[str, Any],
    recommended: Callable[[Settings], Sequence[int]],
) -> list[dict[str, Any]]:  # fmt: skip
    if fields.get("min_block_size") != RECOMMENDED:
        return [fields]
    plain = {name: value for name, value in fields.items() if name != "min_block_size"}
    settings = _settings(base, plain, options)
    if not settings.partitions:
        return [plain]
    try:
        sizes = recommended(settings)
    except TrtgateError as error:
        raise _RecommendationError(f"min_block_size={RECOMMENDED}: {error}") from error
    return [{**plain, "min_block_size": size} for size in sizes]


def _settings(base: Mapping[str, Any], fields: Mapping[str, Any], options: Mapping[str, Any]) -> Settings:
    merged = {**base, **fields}
    merged["options"] = {**base.get("options", {}), **{name: one for name, one in options.items() if one is not None}}
    dynamic = {name: merged.pop(name) for name in list(merged) if name.startswith(DYNAMIC)}
    merged["dynamic"] = {name.removeprefix(DYNAMIC): one for name, one in dynamic.items() if one is not None}
    optimum = {name: ranges[0][1] for name, ranges in checked_ranges(merged["dynamic"]).items() if name != BATCH}
    sizes = {name: merged.pop(name) for name in list(merged) if name not in SETTINGS}
    merged["shape"] = {**optimum, **sizes}
    return fitting(merged.pop("frontend"), **merged)


def difference(settings: Settings, default: Settings) -> str:
    """Return in what settings differ from the default, such as `min_block_size=1`; "default" where in nothing."""
    found = []
    for name in (one for one in CONVERTERS if one in SETTINGS):
        value, usual = getattr(settings, name), getattr(default, name)
        if name == "min_block_size" and (value is None or (usual is None and value == DEFAULT_MIN_BLOCK_SIZE)):
            continue  # only a frontend that leads to TensorRT has one
        if value != usual:
            found.append(f"{name}={_text(value)}")
    found += _of_shapes(settings, default)
    names = sorted({*settings.options, *default.options})
    found += [
        f"{name}={settings.options.get(name, DEFAULT)}"
        for name in names
        if settings.options.get(name) != default.options.get(name)
        if settings.uses_tensorrt
    ]
    return " ".join(found) or DEFAULT


def _of_shapes(settings: Settings, default: Settings) -> list[str]:
    sizes = [
        f"{name}={_text(settings.shape.get(name))}"
        for name in sorted({*settings.shape, *default.shape})
        if settings.shape.get(name) != default.shape.get(name)
    ]
    return sizes + [
        f"{DYNAMIC}{name}={text_of(settings.dynamic.get(name, ())).replace('..', ':') or NONE}"
        for name in sorted({*settings.dynamic, *default.dynamic})
        if settings.dynamic.get(name) != default.dynamic.get(name)
    ]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "+".join(map(str, value)) or NONE
    return NONE if value is None else str(value) or DEFAULT
