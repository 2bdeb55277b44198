"""The code of functions of a user's own: the files that define them, and those that these import, without comments.

What is no code is in it as far as `code_values` tells it: what a module read from a file or a variable, and what
functions close over or were given in advance.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from . import code_values, operator_files
from .imported_files import INSTALLED, UPSTREAM, Imports, is_users

LRU = type(functools.lru_cache(len))
FUNCTIONS = (FunctionType, MethodType, functools.partial, classmethod, staticmethod, property, LRU)
DEPTH = 8
"""So deep functions within functions are looked into."""


def digest(functions: Iterable[Any], files: Iterable[Path] = ()) -> str:
    """Return a SHA-256 of the files that define functions, of those that these import, and of further files.

    Of what is installed it is the version, unless it is of the same package as a function. Comments, where a line
    stands and where a file lies are not in it. Raises TrtgateError as `operator_files.of`.
    """
    functions = list(functions)
    given = [one for function in functions for one in within(function) if is_own(one)]
    names = {name for name in map(module_of, given) if name.partition(".")[0] not in UPSTREAM}
    found = {*filter(None, map(_file_of, given)), *filter(None, map(_file_of_module, names)), *files}
    closed = _closure(found, {name.partition(".")[0] for name in names} - {""})
    code = {hashlib.sha256(_told(file)).digest() for file in closed}
    held = sorted({text for function in functions for one in within(function) for text in _held(one)})
    versions = sorted({text for file in closed for text in _versions(file)})
    return hashlib.sha256(
        b"".join(sorted(code)) + repr([held, versions] if held or versions else "").encode()
    ).hexdigest()


def module_of(function: Any) -> str:
    """Return the name of the module that defines a function; empty where it does not say."""
    return str(getattr(function, "__module__", None) or "")


def name_of(function: Any) -> str:
    """Return the name of a function or class, of a partial one's function, or of an object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    return f"{module_of(function)}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def within(function: Any, depth: int = DEPTH) -> list[Any]:
    """Return a function, and the functions that it was made of: those it wraps, has arguments of, or closes over."""
    found = [function]
    if depth:
        for one in _parts(function):
            if isinstance(one, FUNCTIONS):
                found += within(one, depth - 1)
    return found


def _parts(function: Any) -> Iterator[Any]:
    """Yield what a function holds beside its code; of an object that can be called what it holds."""
    if isinstance(function, functools.partial):
        yield from (function.func, *function.args, *function.keywords.values())
    elif isinstance(function, MethodType | classmethod | staticmethod):
        yield function.__func__
    elif isinstance(function, property):
        yield from (function.fget, function.fset)
    elif isinstance(function, LRU):
        yield function.__wrapped__
    elif isinstance(function, FunctionType):
        if "__wrapped__" in vars(function):
            yield function.__wrapped__  # type: ignore[attr-defined]
        yield from function.__defaults__ or ()
        yield from (function.__kwdefaults__ or {}).values()
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # it is not filled yet
                yield cell.cell_contents
    elif is_own(function):
        yield vars(type(function)).get("__call__")
        yield from getattr(function, "__dict__", {}).values()


def is_own(function: Any) -> bool:
    """Whether a function is no upstream package's: `functools.wraps` gives it the name of one that is."""
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType) and is_users(code.co_filename):
        return True
    if isinstance(code, CodeType) and code.co_filename.startswith("<") and not module_of(function):
        return True  # a suite gave it to `exec` with a namespace of its own
    return (module_of(function) or UPSTREAM[0]).partition(".")[0] not in UPSTREAM


def holds_own(function: Any) -> bool:
    """Whether a function, or one within it, is no upstream package's."""
    return any(map(is_own, within(function)))


def _held(function: Any) -> list[str]:
    if not (is_own(function) or isinstance(function, functools.partial)):
        return []
    name = getattr(function, "__qualname__", type(function).__name__)
    code = getattr(function, "__code__", None)
    made = [f"{name} {_of_code(code)}"] if isinstance(code, CodeType) and _file_of(function) is None else []
    return made + [f"{name} {text}" for one in _parts(function) if (text := code_values.plain(one))]


def _of_code(code: CodeType) -> str:
    """Return a text of code that no file has, such as what a suite gave to `exec`, without where its lines stand."""
    constants = [_of_code(one) if isinstance(one, CodeType) else code_values.plain(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _file_of(function: Any) -> Path | None:
    """Return the file in which a function was compiled: its module may be in no list of modules."""
    code = getattr(function, "__code__", None) if isinstance(function, FUNCTIONS) else None
    file = Path(code.co_filename) if isinstance(code, CodeType) else None
    return file if file is not None and file.is_file() else None


def _file_of_module(name: str) -> Path | None:
    file = getattr(sys.modules.get(name), "__file__", None)
    return None if file is None or not Path(file).is_file() else Path(file)


def _closure(files: set[Path], packages: set[str]) -> set[Path]:
    """Return files with all that they import, of the user's own or of some packages, and of operators they name."""
    modules = {file: module for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    found: set[Path] = set()
    asked = list(files)
    while asked:
        file = asked.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        if (imports := _imports(file)) is not None:
            asked += imports.files(packages)
        asked += operator_files.called_in(_parsed(file))
        module = modules.get(str(file))
        asked += [Path(one) for one in _of_values(module) if not one.startswith(INSTALLED)] if module else []
    return found


def _of_values(module: ModuleType) -> Iterator[str]:
    """Yield the files of the modules that a module has at its top, or has a function or class of."""
    for one in list(vars(module).values()):
        name = one.__name__ if isinstance(one, ModuleType) else str(getattr(one, "__module__", ""))
        if (file := getattr(sys.modules.get(name), "__file__", None)) is not None:
            yield file


def _parsed(file: Path) -> ast.Module | None:
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


def _imports(file: Path) -> Imports | None:
    tree = _parsed(file)
    return None if tree is None else Imports(file, tree)


def _told(file: Path) -> bytes:
    """Return what a file says: its code without comments, and values of its module that the code does not show."""
    tree = _parsed(file)
    if tree is None:
        return file.read_bytes()
    known = next((one for one in list(sys.modules.values()) if getattr(one, "__file__", None) == str(file)), None)
    return ast.dump(tree).encode() + "\n".join(code_values.told(tree, known, file.parent)).encode()


def _versions(file: Path) -> Iterator[str]:
    """Yield the versions of what a file imports that is installed."""
    imports = _imports(file)
    for top in () if imports is None else imports.installed():
        for name in () if top in UPSTREAM or top in sys.stdlib_module_names else _distributions().get(top, ()):
            yield f"{name} {metadata.version(name)}"


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()
