"""What files write into the module of another one, such as entries of its registry.

The other file does not show it, and what its module holds then may be nothing that has a text.
"""

from __future__ import annotations

import ast
import functools
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .imported_files import Imports, is_users, parsed

BY_NAME = ("setattr", "delattr", "vars")
"""Functions whose first argument is what is written into."""
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def into(file: Path) -> list[str]:
    """Return the statements of other files of the user's own that write into what they import of a file.

    They assign to an attribute or an entry of it, call a function of it, or decorate with one. It may be imported from
    the package that the file lies in. They are sorted: which file is imported first decides nothing.
    """
    names = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    others = {name for name in names if isinstance(name, str) and name.startswith(os.sep) and is_users(name)}
    doors = {str(file), *(str(folder / "__init__.py") for folder in file.parents)}
    found: set[str] = set()
    for other in map(Path, others - {str(file)}):
        if other.is_file():
            by_file = _writing(other, other.stat().st_mtime_ns)
            found.update(text for door in doors & by_file.keys() for text in by_file[door])
    return sorted(found)


@functools.lru_cache(maxsize=4096)
def _writing(file: Path, _mtime_ns: int) -> Mapping[str, list[str]]:
    """Return the files that a file imports, each with the statements that write into it."""
    tree = parsed(file)
    if tree is None:
        return {}
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, (ast.Module, *DEFINITIONS))]
    written = [(one, roots) for body in bodies for one in body if (roots := set(_roots(one)))]
    bound = _bound(file, tree, {root for _, roots in written for root in roots})
    return {
        imported: [ast.dump(one) for one, roots in written if roots & names] for imported, names in bound.items()
    }  # fmt: skip


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
