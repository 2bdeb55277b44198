"""What files write into the module of another one, such as entries of its registry.

The other file does not show it, and what its module holds then may be nothing that has a text.
"""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeGuard

from . import code_values
from .imported_files import Imports, parsed, users_modules

BY_NAME = ("setattr", "delattr", "vars")
"""Functions whose first argument is what is written into."""
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Written(NamedTuple):
    """A statement that writes into what its file imports."""

    text: str
    """The statement, and the values that it gives there, as far as they are plain."""
    words: frozenset[str]
    """The names that it has, if it runs when its file is imported."""


class _Statement(NamedTuple):
    """A statement that may write into something."""

    text: str
    roots: set[str]
    """The names of what it writes into."""
    read: list[ast.expr]
    """The names that it has, with dots or not."""
    at_import: bool


Writers = Mapping[str, list[tuple[str, ModuleType, _Statement]]]
"""File → the statements that write into what they import of it, each with its own file and module."""


def writers() -> Writers:
    """Return the statements of all files of the user's own that write into what they import of another one.

    They assign to an attribute or an entry of it, call a function of it, or decorate with one.
    """
    found: dict[str, list[tuple[str, ModuleType, _Statement]]] = {}
    for file, module in users_modules().items():
        for imported, statements in _writing(Path(file), os.stat(file).st_mtime_ns).items():
            found.setdefault(imported, []).extend((file, module, one) for one in statements)
    return found


def into(file: Path, known: Writers) -> list[Written]:
    """Return the statements among those known that write into a file from another one.

    It may be imported from the package that the file lies in. They are sorted: which file is imported first decides
    nothing.
    """
    doors = (str(file), *(str(folder / "__init__.py") for folder in file.parents))
    statements = [one for door in doors for one in known.get(door, ())]
    words: dict[str, frozenset[str]] = {}  # of each text: one file may run at import what others have in functions
    for other, module, one in statements:
        if other != str(file):
            written = _with_values(one, module)
            words[written.text] = words.get(written.text, frozenset()) | written.words
    return [Written(text, of_text) for text, of_text in sorted(words.items())]


def _with_values(statement: _Statement, module: ModuleType) -> Written:
    values = {ast.unparse(one): code_values.plain(_value(one, module)) for one in statement.read}
    words = {word for name in values for word in name.split(".")}
    other = {name: text for name, text in values.items() if text and name.partition(".")[0] not in statement.roots}
    given = [f"{name}={text}" for name, text in sorted(other.items())]
    return Written(" ".join([statement.text, *given]), frozenset(words if statement.at_import else ()))


def _value(name: ast.expr, module: ModuleType) -> Any:
    """Return what a module, or one that it has imported, holds under a name; None for nothing."""
    if isinstance(name, ast.Name):
        return vars(module).get(name.id)
    holder = _value(name.value, module) if isinstance(name, ast.Attribute) else None
    return vars(holder).get(name.attr) if isinstance(name, ast.Attribute) and isinstance(holder, ModuleType) else None


@functools.lru_cache(maxsize=4096)
def _writing(file: Path, _mtime_ns: int) -> Mapping[str, list[_Statement]]:
    """Return the files that a file imports, each with the statements that write into it."""
    tree = parsed(file)
    if tree is None:
        return {}
    holders = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, *DEFINITIONS))]
    written = [
        _Statement(ast.dump(one), roots, _read(one), at_import=holder is tree)
        for holder in holders for one in holder.body if (roots := set(_roots(one)))
    ]  # fmt: skip
    bound = _bound(file, tree, {root for one in written for root in one.roots})
    return {imported: [one for one in written if one.roots & names] for imported, names in bound.items()}


def _read(statement: ast.stmt) -> list[ast.expr]:
    return [node for node in ast.walk(statement) if isinstance(node, ast.Name) or _is_dotted(node)]


def _is_dotted(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and (isinstance(node.value, ast.Name) or _is_dotted(node.value))


def _bound(file: Path, tree: ast.Module, wanted: set[str]) -> dict[str, set[str]]:
    """Return the files that a file imports, each with those names that it has for them or for something of them."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            name = alias.asname or alias.name.partition(".")[0]
            if name in wanted:
                alone = type(node)(**{**dict(ast.iter_fields(node)), "names": [alias]})
                for imported in Imports(file, alone).files(set()):
                    found.setdefault(str(imported), set()).add(name)
    return found


def _roots(statement: ast.AST) -> Iterator[str]:
    """Yield the names that a statement, or one in its branches and loops, begins with where it may write something."""
    if isinstance(statement, DEFINITIONS):
        yield from filter(None, map(_root, statement.decorator_list))
        return
    if isinstance(statement, ast.Assign | ast.Delete):
        targets = [one for target in statement.targets for one in getattr(target, "elts", [target])]
        yield from (_root(one) for one in targets if not isinstance(one, ast.Name))
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
        yield _root(statement.target)
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        yield _root(statement.value)
    for one in ast.iter_child_nodes(statement):
        if isinstance(one, ast.stmt | ast.excepthandler):
            yield from _roots(one)


def _root(expression: ast.expr) -> str:
    """Return the name that an expression begins with, or that of what a function is told to write into."""
    while not isinstance(expression, ast.Name):
        if isinstance(expression, ast.Call):
            first = expression.args[:1] if getattr(expression.func, "id", "") in BY_NAME else []
            expression = (first or [expression.func])[0]
        elif isinstance(expression, ast.Attribute | ast.Subscript | ast.Starred):
            expression = expression.value
        else:
            return ""
    return expression.id
