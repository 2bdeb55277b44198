"""The files with the code of operators: of one, and of those that a file of Python calls by name."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS

from ..common.errors import TrtgateError
from . import native_files
from .imported_files import INSTALLED, Imports, modules_by_file, parsed, users_modules

UPSTREAM = frozenset(
    "aten prim prims quantized c10d _c10d_functional inductor higher_order profiler tensorrt debugprims rngprims "
    "sparse mkldnn mkl onednn xnnpack".split()
)
"""Namespaces of operators that change with an installed version only."""
REGISTERED = re.compile(r"registered at (.+?):\d+")
DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
UNKNOWN = re.compile(r"^(?!debug|Meta|Autograd)\w+(\[alias\])?: registered at \S*/torch/library\.py:", re.MULTILINE)
"""A kernel given to `torch.library.impl`: a function of Python, and torch keeps no record of where it is from."""

DEFINED = re.compile(r"^debug: registered at \S*/torch/library\.py:", re.MULTILINE)
"""An operator that `torch.library.define` made."""


def of(schema: Any, name: str) -> tuple[list[Any], list[Path]]:
    """Return the Python functions of an operator, and the files of its other kernels: libraries too where one is C++.

    Raises TrtgateError, with the operator's `name`, where its code is not to be found.
    """
    functions, files = _functions(schema.name), _registering(schema)
    if _unknown(schema):
        raise TrtgateError(
            f"the code of its operator {name} is not to be found: write torch.library.custom_op, triton_op or "
            "register_kernel, or Library.impl, instead of torch.library.impl"
        )
    own = schema.name.partition("::")[0] not in UPSTREAM
    kernels = REGISTERED.findall(_dump(schema)) if own else map(str, files)  # where they were built, they need not lie
    if not (functions or files) or not all(one.endswith(".py") for one in kernels):
        files += native_files.loaded()
    if not functions and not files:
        raise TrtgateError(f"the code of its operator {name} is not to be found")
    return functions, files


def has_kernel_of_users(schema: Any) -> bool:
    """Return whether an operator of upstream's has a kernel of the user's, or one from anywhere.

    An operator that upstream defines with `torch.library.define`, as modelopt does, has upstream's kernels from there.
    """
    return bool(_registering(schema)) or (_unknown(schema) and DEFINED.search(_dump(schema)) is None)


def called_in(tree: ast.Module | None) -> Iterator[Path]:
    """Yield the files of the operators, but upstream's, that code calls by name, as `torch.ops.mine.twice(x)`.

    They need not be among what it imports. Raises TrtgateError as `of`.
    """
    for qualified in () if tree is None else _all_named(tree):
        for schema in torch._C._jit_get_schemas_for_operator(qualified):
            functions, files = of(schema, qualified.replace("::", "."))
            yield from files
            codes = (getattr(one, "__code__", None) for one in functions)
            yield from (Path(code.co_filename) for code in codes if code is not None)


@functools.lru_cache(maxsize=4096)
def _all_named(tree: ast.Module) -> list[str]:
    """Return the operators that code names, in order: once of a tree, since each function's digest asks for it."""
    return sorted(set(_named(tree)))


def _named(tree: ast.Module) -> Iterator[str]:
    """Yield the operators that code names, but those for which a decorator registers something."""
    decorators = [one for node in ast.walk(tree) for one in getattr(node, "decorator_list", ())]
    registered_for = {node for decorator in decorators for node in ast.walk(decorator)}
    for node in ast.walk(tree):
        if node in registered_for:
            continue
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            namespace, ops = node.value.attr, node.value.value
            said = ops.attr if isinstance(ops, ast.Attribute) else getattr(ops, "id", "")
            if said == "ops" and namespace not in UPSTREAM:
                yield f"{namespace}::{node.attr}"


def _dump(schema: Any) -> str:
    qualified = f"{schema.name}.{schema.overload_name}" if schema.overload_name else str(schema.name)
    return str(torch._C._dispatch_dump(qualified))


def _unknown(schema: Any) -> bool:
    return UNKNOWN.search(_dump(schema)) is not None


def _registering(schema: Any) -> list[Path]:
    """Return the files of a user's own in which an operator is registered, of Python or C++."""
    places = dict.fromkeys(REGISTERED.findall(_dump(schema)))
    files = [Path(place) for place in places if not place.startswith(INSTALLED) and Path(place).is_file()]
    for file in files:  # it grows
        files += (one for one in _registering_with(file) if one not in files)
    return files


def _registering_with(file: Path) -> list[Path]:
    """Return the files of the user's own that register operators with a library, or a function, of another file.

    torch notes where `torch.library.Library` is called, and not who calls its `impl`.
    """
    tree = parsed(file)
    if tree is None:
        return []
    doors = {node.name for node in tree.body if isinstance(node, DEFINITIONS) and _calls_impl(node)}
    held = getattr(modules_by_file().get(str(file)), "__dict__", {})
    doors |= {name for name, value in list(held.items()) if isinstance(value, torch.library.Library)}
    others = map(Path, users_modules() if doors else ())
    return [one for one in others if _mentions(one, doors) and _imports(one, file)]


def _calls_impl(node: ast.AST) -> bool:
    return any(isinstance(one, ast.Attribute) and one.attr == "impl" for one in ast.walk(node))


def _mentions(file: Path, names: set[str]) -> bool:
    tree = parsed(file)
    return tree is not None and not names.isdisjoint(_words(tree))


@functools.lru_cache(maxsize=4096)
def _words(tree: ast.Module) -> frozenset[str]:
    """Return the names and attributes that code has: once of a tree, since each operator asks all files of the user."""
    return frozenset(
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)
    )  # fmt: skip


def _imports(file: Path, other: Path) -> bool:
    tree = parsed(file)
    return tree is not None and other in Imports(file, tree).files(set())


def _functions(qualified: str) -> list[Any]:
    """Return the Python functions of an operator made with `torch.library.custom_op` or `triton_op`."""
    made = OPDEFS.get(qualified)
    if made is None:
        return []
    return [made._init_fn, *made._backend_fns.values(), *(one for one in (made._abstract_fn,) if one is not None)]
