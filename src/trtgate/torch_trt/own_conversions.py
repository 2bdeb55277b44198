"""A user's own converters, lowering passes and decompositions, and what else of upstream the user replaced.

Engines are made by them, programs do not show them.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from . import function_code, native_files, operator_files, upstream_state
from .imported_files import is_users

CONVERTER = "converter of "
OF_TORCH = re.compile(
    r"torch\.(fx|export|_export|_decomp|_functorch|_higher_order_ops|_subclasses|_ops|utils\._pytree)\b"
)
"""Modules of torch that make of a program what an engine is built of: others are traced, so programs show them."""

ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Where a function lies in memory that a converter is registered for, such as torch.sym_min."""


def fingerprint(*, of_custom: bool = True) -> str:
    """Return a SHA-256 of what is registered that is not upstream's, with the code that defines it; empty for none.

    Without `of_custom` converters of custom operators are left out, for a program that has none: a factory of another
    case may have registered them in this process. They stay where passes or decompositions may put such operators in.
    Code is that of `function_code.digest`: of the functions' modules, and of those that these import. Libraries of
    C++ that are loaded and not installed belong to it. Raises TrtgateError for one that was built again since.
    """
    own = [(where, function) for where, function in (*_registered(), *_patched()) if function_code.holds_own(function)]
    own += [(f"{one.where} {one.text}", one.value) for one in upstream_state.changes()]
    if not of_custom and all(where.startswith(CONVERTER) for where, _ in own):
        own = [(where, function) for where, function in own if _is_upstream(where)]
    if not own:
        return ""
    found = hashlib.sha256()
    for said in sorted(f"{ADDRESS.sub('', where)} {_named(function)}\n" for where, function in own):
        found.update(said.encode())  # sorted: which case registered first decides nothing
    libraries = native_files.loaded()  # with plugins of TensorRT, which a converter asks for by name
    found.update(function_code.digest((function for _, function in own), libraries).encode())
    return found.hexdigest()


def _named(function: Any) -> str:
    """Return the name of a function, and what it holds: two of one name may stand in each other's place."""
    return f"{function_code.name_of(function)} {function_code.held(function)}"


def _is_upstream(where: str) -> bool:
    """Whether a converter is one of an operator of torch, or of anything but an operator."""
    namespace, dot, _ = where.removeprefix(CONVERTER).partition(".")
    return not dot or namespace in operator_files.UPSTREAM or namespace.startswith(("<", "torch", "_"))


def _registered() -> Iterator[tuple[str, Any]]:
    """Yield all functions that decide what becomes of a program, each with where it is registered."""
    from torch._decomp import global_decomposition_table

    for kind, table in global_decomposition_table.items():
        for target, function in table.items():
            yield f"{kind} decomposition of {target}", function
    if "torch_tensorrt" in sys.modules:  # else nobody has registered anything there
        yield from _registered_upstream()


def _registered_upstream() -> Iterator[tuple[str, Any]]:
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS
    from torch_tensorrt.dynamo.lowering._decompositions import TORCH_TRT_DECOMPOSITIONS
    from torch_tensorrt.dynamo.lowering.passes import _aten_lowering_pass as passes

    for registry in DYNAMO_CONVERTERS.registries:
        for target, entries in registry.items():
            for place, entry in enumerate(entries if isinstance(entries, list | tuple) else ()):
                said = upstream_state.registered_with(entry)
                for function in (entry.converter_implementation, entry.capability_validator):
                    yield f"{CONVERTER}{target} {place} {said}", function
    for target, function in TORCH_TRT_DECOMPOSITIONS.items():
        yield f"decomposition of {target}", function
    for each in (passes.ATEN_PRE_LOWERING_PASSES, passes.ATEN_POST_LOWERING_PASSES):
        for number, function in enumerate(each.passes):
            yield f"pass {number}", function


def _patched() -> Iterator[tuple[str, Any]]:
    """Yield what is of the user's own in place of something of upstream's: in modules, in their classes and tables."""
    asked: dict[int, tuple[Any, bool]] = {}  # modules hand on what others define: it is asked once, and kept meanwhile
    for path, value in _members():
        if id(value) not in asked:
            asked[id(value)] = value, _is_users(value)
        if asked[id(value)][1]:
            yield ".".join(map(str, path)), value


def _members() -> Iterator[tuple[tuple[object, ...], Any]]:
    """Yield what modules of upstream's, and those of torch that make programs, have, and their classes and tables."""
    for name, module in sorted(sys.modules.items()):
        if not (_is_of(upstream_state.PACKAGES, name) or OF_TORCH.match(name)):
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if issubclass(type(value), type) and value.__module__ == name:
                yield from (((name, attribute, one), held) for one, held in list(vars(value).items()))
                continue
            yield (name, attribute), value
            if _is_of(upstream_state.PACKAGES, type(value).__module__):  # such as the registry of converters
                held_by = list(getattr(value, "__dict__", {}).items())
                yield from (((name, attribute, one), held) for one, held in held_by)
            elif _is_of(upstream_state.PACKAGES, name) and isinstance(value, upstream_state.CONTAINERS):
                yield from (((name, f"{attribute}[{key}]"), held) for key, held in _items(value))


def _items(table: Any) -> list[tuple[str, Any]]:
    """Return what a table of upstream's holds, such as rules by their names; what has no key is in no order."""
    if isinstance(table, Mapping):
        return [(upstream_state.text_of(key), value) for key, value in list(table.items())]
    return [("", value) for value in list(table)]


def _is_of(packages: tuple[str, ...], module: object) -> bool:
    return str(module).partition(".")[0] in packages


def _is_users(value: Any) -> bool:
    """Whether a function, a class or the class of an object lies in a file of the user's own."""
    if issubclass(type(value), function_code.FUNCTIONS):
        codes = (getattr(one, "__code__", None) for one in function_code.within(value))
        return any(is_users(code.co_filename) for code in codes if code is not None)
    return function_code.is_of_users_class(value)
