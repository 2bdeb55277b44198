"""Classes as nodes of pytrees: dataclasses and mappings that nobody registered are, when they are first met.

`torch.export` takes registered classes only, and stores a program by their names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
from collections import namedtuple
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..common.errors import TrtgateError, one_line

OF_ALL = ("builtins", "collections", "torch", "trtgate")
"""Packages whose classes every process knows."""
KNOWN = ("trtgate.suite.model_inputs", "trtgate.suite.pytree_classes", "torch.utils._pytree")
"""Modules that register classes and are there in every process."""

_ours: set[type] = set()


def is_ours(cls: type) -> bool:
    """Whether a class is registered since it was met here, and not by who made it."""
    return cls in _ours


def register_all(value: Any, leaves: tuple[type, ...], subject: str = "an input is") -> None:
    """Register the classes of all nodes of a value, so that pytree takes it apart; `leaves` are no nodes.

    `subject` begins what is raised.

    Raises TrtgateError for a class that can't be made anew of its parts, RecursionError for what is inside itself.
    """
    if isinstance(value, torch.Tensor) or type(value) in leaves:
        return
    cls = type(value)
    if cls not in pytree.SUPPORTED_NODES and is_node(value):
        _check(value, subject)
        register(cls)
    if cls in pytree.SUPPORTED_NODES:
        for child in pytree.SUPPORTED_NODES[cls].flatten_fn(value)[0]:
            register_all(child, leaves, subject)


def is_node(value: Any) -> bool:
    """Whether a value of a class that is not registered can be one: a dataclass, a namedtuple or a mapping."""
    return dataclasses.is_dataclass(value) or pytree.is_namedtuple(value) or isinstance(value, Mapping)


def register(cls: Any) -> None:
    """Register a dataclass, a namedtuple or a mapping with pytree, under its module and name."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    if issubclass(cls, Mapping):
        pytree.register_pytree_node(
            cls, _of_mapping, lambda values, keys: cls(dict(zip(keys, values, strict=True))), serialized_type_name=name,
            flatten_with_keys_fn=_of_mapping_with_keys,
        )  # fmt: skip
    elif pytree.is_namedtuple(cls):
        pytree._register_namedtuple(cls, serialized_type_name=name)
    else:
        pytree.register_dataclass(cls, serialized_type_name=name)
    _ours.add(cls)


def _of_mapping(value: Mapping[Any, Any]) -> tuple[list[Any], list[Any]]:
    return list(value.values()), list(value)


def _of_mapping_with_keys(value: Mapping[Any, Any]) -> tuple[list[tuple[Any, Any]], list[Any]]:
    return [(pytree.MappingKey(key), one) for key, one in value.items()], list(value)


def _check(value: Any, subject: str) -> None:
    """Raise TrtgateError where a node's class makes another value of its parts, or none."""
    cls = type(value)
    if issubclass(cls, tuple):
        return
    try:
        parts, again = _parts(value), _parts(_made_of(cls, _parts(value)))
        alike = list(parts) == list(again) and all(again[name] is one for name, one in parts.items())
        problem = "" if alike else "it changes them"
    except Exception as error:
        problem = one_line(error)
    if problem:
        raise TrtgateError(
            f"{subject} a {cls.__module__}.{cls.__qualname__}, which can't be made anew of its parts ({problem}): "
            "register it with torch.utils._pytree.register_pytree_node"
        )


def _parts(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}


def _made_of(cls: Any, parts: dict[Any, Any]) -> Any:
    return cls(parts) if issubclass(cls, Mapping) else cls(**parts)


def of_structure(structure: pytree.TreeSpec) -> Iterator[type]:
    """Yield the classes of a structure's nodes, those of Python and torch left out."""
    if structure.is_leaf():
        return
    cls = structure.context if structure.type is namedtuple else structure.type
    if cls is not None and cls.__module__.partition(".")[0] not in OF_ALL:
        yield cls
    for child in structure.children() if hasattr(structure, "children") else structure.children_specs:
        yield from of_structure(child)


Described = list[dict[str, Any]]
"""Classes as plain data."""


def described(*structures: pytree.TreeSpec) -> Described:
    """Return what `make_known` needs, in a process that knows nothing, to know the classes of structures.

    Raises TrtgateError for a class that no other process can find.
    """
    found: dict[type, dict[str, Any]] = {}
    for structure in structures:
        for cls in of_structure(structure):
            if _found(cls.__module__, cls.__qualname__) is not cls:
                raise TrtgateError(
                    f"{cls.__module__}.{cls.__qualname__}, a class of its inputs or output, is not at the top of a "
                    "module, where another process could find it"
                )
            found[cls] = {"name": cls.__qualname__, "ours": cls in _ours, "modules": _modules_of(cls)}
    return list(found.values())


def _modules_of(cls: type) -> list[str]:
    """Return the modules to import: the class's own first, then those that may register it."""
    node = pytree.SUPPORTED_NODES.get(cls)
    functions = () if node is None else (node.flatten_fn, node.unflatten_fn)
    names = [cls.__module__, cls.__module__.partition(".")[0], *(one.__module__ for one in functions)]
    return [name for name in dict.fromkeys(names) if name not in KNOWN]


def make_known(classes: Described) -> None:
    """Import what registers classes with pytree, and register those that nobody does.

    Raises TrtgateError for a class that is not there, or not registered by what was imported.
    """
    for one in classes:
        own, *others = one["modules"]
        where = f"{own}.{one['name']}"
        try:
            importlib.import_module(own)
        except ImportError as error:
            raise TrtgateError(
                f"{where}, a class of its inputs or output, can't be imported: {one_line(error)}"
            ) from error
        cls = _found(own, one["name"])
        if not isinstance(cls, type):
            raise TrtgateError(f"{own} has no class {one['name']}, which is one of its inputs or output")
        for name in others:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        if cls in pytree.SUPPORTED_NODES:
            continue
        if not one["ours"]:
            raise TrtgateError(
                f"{where}, a class of its inputs or output, is registered with pytree by no module that was imported "
                f"({', '.join(one['modules'])}): register it where it is defined"
            )
        register(cls)


def _found(module: str, name: str) -> Any:
    """Return what a module that was imported has under a dotted name; None where it has nothing."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
