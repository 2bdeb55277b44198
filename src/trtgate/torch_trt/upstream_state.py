"""What Torch-TensorRT is when its import ends. What a user's code changes of it afterwards decides engines too.

Own functions that are registered are in `own_conversions.py`. This finds the rest: a class or a constant that is
replaced, arguments with another default, and converters, passes and decompositions of upstream's that are taken away.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any, NamedTuple

import torch

from . import code_values, function_code

PACKAGES = ("torch_tensorrt", "tensorrt", "tensorrt_rtx")
CONVERTERS = "torch_tensorrt.dynamo.conversion._ConverterRegistry"
DECOMPOSITIONS = "torch_tensorrt.dynamo.lowering._decompositions"
PASSES = "torch_tensorrt.dynamo.lowering.passes._aten_lowering_pass"
TABLES = ("torch_enabled_decompositions", "torch_disabled_decompositions", "TORCH_TRT_DECOMPOSITIONS")
CODE_OF, DEFAULTS_OF, CONVERTERS_OF = "code of ", "defaults of ", "converters of "
OF_CONVERTERS = ("supports_dynamic_shapes", "requires_output_allocator")
CONTAINERS = (list, tuple, set, frozenset, Mapping)
OF_TORCHS_OPERATORS = (torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch._ops.HigherOrderOperator)
DEPTH = 3
"""So deep containers are looked into."""
OURS = __name__.partition(".")[0]


class Change(NamedTuple):
    """Something of upstream's that is another now."""

    where: str
    text: str
    """What it is now."""
    value: Any
    """The function or class that stands there; None for what is neither."""


class _Held(NamedTuple):
    """What a place holds: an object, which is itself alone, or a text of it."""

    value: Any
    text: str


_NOTHING = _Held(None, "nothing")
_since: dict[str, _Held] = {}
"""What upstream was when the user's code that runs now began, or went on after upstream's that it asked for."""
_changed: dict[str, tuple[_Held, _Held]] = {}
"""Place → what stood there before code of the user's, and what that left there."""
_running: list[None] = []


def registered_with(entry: Any) -> list[str]:
    """Return what is registered with a converter, beside its functions."""
    return [str(getattr(entry, name, None)) for name in OF_CONVERTERS]


@contextlib.contextmanager
def users_code() -> Iterator[None]:
    """Within: code of the user's runs. What changes of upstream is its doing; at other times it is upstream's own.

    A build registers converters, and a module that is loaded may set defaults: a key with that would follow from which
    cases a process had before. Within another such block this one does nothing.
    """
    if _running:
        yield
        return
    _begin()
    _running.append(None)
    try:
        yield
    finally:
        _running.clear()
        _end()


def runs_users_code() -> bool:
    """Return whether code of the user's runs now."""
    return bool(_running)


@contextlib.contextmanager
def upstreams_code() -> Iterator[None]:
    """Within: upstream's code runs that the user's asked for, such as its import: what it changes is its own.

    What the user's code changed before stays the user's.
    """
    if not _running:
        yield
        return
    _end()
    _running.clear()
    try:
        yield
    finally:
        _running.append(None)
        _begin()


def _begin() -> None:
    _since.clear()
    _since.update(_state_now())
    for where, (before, _) in list(_changed.items()):
        if _same(before, _since.get(where, _NOTHING)):  # it was put back
            del _changed[where]


def _end() -> None:
    now = _state_now() if _since else {}  # nobody saw an import that ended before
    for where in (*_since, *(where for where in now if where.startswith(CONVERTERS_OF) and where not in _since)):
        before, left = _since.get(where, _NOTHING), now.get(where, _NOTHING)
        function = now.get(where.removeprefix(CODE_OF).removeprefix(DEFAULTS_OF), _NOTHING).value
        if not _same(before, left) and function_code.module_of(function).partition(".")[0] != OURS:
            first, _ = _changed.pop(where, (before, left))
            if not _same(first, left):
                _changed[where] = (first, left)
    _since.clear()


def changes() -> list[Change]:
    """Return what a user's code changed of upstream since its import; nothing where nobody saw that import."""
    return [Change(where, left.text, left.value) for where, (_, left) in _changed.items()]


def _same(one: _Held, other: _Held) -> bool:
    return one.value is other.value and (one.value is not None or one.text == other.text)


def _state_now() -> dict[str, _Held]:
    try:
        return dict(_state())
    except AttributeError:  # another release keeps its registries elsewhere
        return {}


def _state() -> Iterator[tuple[str, _Held]]:
    yield from _members({id(one) for one in _told_apart()})
    for table, names in _registered():
        yield table, _Held(None, names)


def _told_apart() -> Iterator[Any]:
    """Yield the containers of converters: a user's own among them may be nothing to a program."""
    if CONVERTERS in sys.modules:
        registries = sys.modules[CONVERTERS].DYNAMO_CONVERTERS.registries
        yield from (registries, *registries)


def _members(told_apart: set[int]) -> Iterator[tuple[str, _Held]]:
    """Yield functions, classes, constants and tables of all modules, members of their classes, and defaults."""
    texts = dict.fromkeys(told_apart, "")
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES:
            for attribute, value in list(getattr(module, "__dict__", {}).items()):
                yield from _one(f"{name}.{attribute}", attribute, value, texts)
                if isinstance(value, type) and value.__module__ == name:
                    for member, held in list(vars(value).items()):
                        yield from _one(f"{name}.{attribute}.{member}", member, held, texts)


def _one(where: str, name: str, value: Any, texts: dict[int, str]) -> Iterator[tuple[str, _Held]]:
    """Yield what an attribute is; `texts` are those of containers and defaults, which several modules have."""
    if callable(value) or isinstance(value, property | classmethod | staticmethod):
        yield where, _Held(value, function_code.name_of(value))
    elif not name.startswith("__"):
        if isinstance(value, CONTAINERS):
            if id(value) not in texts:
                texts[id(value)] = text_of(value)
            text = texts[id(value)]
        else:
            text = code_values.plain(value)
        if text:
            yield where, _Held(None, text)
    if isinstance(value, FunctionType):
        yield f"{CODE_OF}{where}", _Held(value.__code__, value.__code__.co_name)
        if id(value) not in texts:  # it too is in several modules
            defaults = [value.__defaults__ or None, value.__kwdefaults__ or None]
            texts[id(value)] = code_values.plain(defaults) if any(defaults) else "[None, None]"
        yield f"{DEFAULTS_OF}{where}", _Held(None, texts[id(value)])


def text_of(value: Any, depth: int = DEPTH) -> str:
    """Return a text of a constant or of a table: of operators, functions and classes their names."""
    if isinstance(value, OF_TORCHS_OPERATORS):
        return str(value)
    if not isinstance(value, CONTAINERS):
        return function_code.name_of(value) if callable(value) else code_values.plain(value)
    if not depth:
        return ""
    if isinstance(value, Mapping):
        items = [f"{text_of(key, 1)}: {text_of(one, depth - 1)}" for key, one in list(value.items())]
        return f"[{', '.join(sorted(items))}]"
    texts = [text_of(one, depth - 1) for one in list(value)]
    return f"[{', '.join(sorted(texts) if isinstance(value, set | frozenset) else texts)}]"


def _registered() -> Iterator[tuple[str, str]]:
    """Yield upstream's converters, passes and decompositions, in their order: a user's own are left out."""
    if PASSES in sys.modules:
        passes = sys.modules[PASSES]
        for name in ("ATEN_PRE_LOWERING_PASSES", "ATEN_POST_LOWERING_PASSES"):
            yield f"passes {name}", _names(getattr(passes, name).passes)
    if DECOMPOSITIONS in sys.modules:
        for name in TABLES:
            yield name, " ".join(sorted(map(str, getattr(sys.modules[DECOMPOSITIONS], name, ()))))
    if CONVERTERS in sys.modules:
        for number, registry in enumerate(sys.modules[CONVERTERS].DYNAMO_CONVERTERS.registries):
            for target, entries in list(registry.items()):
                if isinstance(entries, list | tuple):
                    upstream = [one for one in entries if not function_code.holds_own(one.converter_implementation)]
                    if upstream:
                        names = _names(one.converter_implementation for one in upstream)
                        yield f"{CONVERTERS_OF}{number} {target}", f"{names} {list(map(registered_with, upstream))}"


def _names(functions: Any) -> str:
    return " ".join(function_code.name_of(one) for one in functions if not function_code.holds_own(one))
