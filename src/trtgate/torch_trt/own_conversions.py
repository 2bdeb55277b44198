"""A user's own converters, lowering passes and decompositions: engines are made by them, programs do not show them."""

from __future__ import annotations

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

UPSTREAM = ("torch", "torch_tensorrt", "functools", "modelopt")
"""Packages whose functions change with an installed version only."""
INSTALLED = (str(Path(torch.__file__).parents[1]), *(sysconfig.get_paths()[name] for name in ("stdlib", "purelib")))


def fingerprint() -> str:
    """Return a SHA-256 of what is registered that is not upstream's, with the files that define it; empty for none.

    Files are those of the functions, and of the modules that these import, as far as they are not installed.
    """
    if "torch_tensorrt" not in sys.modules:  # so nobody has registered anything
        return ""
    own = [(where, function) for where, function in _registered() if _package(function) not in UPSTREAM]
    if not own:
        return ""
    found = hashlib.sha256()
    for where, function in own:
        found.update(f"{where} {function.__module__}.{getattr(function, '__qualname__', function)}\n".encode())
    for file in sorted(_files(own)):
        found.update(hashlib.sha256(file.read_bytes()).digest())
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


def _files(own: list[tuple[str, Any]]) -> set[Path]:
    found: dict[str, Path] = {}
    asked = [function.__module__ for _, function in own]
    defining = set(asked)
    while asked:
        name = asked.pop()
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if module is None or file is None or name in found:
            continue
        if name in defining or not file.startswith(INSTALLED):
            found[name] = Path(file)
            asked += _imported(module)
    return {file for file in found.values() if file.is_file()}


def _imported(module: ModuleType) -> list[str]:
    """Return the names of the modules that a module has at its top, or has a function or class of."""
    values = list(vars(module).values())
    return [one.__name__ if isinstance(one, ModuleType) else str(getattr(one, "__module__", "")) for one in values]
