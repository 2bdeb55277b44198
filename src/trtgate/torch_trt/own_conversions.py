"""A user's own converters, lowering passes and decompositions: engines are made by them, programs do not show them."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from . import function_code

UPSTREAM = ("torch", "torch_tensorrt", "functools", "modelopt")
"""Packages whose functions change with an installed version only."""


def fingerprint() -> str:
    """Return a SHA-256 of what is registered that is not upstream's, with the code that defines it; empty for none.

    Code is that of `function_code.digest`: of the functions' modules, and of those that these import.
    """
    if "torch_tensorrt" not in sys.modules:  # so nobody has registered anything
        return ""
    own = [(where, function) for where, function in _registered() if _package(function) not in UPSTREAM]
    if not own:
        return ""
    found = hashlib.sha256()
    for where, function in own:
        found.update(f"{where} {function.__module__}.{getattr(function, '__qualname__', function)}\n".encode())
    found.update(function_code.digest(function for _, function in own).encode())
    return found.hexdigest()


def _registered() -> Iterator[tuple[str, Any]]:
    """Yield all functions that decide what becomes of a program, each with where it is registered."""
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS
    from torch_tensorrt.dynamo.lowering._decompositions import TORCH_TRT_DECOMPOSITIONS
    from torch_tensorrt.dynamo.lowering.passes import _aten_lowering_pass as passes

    for registry in DYNAMO_CONVERTERS.registries:
        for target, entries in registry.items():
            for entry in entries if isinstance(entries, list | tuple) else ():
                for function in (entry.converter_implementation, entry.capability_validator):
                    yield f"converter of {target}", inspect.unwrap(function)
    for target, function in TORCH_TRT_DECOMPOSITIONS.items():
        yield f"decomposition of {target}", inspect.unwrap(function)
    for each in (passes.ATEN_PRE_LOWERING_PASSES, passes.ATEN_POST_LOWERING_PASSES):
        for number, function in enumerate(each.passes):
            yield f"pass {number}", inspect.unwrap(function)


def _package(function: Any) -> str:
    return str(getattr(function, "__module__", None) or UPSTREAM[0]).partition(".")[0]
