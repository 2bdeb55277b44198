"""Which files a file of Python imports, also within functions that have not run yet: as its code says."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch

_PLACES = (str(Path(torch.__file__).parents[1]), *(sysconfig.get_paths()[name] for name in ("stdlib", "purelib")))
INSTALLED = tuple(dict.fromkeys(f"{place}{os.sep}" for one in _PLACES for place in (one, os.path.realpath(one))))
"""Folders of what is installed, also by their other names: an environment may lie behind a link."""
IN_PACKAGES = re.compile("/(site|dist)-packages/")
"""Where else packages lie: those of the system or of the user's home beside an environment's own."""
OF_SOURCES = (
    "torch_tensorrt", "tensorrt", "tensorrt_bindings", "tensorrt_libs", "tensorrt_rtx", "tensorrt_rtx_bindings",
    "tensorrt_rtx_libs", "triton",
)  # fmt: skip
"""Packages of upstream's that may be imported from a folder of sources, or lie in one of their own."""
UPSTREAM = ("torch", *OF_SOURCES, "functools", "modelopt", "trtgate")
"""Packages whose functions change with an installed version only, which a program part has anyway."""
BY_CALL = ("import_module", "__import__")
"""Functions that import what they are told."""
OURS = f"{Path(__file__).parents[1]}{os.sep}"


def is_users(file: str) -> bool:
    """Return whether code is the user's: it is neither installed, nor trtgate's, nor of an editable upstream."""
    if file.startswith((*INSTALLED, OURS, "<")) or IN_PACKAGES.search(file):
        return False
    return not file.startswith(upstream_folders())


def upstream_folders() -> tuple[str, ...]:
    """Return the folders of those `OF_SOURCES` that are imported, and the files of those that are one file."""
    said = (_said_by(sys.modules.get(name)) for name in OF_SOURCES)
    files = [file for file in said if file is not None and os.path.isabs(file)]
    return tuple(re.sub(r"/__init__\.[^/]*$", os.sep, file) for file in files)


@functools.lru_cache(maxsize=4096)
def is_users_module(name: object) -> bool:
    """Return whether a module that is imported lies in a file of the user's own."""
    file = file_of(str(name))
    return file is not None and is_users(str(file))


def file_of(name: str) -> Path | None:
    """Return the file that an imported module says it comes from; None where it says none."""
    file = _said_by(sys.modules.get(name))
    return None if file is None else Path(file)


def _said_by(module: object) -> str | None:
    """Return the file that a module says it comes from; None where it says none, as a lazy one that can't be loaded."""
    with contextlib.suppress(Exception):
        file = getattr(module, "__file__", None)
        return file if isinstance(file, str) else None
    return None


def modules_by_file() -> dict[str, ModuleType]:
    """Return the modules that are imported, by the file that each comes from: of several of one file the first.

    What imports it again later under another name, such as a test, leaves the first one's values as they are.
    """
    modules = reversed(list(sys.modules.values()))
    return {file: module for module in modules if (file := _said_by(module)) is not None}


def users_modules() -> dict[str, ModuleType]:
    """Return those of the user's own by their files, which are there."""
    return {
        file: module for file, module in modules_by_file().items()
        if file.startswith(os.sep) and is_users(file) and os.path.isfile(file)
    }  # fmt: skip


def _name_of(expression: ast.expr) -> str:
    """Return the last part of a name with dots; empty for what is none."""
    return expression.attr if isinstance(expression, ast.Attribute) else getattr(expression, "id", "")


class Imports:
    """The names that a file imports, and the files of these."""

    def __init__(self, file: Path, tree: ast.AST) -> None:
        self._file = file
        self.names = dict.fromkeys(self._names(tree))

    def _names(self, tree: ast.AST) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                yield base
                yield from (f"{base}.{alias.name}".strip(".") for alias in node.names if alias.name != "*")
            elif isinstance(node, ast.Call) and _name_of(node.func) in BY_CALL and node.args:
                named = node.args[0]
                if isinstance(named, ast.Constant) and isinstance(named.value, str):
                    yield named.value

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = package_of(self._file).split(".")
        above = package[: len(package) - node.level + 1]
        return ".".join([*above, *filter(None, [node.module])])

    def files(self, own_packages: set[str]) -> Iterator[Path]:
        """Yield the files of the user's own: those not installed, and those of some packages."""
        for name in self.names:
            parts = name.split(".")
            for count in range(1, len(parts) + 1):  # importing a.b runs a's file too
                file = located(".".join(parts[:count]), self._file.parent)
                if file is not None and (parts[0] in own_packages or not str(file).startswith(INSTALLED)):
                    yield file

    def installed(self) -> Iterator[str]:
        """Yield the names of the installed packages among them."""
        for name in self.names:
            top = name.partition(".")[0]
            file = located(top, self._file.parent)
            if file is not None and str(file).startswith(INSTALLED):
                yield top


def parsed(file: Path) -> ast.Module | None:
    """Return the code of a file; None where it is none."""
    if file.suffix != ".py":
        return None
    status = file.stat()
    return _parsed_once(file, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4096)
def _parsed_once(file: Path, _mtime_ns: int, _size: int) -> ast.Module | None:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # it changed after it was imported
        return None
    for node in ast.walk(tree):
        documented = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body[:1] = []
    return tree


def package_of(file: Path) -> str:
    """Return the dotted name of the package that a file is in; empty for none."""
    names: list[str] = []
    folder = file.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names)


def located(name: str, beside: Path) -> Path | None:
    """Return the file of a module, importing nothing; `beside` is the folder of the file that imports it."""
    file = file_of(name)
    if file is not None:
        return file
    top, *parts = name.split(".")
    places, origin = _top(top, tuple(sys.path))
    if origin is None and not places:
        return _file_below([str(beside)], [top, *parts])
    return _file_below(places, parts) if parts else origin


@functools.lru_cache(maxsize=4096)
def _top(name: str, _path: tuple[str, ...]) -> tuple[tuple[str, ...], Path | None]:
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        spec = importlib.util.find_spec(name)
        if spec is not None:
            origin = None if spec.origin is None else Path(spec.origin)
            file = origin if origin is not None and origin.is_file() else None
            return tuple(spec.submodule_search_locations or ()), file
    return (), None


def _file_below(places: tuple[str, ...] | list[str], parts: list[str]) -> Path | None:
    for place in places:
        base = Path(place).joinpath(*parts)
        for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if file.is_file():
                return file
    return None
