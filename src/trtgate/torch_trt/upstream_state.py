"""What Torch-TensorRT is when its import ends. What a user's code changes of it afterwards decides engines too.

Own functions that are registered are in `own_conversions.py`. This finds the rest: a class or a constant that is
replaced, arguments with another default, and converters, passes and decompositions of upstream's that are taken away.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any, NamedTuple

from . import code_values, function_code

PACKAGES = ("torch_tensorrt", "tensorrt", "tensorrt_rtx")
CONVERTERS = "torch_tensorrt.dynamo.conversion._ConverterRegistry"
DECOMPOSITIONS = "torch_tensorrt.dynamo.lowering._decompositions"
PASSES = "torch_tensorrt.dynamo.lowering.passes._aten_lowering_pass"
TABLES = ("torch_enabled_decompositions", "torch_disabled_decompositions", "TORCH_TRT_DECOMPOSITIONS")
CODE_OF, DEFAULTS_OF, CONVERTERS_OF = "code of ", "defaults of ", "converters of "
OF_CONVERTERS = ("supports_dynamic_shapes", "requires_output_allocator")
CONSTANTS = (*code_values.PLAIN, tuple, list, set, frozenset)
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
"""What upstream was when the user's code that runs now began, or when the import ended that it asked for."""
_changed: dict[str, tuple[_Held, _Held]] = {}
"""Place → what stood there before code of the user's, and what that left there."""
_running: list[None] = []


def registered_with(entry: Any) -> list[str]:
    """Return what is registered with a converter, beside its functions."""
    return [str(getattr(entry, name, None)) for name in OF_CONVERTERS]


def remember() -> None:
    """Take what upstream is now as what it is by itself: its import ends."""
    if _running:
        _since.update(_state_now())


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
            _changed[where] = (_changed.get(where, (before,))[0], left)
    _since.clear()


def changes() -> list[Change]:
    """Return what a user's code changed of upstream since its import; nothing where nobody saw that import."""
    changed = [(where, left) for where, (before, left) in _changed.items() if not _same(before, left)]
    return [Change(where, left.text, left.value) for where, left in changed]


def _same(one: _Held, other: _Held) -> bool:
    return one.value is other.value and (one.value is not None or one.text == other.text)


def _state_now() -> dict[str, _Held]:
    try:
        return dict(_state())
    except AttributeError:  # another release keeps its registries elsewhere
        return {}


def _state() -> Iterator[tuple[str, _Held]]:
    yield from _members()
    for table, names in _registered():
        yield table, _Held(None, names)


def _members() -> Iterator[tuple[str, _Held]]:
    """Yield functions, classes and constants of all modules, members of their classes, and defaults of arguments."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES:
            for attribute, value in list(getattr(module, "__dict__", {}).items()):
                yield from _one(f"{name}.{attribute}", attribute, value)
                if isinstance(value, type) and value.__module__ == name:
                    for member, held in list(vars(value).items()):
                        yield from _one(f"{name}.{attribute}.{member}", member, held)


def _one(where: str, name: str, value: Any) -> Iterator[tuple[str, _Held]]:
    if callable(value) or isinstance(value, property | classmethod | staticmethod):
        yield where, _Held(value, function_code.name_of(value))
    elif name.isupper() and name[0] != "_" and isinstance(value, CONSTANTS) and (text := code_values.plain(value)):
        yield where, _Held(None, text)
    if isinstance(value, FunctionType):
        yield f"{CODE_OF}{where}", _Held(value.__code__, value.__code__.co_name)
        yield f"{DEFAULTS_OF}{where}", _Held(None, code_values.plain([value.__defaults__, value.__kwdefaults__]))


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
