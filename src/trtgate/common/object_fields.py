"""The fields of an object of any class: those that it declares, its slots, and its `__dict__`."""

from __future__ import annotations

import dataclasses
from types import MemberDescriptorType
from typing import Any

import msgspec

HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE of `__flags__`: a class that a class statement made, or one of an extension that made it so."""
NO_DATA = ("builtins", "types", "_weakref", "weakref", "threading", "_thread", "torch._C")
"""Modules whose objects' fields do not say what they hold."""


def fields_of(value: Any) -> list[tuple[str, Any]]:
    """Return name and value of what an object holds in its fields."""
    declared: tuple[str, ...] = ()
    if dataclasses.is_dataclass(value):
        declared = tuple(field.name for field in dataclasses.fields(value))
    elif isinstance(value, msgspec.Struct):
        declared = value.__struct_fields__
    own = sorted(name for name in getattr(value, "__dict__", ()) if isinstance(name, str))
    names = dict.fromkeys((*declared, *slots_of(type(value)), *own))
    return [(name, getattr(value, name)) for name in names if hasattr(value, name)]


def declares_fields(value: Any) -> bool:
    """Whether it is a dataclass or a msgspec Struct."""
    return dataclasses.is_dataclass(value) or isinstance(value, msgspec.Struct)


def slots_of(own_class: type) -> dict[str, MemberDescriptorType]:
    """Return the slots that a class and its bases declare, by name; those with two underscores are left out."""
    return {
        name: member
        for base in reversed(own_class.__mro__)
        if "__slots__" in vars(base)
        for name, member in vars(base).items()
        if isinstance(member, MemberDescriptorType) and not name.startswith("__")
    }


def holds_only_fields(value: Any) -> bool:
    """Whether an object is of classes that are written in Python: it holds nothing but fields."""
    bases = (base for base in type(value).__mro__[:-1] if base.__module__ != "msgspec._core")
    return all(base.__flags__ & HEAP_TYPE for base in bases)


def is_data(value: Any) -> bool:
    """Whether an object is one of data, whose fields say what it holds: no function, iterator, set or the like."""
    described = not (callable(value) or type(value).__module__ in NO_DATA)
    return holds_only_fields(value) and (described or declares_fields(value))
