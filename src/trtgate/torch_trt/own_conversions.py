"""A user's own converters, lowering passes and decompositions, and what else of upstream the user replaced.

Engines are made by them, programs do not show them.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from . import custom_operators, function_code
from .imported_files import INSTALLED

CONVERTER = "converter of "
PATCHED = ("torch_tensorrt", "tensorrt", "tensorrt_rtx")
"""Packages in which a function of the user's own stands for one of theirs."""


def fingerprint(*, of_custom: bool = True) -> str:
    """Return a SHA-256 of what is registered that is not upstream's, with the code that defines it; empty for none.

    Without `of_custom` converters of custom operators are left out, for a program that has none: a factory of another
    case may have registered them in this process. They stay where passes or decompositions may put such operators in.
    Code is that of `function_code.digest`: of the functions' modules, and of those that these import.
    """
    if "torch_tensorrt" not in sys.modules:  # so nobody has registered anything
        return ""
    own = [
        (where, function)
        for where, function in (*_registered(), *_patched())
        if any(map(function_code.is_own, function_code.within(function)))
    ]
    if not of_custom and all(where.startswith(CONVERTER) for where, _ in own):
        own = [(where, function) for where, function in own if _is_upstream(where)]
    if not own:
        return ""
    found = hashlib.sha256()
    for where, function in own:
        found.update(f"{where} {_name(function)}\n".encode())
    found.update(function_code.digest(function for _, function in own).encode())
    return found.hexdigest()


def _is_upstream(where: str) -> bool:
    """Whether a converter is one of an operator of torch, or of anything but an operator."""
    namespace, dot, _ = where.removeprefix(CONVERTER).partition(".")
    return not dot or namespace in custom_operators.UPSTREAM or namespace.startswith(("<", "torch", "_"))


def _registered() -> Iterator[tuple[str, Any]]:
    """Yield all functions that decide what becomes of a program, each with where it is registered."""
    from torch._decomp import global_decomposition_table
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS
    from torch_tensorrt.dynamo.lowering._decompositions import TORCH_TRT_DECOMPOSITIONS
    from torch_tensorrt.dynamo.lowering.passes import _aten_lowering_pass as passes

    for registry in DYNAMO_CONVERTERS.registries:
        for target, entries in registry.items():
            for entry in entries if isinstance(entries, list | tuple) else ():
                for function in (entry.converter_implementation, entry.capability_validator):
                    yield f"{CONVERTER}{target}", function
    for target, function in TORCH_TRT_DECOMPOSITIONS.items():
        yield f"decomposition of {target}", function
    for kind, table in global_decomposition_table.items():
        for target, function in table.items():
            yield f"{kind} decomposition of {target}", function
    for each in (passes.ATEN_PRE_LOWERING_PASSES, passes.ATEN_POST_LOWERING_PASSES):
        for number, function in enumerate(each.passes):
            yield f"pass {number}", function


def _patched() -> Iterator[tuple[str, Any]]:
    """Yield the functions of the user's own that were put in place of upstream's: in modules, and in their classes."""
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] not in PATCHED:
            continue
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if isinstance(value, type) and value.__module__ == name:
                members = [(f"{attribute}.{one}", held) for one, held in list(vars(value).items())]
            else:
                members = [(attribute, value)]
            for path, held in members:
                function = held.__func__ if isinstance(held, classmethod | staticmethod) else held
                if _is_function(function) and not _is_installed(function):
                    yield f"{name}.{path}", function


def _is_function(value: Any) -> bool:
    return isinstance(value, FunctionType | functools.partial)


def _is_installed(function: Any) -> bool:
    """Whether all of a function lies in installed files, or in none: upstream imports and makes functions, too."""
    codes = (getattr(one, "__code__", None) for one in function_code.within(function))
    files = [code.co_filename for code in codes if code is not None]
    return all(file.startswith((*INSTALLED, "<")) for file in files)


def _name(function: Any) -> str:
    """Return the name of a function, or of what a partial one calls: no place in memory."""
    while isinstance(function, functools.partial):
        function = function.func
    return f"{function_code.module_of(function)}.{getattr(function, '__qualname__', type(function).__qualname__)}"
