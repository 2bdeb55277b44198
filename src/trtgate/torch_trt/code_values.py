"""What code of a user's own computes with that the code does not show: as far as it is plain, or numbers in bulk.

Values that a module read when it was imported, or was given since; variables of the environment and files of data that
it names.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import hashlib
import os
import re
from argparse import Namespace
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from . import data_files
from .imported_files import file_of, is_users_module, parsed

FUNCTIONS = (type, FunctionType, BuiltinFunctionType)
PLAIN = (bool, int, float, complex, str, bytes, range, type(None))
OF_PYTHON = (list, tuple, set, frozenset, dict)
NAMED = (torch.dtype, torch.device, torch.memory_format, torch.layout)
DEPTH = 8
"""So deep containers are looked into."""
NO_VALUES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
MAKING = ("__init__", "__new__", "__post_init__")
EMPTY = ("set", "dict", "list")
FILLING = ("add", "append", "appendleft", "clear", "extend", "insert", "pop", "remove", "setdefault", "update")
OF_A_PROCESS = re.compile(r"CUDA_VISIBLE_DEVICES|PYTEST_.*|TRTGATE_.*")
"""Variables that say which process this is."""


def plain(value: Any, depth: int = DEPTH) -> str:
    """Return the text of a plain value or a container, an array as its digest; empty for others, and for paths.

    A function or class is its name, since a module may choose one.
    """
    if type(value) in OF_PYTHON:  # first: most of what is asked is one
        return _of_container(value, depth)
    if isinstance(value, FUNCTIONS):
        return str(value.__qualname__)
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name} {plain(value.value, depth - 1) if depth else ''}"
    if isinstance(value, PLAIN):
        return "" if isinstance(value, str | bytes) and ("/" in repr(value)) else repr(value)
    if isinstance(value, NAMED) or hasattr(type(value), "__members__"):  # which enumerations of C++ have
        return repr(value)
    if isinstance(value, torch.Tensor):
        return _of_tensor(value)
    if hasattr(type(value), "__array_interface__"):
        return _of_array(np.asarray(value))
    if _is_object_of_users(value):
        value, depth = _state(value), depth // 2
    return _of_container(_opened(value), depth)


def _of_container(value: Any, depth: int) -> str:
    """Return the text of a container; empty for what is none, and below the last depth."""
    if not depth or not isinstance(value, list | tuple | set | frozenset | Mapping):
        return ""
    if isinstance(value, Mapping):
        value = [list(item) for item in value.items()]
    texts = [plain(one, depth - 1) for one in value]
    return f"[{', '.join(sorted(texts) if isinstance(value, set | frozenset) else texts)}]"


def _opened(value: Any) -> Any:
    """Return what an object holds, as a container; other objects as they are."""
    if isinstance(value, slice):
        return [value.start, value.stop, value.step]
    if isinstance(value, functools.partial):
        return [value.func, value.args, dict(sorted(value.keywords.items()))]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, deque):
        return list(value)
    if type(value).__qualname__ == "constexpr" and type(value).__module__.startswith("triton."):
        return [value.value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {one.name: getattr(value, one.name, None) for one in dataclasses.fields(value)}  # it may have slots
        return fields | getattr(value, "__dict__", {})
    return value.__dict__ if isinstance(value, SimpleNamespace | Namespace) else value


def _is_object_of_users(value: Any) -> bool:
    """Whether something is an object of a class of the user's own that is no container, and no module."""
    containers = list | tuple | set | frozenset | Mapping | torch.nn.Module
    own = is_users_module(type(value).__module__) and not isinstance(value, containers)
    return own and not dataclasses.is_dataclass(value)


def _state(value: Any) -> dict[str, Any]:
    """Return the attributes of an object but those that its class notes as it runs."""
    noted = kept_by(type(value), noted=True)
    slots = [name for kind in type(value).__mro__ for name in _as_tuple(vars(kind).get("__slots__", ()))]
    found = {name: getattr(value, name, None) for name in slots} | getattr(value, "__dict__", {})
    return {name: one for name, one in found.items() if name not in noted}


def _as_tuple(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def kept_by(kind: type, *, noted: bool = False) -> set[str]:
    """Return the attributes that a class's file counts or fills as it runs, and, if `noted`, those that it sets."""
    file = file_of(kind.__module__)
    tree = parsed(file) if file is not None and file.is_file() else None
    if tree is None:
        return set()
    return filled(tree) | (_set_later(tree) if noted else set())


def _set_later(tree: ast.Module) -> set[str]:
    """Return the attributes that functions set, but those that make objects."""
    functions = [one for one in ast.walk(tree) if isinstance(one, NO_VALUES[:2]) and one.name not in MAKING]
    nodes = (node for one in functions for node in ast.walk(one))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}


def parts(value: Any, depth: int = DEPTH) -> Iterator[Any]:
    """Yield what a container or a function with arguments in advance holds, and what that holds."""
    opened = _opened(value)
    if not depth or not isinstance(opened, list | tuple | set | frozenset | Mapping):
        return
    for one in opened.values() if isinstance(opened, Mapping) else opened:
        yield one
        yield from parts(one, depth - 1)


def _of_tensor(value: torch.Tensor) -> str:
    try:
        dense = value.to_dense() if value.layout is not torch.strided else value
        content = hashlib.sha256(bytes_of(dense.dequantize() if dense.is_quantized else dense)).hexdigest()
    except (TypeError, RuntimeError, NotImplementedError):  # it holds no values
        return ""
    return f"{value.dtype} {tuple(value.shape)} {content}"


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return what a dense tensor holds, in the order of its indices, however it lies in memory.

    Raises TypeError, RuntimeError or NotImplementedError for one whose values can't be read, such as a sparse one.
    """
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    if flat.stride() != (1,):  # a single value may have any
        flat = flat.clone(memory_format=torch.contiguous_format)
    return memoryview(flat.view(torch.uint8).numpy())


def _of_array(array: np.ndarray[Any, Any]) -> str:
    """Return the digest of an array, however it lies in memory; empty for texts, which may be paths, and objects."""
    if array.dtype.hasobject or array.dtype.kind in "SU":
        return ""
    return f"{array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def told(tree: ast.Module, module: ModuleType | None, folder: Path, filled_elsewhere: Container[str] = ()) -> list[str]:
    """Return what a module holds now that its code does not show, and the variables and files that its code names.

    Files are those of `data_files.named`; the code lies in `folder`. Of containers that start empty those are told
    that are `filled_elsewhere`.
    """
    names = sorted(set(_names(tree, filled_elsewhere)))
    values = {} if module is None else {name: plain(_held(module, name)) for name in names}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    stem = "" if module is None else module.__name__.rpartition(".")[2]
    named = sorted(name for name in texts & set(os.environ) if not OF_A_PROCESS.fullmatch(name))
    variables = {f"${name}": plain(os.environ[name]) for name in named}
    told = values | variables | data_files.named(tree, texts, folder, stem)
    return [f"{name}={text}" for name, text in told.items() if text not in ("", repr(None))]


def _held(module: ModuleType, name: str) -> Any:
    """Return what a module, or a class of it, holds under a name."""
    top, _, member = name.partition(".")
    value = vars(module).get(top)
    return getattr(value, "__dict__", {}).get(member) if member else value


def _names(tree: ast.Module, filled_elsewhere: Container[str]) -> Iterator[str]:
    """Yield the names at the top of a file that may hold what the code does not show: no counters, no caches."""
    variables, attributes = _kept(tree)
    yield from _computed(tree.body)
    settable = (*_settable(tree.body), *(name for name, _ in _assigned(tree.body) if name in filled_elsewhere))
    yield from (name for name in settable if name not in variables)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{name}" for name in _computed(node.body))
            yield from (f"{node.name}.{name}" for name in _settable(node.body) if name not in attributes)


def _kept(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Return the variables and the attributes that a file itself counts, fills, or, of attributes, sets as it runs."""
    set_by_global = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    variables = {node.id for node in _filled(tree) if isinstance(node, ast.Name)}
    stored = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    return variables | {name for name in set_by_global if name.startswith("_")}, filled(tree) | stored


def filled(tree: ast.Module) -> set[str]:
    """Return the attributes that a file itself counts or fills as it runs."""
    return {node.attr for node in _filled(tree) if isinstance(node, ast.Attribute)}


def _filled(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign):
            yield node.target
        if isinstance(node, ast.Attribute) and node.attr in FILLING:
            yield node.value
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node.value


def _assigned(body: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that statements at the top of a file give a value, and that value."""
    for node in body:
        if isinstance(node, NO_VALUES):
            continue
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((one.id, value) for target in targets for one in ast.walk(target) if isinstance(one, ast.Name))
        yield from _assigned(one for one in ast.iter_child_nodes(node) if isinstance(one, ast.stmt | ast.excepthandler))


def _computed(body: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names whose value the code does not show."""
    yield from (name for name, value in _assigned(body) if not _shown(value))


def _settable(body: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names of values that the code shows, which other code may have set to others."""
    yield from (name for name, value in _assigned(body) if _shown(value) and not _starts_empty(value))


def _starts_empty(value: ast.expr) -> bool:
    """Whether a value is a container that is filled later, by whoever runs."""
    return isinstance(value, ast.Call) or not (getattr(value, "elts", value) and getattr(value, "keys", value))


def _shown(value: ast.expr) -> bool:
    if isinstance(value, ast.Call) and not value.args and not value.keywords:
        return isinstance(value.func, ast.Name) and value.func.id in EMPTY
    return not any(isinstance(one, ast.Name | ast.Call | ast.Attribute | ast.Subscript) for one in ast.walk(value))
