"""What functions hold beside their code: closed-over names, defaults, attributes, and what they are bound to."""

from __future__ import annotations

import types
from functools import partial
from typing import Any

CODE = (types.FunctionType, types.MethodType, partial)
"""Kinds of functions that are looked into."""
WRAPPED = ("__wrapped__", "_torchdynamo_orig_callable")
"""Attributes in which a function of a library, such as what `torch.no_grad` made, has the user's."""


def of(function: Any, libraries: frozenset[str] | set[str]) -> dict[str, Any]:
    """Return by name what a function holds; of one of `libraries` the user's function alone that it wraps."""
    if isinstance(function, types.MethodType):
        return {"__func__": function.__func__, "__self__": function.__self__}
    if isinstance(function, partial):
        return {"func": function.func, "args": function.args, "keywords": function.keywords}
    attributes = vars(function)
    if str(function.__globals__.get("__name__")).partition(".")[0] in libraries:
        return {name: attributes[name] for name in WRAPPED if name in attributes}
    own = {"__code__": function.__code__, "__dict__": attributes}
    own |= {name: getattr(function, name) for name in ("__defaults__", "__kwdefaults__") if getattr(function, name)}
    return own | {name: cell.cell_contents for name, cell in _cells(function).items() if _is_filled(cell)}


def put_back(function: Any, fields: dict[str, Any]) -> None:
    """Let the names that a function closes over stand for what they stood for when `fields` was asked with `of`."""
    if not isinstance(function, types.FunctionType) or "__code__" not in fields:
        return
    for name, cell in _cells(function).items():
        if name not in fields:
            if _is_filled(cell):
                del cell.cell_contents
        elif not _is_filled(cell) or cell.cell_contents is not fields[name]:
            cell.cell_contents = fields[name]


def _cells(function: types.FunctionType) -> dict[str, types.CellType]:
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # nothing is in it yet
        return False
    return True
