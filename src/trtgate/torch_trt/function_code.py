"""The code of functions of a user's own: the files that define them, and those that these import, without comments."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

INSTALLED = (str(Path(torch.__file__).parents[1]), *(sysconfig.get_paths()[name] for name in ("stdlib", "purelib")))


def digest(functions: Iterable[Any], files: Iterable[Path] = ()) -> str:
    """Return a SHA-256 of the files that define functions, of those that these import, and of further files.

    What is imported and installed is left out. Comments, where a line stands and where a file lies are not in it.
    """
    given = list(functions)
    found = _files([module_of(function) for function in given]) | set(filter(None, map(_file_of, given))) | {*files}
    code = {hashlib.sha256(_without_comments(file.read_bytes(), file)).digest() for file in found}
    return hashlib.sha256(b"".join(sorted(code))).hexdigest()


def module_of(function: Any) -> str:
    """Return the name of the module that defines a function; empty where it does not say."""
    return str(getattr(function, "__module__", None) or "")


def _file_of(function: Any) -> Path | None:
    """Return the file in which a function was compiled: its module may be in no list of modules."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    file = None if code is None else Path(code.co_filename)
    return file if file is not None and file.is_file() else None


def _without_comments(content: bytes, file: Path) -> bytes:
    if file.suffix != ".py":
        return content
    try:
        return ast.dump(ast.parse(content)).encode()
    except (SyntaxError, ValueError):  # it changed after it was imported
        return content


def _files(asked: list[str]) -> set[Path]:
    found: dict[str, Path] = {}
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
