"""What code of a user's own computes with that the code does not show: as far as it is plain, or numbers in bulk.

Values that a module read when it was imported, or was given since; variables of the environment and files of data that
it names.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import enum
import functools
import hashlib
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from ..common import sealed_folder

FUNCTIONS = (type, FunctionType, BuiltinFunctionType)
PLAIN = (bool, int, float, complex, str, bytes, range, type(None))
NAMED = (torch.dtype, torch.device, torch.memory_format, torch.layout)
DEPTH = 8
"""So deep containers are looked into."""
NO_VALUES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
EMPTY = ("set", "dict", "list")
FILLING = ("add", "append", "appendleft", "clear", "extend", "insert", "pop", "remove", "setdefault", "update")
FILE = re.compile(r"(?!/)[^\n\0]{0,200}\.\w{1,12}")
"""Texts that may name a file."""
FOLDER = re.compile(r"[\w-][\w.-]{0,60}")
"""Texts that may name a folder of them."""
MOST_PLACES = 32
"""Folders that are looked into for the files that one file of code names."""
CODE = (".py", ".pyc")
"""Ends of files whose code is told elsewhere."""
OF_A_PROCESS = re.compile(r"CUDA_VISIBLE_DEVICES|PYTEST_.*|TRTGATE_.*")
"""Variables that say which process this is."""


def plain(value: Any, depth: int = DEPTH) -> str:
    """Return the text of a plain value or a container, an array as its digest; empty for others, and for paths.

    A function or class is its name, since a module may choose one.
    """
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
    value = _opened(value)
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
    if isinstance(value, deque):
        return list(value)
    if type(value).__qualname__ == "constexpr" and type(value).__module__.startswith("triton."):
        return [value.value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {one.name: getattr(value, one.name, None) for one in dataclasses.fields(value)}  # it may have slots
        return fields | getattr(value, "__dict__", {})
    return value.__dict__ if isinstance(value, SimpleNamespace) else value


def _of_tensor(value: torch.Tensor) -> str:
    try:
        tensor = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        content = hashlib.sha256(memoryview(tensor.reshape(-1).view(torch.uint8).numpy())).hexdigest()
    except (TypeError, RuntimeError, NotImplementedError):  # a sparse tensor
        return ""
    return f"{tensor.dtype} {tuple(tensor.shape)} {content}"


def _of_array(array: np.ndarray[Any, Any]) -> str:
    """Return the digest of an array, however it lies in memory; empty for texts, which may be paths, and objects."""
    if array.dtype.hasobject or array.dtype.kind in "SU":
        return ""
    return f"{array.dtype.str} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def told(tree: ast.Module, module: ModuleType | None, folder: Path) -> list[str]:
    """Return what a module holds now that its code does not show, and the variables and files that its code names.

    A file lies in `folder`, that of the code, in one above it within the working folder, or in folders that it names.
    """
    values = {} if module is None else {name: plain(_held(module, name)) for name in sorted(set(_names(tree)))}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    named = sorted(name for name in texts & set(os.environ) if not OF_A_PROCESS.fullmatch(name))
    variables = {f"${name}": plain(os.environ[name]) for name in named}
    places = _places(texts, folder)
    files = {name: digest for name in sorted(filter(FILE.fullmatch, texts)) if (digest := _of_files(name, places))}
    return [f"{name}={text}" for name, text in (values | variables | files).items() if text not in ("", repr(None))]


def _held(module: ModuleType, name: str) -> Any:
    """Return what a module, or a class of it, holds under a name."""
    top, _, member = name.partition(".")
    value = vars(module).get(top)
    return getattr(value, "__dict__", {}).get(member) if member else value


def _places(texts: Iterable[str], folder: Path) -> dict[str, set[str]]:
    """Return the folders in which files may lie that code of a folder names, with what lies there.

    A folder may be named part by part.
    """
    here = Path.cwd()
    above = [one for one in (folder, *folder.parents) if one.is_relative_to(here)] or [folder]
    places = list(dict.fromkeys(map(str, (*above, here))))
    parts = {part for text in texts for part in text.split("/") if FOLDER.fullmatch(part)}
    found: dict[str, set[str]] = {}
    for place in places:  # it grows
        found[place] = set()
        with contextlib.suppress(OSError):  # it is none, or nobody may read it
            found[place].update(os.listdir(place))
        below = [os.path.join(place, name) for name in sorted(parts & found[place])]
        places += [one for one in below if len(places) < MOST_PLACES and one not in places and os.path.isdir(one)]
    return found


def _of_files(name: str, places: Mapping[str, set[str]]) -> str:
    """Return the digests of the data files that a name may mean; empty where there are none, and for code."""
    first = name.partition("/")[0]
    possible = [Path(place, name) for place, there in places.items() if first in there or first in (".", "..")]
    return " ".join(dict.fromkeys(filter(None, map(_of_file, possible))))


def _of_file(place: Path) -> str:
    with contextlib.suppress(OSError, ValueError):  # half a surrogate pair names no file
        status = place.stat()
        if stat.S_ISREG(status.st_mode) and place.suffix not in CODE:
            return _of_content(place.absolute(), status.st_mtime_ns, status.st_size)
    return ""


@functools.lru_cache(maxsize=4096)
def _of_content(file: Path, _mtime_ns: int, _size: int) -> str:
    return sealed_folder.digest(file)


def _names(tree: ast.Module) -> Iterator[str]:
    """Yield the names at the top of a file that may hold what the code does not show: no counters, no caches."""
    variables, attributes = _kept(tree)
    yield from _computed(tree.body)
    yield from (name for name in _settable(tree.body) if name not in variables)
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
