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

from ..common import library_files
from . import code_values, operator_files, written_elsewhere
from .imported_files import INSTALLED, UPSTREAM, Imports, file_of, is_users, is_users_module, modules_by_file, parsed

LRU = type(functools.lru_cache(len))
FUNCTIONS = (FunctionType, MethodType, functools.partial, classmethod, staticmethod, property, LRU)


def digest(functions: Iterable[Any], files: Iterable[Path] = ()) -> str:
    """Return a SHA-256 of the files that define functions, of those that these import, and of further files.

    Of what is installed it is the version, unless it is of the same package as a function; of what comes from no index
    its files too. Comments, where a line stands and where a file lies are not in it. Raises TrtgateError as
    `operator_files.of`, and Unlisted as `library_files.of_no_index`.
    """
    functions = list(functions)
    given = [one for function in functions for one in within(function) if is_own(one)]
    names = {name for name in map(module_of, given) if name.partition(".")[0] not in UPSTREAM}
    found = {*filter(None, map(_file_of, given)), *filter(None, map(file_of, names)), *files}
    modules, writers = modules_by_file(), written_elsewhere.writers()
    closed = _closure(found, {name.partition(".")[0] for name in names} - {""}, modules)
    code = {hashlib.sha256(_told(file, modules.get(str(file)), writers)).digest() for file in closed}
    texts = sorted(set(filter(None, map(held, functions))))
    versions = sorted({text for file in closed for text in _versions(file)})
    return hashlib.sha256(
        b"".join(sorted(code)) + repr([texts, versions] if texts or versions else "").encode()
    ).hexdigest()


def module_of(function: Any) -> str:
    """Return the name of the module that defines a function; empty where it does not say."""
    return str(getattr(function, "__module__", None) or "")


def name_of(function: Any) -> str:
    """Return the name of a function or class, of a partial one's function, or of an object's class."""
    while isinstance(function, functools.partial):
        function = function.func
    return f"{module_of(function)}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def within(function: Any) -> list[Any]:
    """Return a function, and what it was made of: functions and objects of the user's own.

    Those that it wraps, is a method of, has as arguments or closes over, and what these are made of.
    """
    found = [function]
    seen = {id(function)}
    for one in found:  # it grows
        for part in _parts(one):
            if id(part) not in seen and (isinstance(part, FUNCTIONS) or is_of_users_class(part)):
                seen.add(id(part))
                found.append(part)
    return found


def _parts(function: Any) -> Iterator[Any]:
    """Yield what a function holds beside its code, in order; of an object of the user's own what it holds, with names.

    Of a function that no file has it yields what it calls and reads of its module too.
    """
    if isinstance(function, functools.partial):
        yield from (function.func, *function.args)
        yield from _items(function.keywords)
    elif isinstance(function, MethodType):
        yield from (function.__func__, function.__self__)
    elif isinstance(function, classmethod | staticmethod):
        yield function.__func__
    elif isinstance(function, property):
        yield from (function.fget, function.fset)
    elif isinstance(function, LRU):
        yield function.__wrapped__
    elif isinstance(function, FunctionType):
        yield from _parts_of_function(function)
    elif not isinstance(function, type) and is_own(function):
        yield vars(type(function)).get("__call__")
        kept = code_values.kept_by(type(function))
        yield from _items({name: one for name, one in getattr(function, "__dict__", {}).items() if name not in kept})


def _parts_of_function(function: FunctionType) -> Iterator[Any]:
    if "__wrapped__" in vars(function):
        yield function.__wrapped__  # type: ignore[attr-defined]
    yield from function.__defaults__ or ()
    yield from _items(function.__kwdefaults__ or {})
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # it is not filled yet
            yield cell.cell_contents
    if is_own(function) and _file_of(function) is None:
        known = function.__globals__
        yield from _items({name: known[name] for name in _names_in(function.__code__) if name in known})


def _items(named: Mapping[str, Any]) -> Iterator[Any]:
    for name, value in sorted(named.items()):
        yield from (name, value)


def _names_in(code: CodeType) -> set[str]:
    """Return the names that code reads, also in functions within it."""
    return set(code.co_names).union(*(_names_in(one) for one in code.co_consts if isinstance(one, CodeType)))


def is_of_users_class(value: Any) -> bool:
    """Whether something is a class of the user's own, or an object of one."""
    return is_users_module((value if issubclass(type(value), type) else type(value)).__module__)


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


def held(function: Any) -> str:
    """Return what a function, and what it was made of, hold that no file shows; empty for nothing."""
    return "\n".join(text for one in within(function) for text in _held(one))


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


def _closure(files: set[Path], packages: set[str], modules: Mapping[str, ModuleType]) -> set[Path]:
    """Return files with all that they import, of the user's own or of some packages, and of operators they name."""
    found: set[Path] = set()
    asked = list(files)
    while asked:
        file = asked.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        if (imports := _imports(file)) is not None:
            asked += imports.files(packages)
        asked += operator_files.called_in(parsed(file))
        module = modules.get(str(file))
        asked += [Path(one) for one in _of_values(module) if not one.startswith(INSTALLED)] if module else []
    return found


def _of_values(module: ModuleType) -> Iterator[str]:
    """Yield the files of the modules that a module has at its top, or has a function or class of.

    It may have them in a container, as arguments in advance, or as methods.
    """
    asked = list(vars(module).values())
    asked += [part for one in asked for part in code_values.parts(one)]
    for one in asked:
        name = one.__name__ if isinstance(one, ModuleType) else str(getattr(one, "__module__", ""))
        if (file := file_of(name)) is not None:
            yield str(file)


def _imports(file: Path) -> Imports | None:
    tree = parsed(file)
    return None if tree is None else Imports(file, tree)


def _told(file: Path, known: ModuleType | None, writers: written_elsewhere.Writers) -> bytes:
    """Return what a file says: its code without comments, and values of its module that the code does not show."""
    tree = parsed(file)
    if tree is None:
        return file.read_bytes()
    written = written_elsewhere.into(file, writers)
    filled = {word for one in written for word in one.words}
    texts = [*code_values.told(tree, known, file.parent, filled), *(one.text for one in written)]
    return ast.dump(tree).encode() + "\n".join(texts).encode()


def _versions(file: Path) -> Iterator[str]:
    """Yield the versions of what a file imports that is installed, and the files of what comes from no index."""
    imports = _imports(file)
    for top in () if imports is None else imports.installed():
        for name in () if top in UPSTREAM or top in sys.stdlib_module_names else _distributions().get(top, ()):
            yield f"{name} {metadata.version(name)} {library_files.of_no_index(name)}".rstrip()


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()
