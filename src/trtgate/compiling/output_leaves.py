"""An output taken apart: its containers, and the tensors and values in them, each with its path."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterator, Mapping
from types import MemberDescriptorType
from typing import Any

import msgspec
import torch
from torch.utils import _pytree as pytree

from ..common.errors import TrtgateError, one_line

ROOT = "output"
DEEPEST = 200
"""Containers in containers; beyond, an output makes its children anew whenever it is asked."""

NUMBERS = (bool, int, float, complex)
SYMBOLIC = {torch.SymBool: bool, torch.SymInt: int, torch.SymFloat: float}
PLAIN = (str, bytes, type, enum.Enum, torch.dtype, torch.device, torch.layout, torch.memory_format, range, slice)
"""Values that are compared by equality."""
SAME_AS = {"immutable_list": "list", "immutable_dict": "dict"}
"""What torch.fx puts in a graph for a list and a dict."""


class Leaf(msgspec.Struct, frozen=True):
    """A tensor or another value of an output. `path` is as `output["scores"]`; `name` the last name in it, or empty."""

    path: str
    name: str
    value: Any


class Container(msgspec.Struct, frozen=True):
    """A container of an output. `keys` are in its order, as paths show them; `ordered`: whether that order counts."""

    path: str
    kind: str
    keys: tuple[str, ...]
    ordered: bool


class Cycle(msgspec.Struct, frozen=True):
    """Stands for a container that is inside itself."""

    path: str


ANY = object()
"""Stands for a value that could not be kept: nothing is compared with it."""

Children = list[tuple[str, str, Any]]
"""Of each child: its part of the path, its name (empty for a number), and itself."""


def leaves(output: Any) -> list[tuple[str, Any]]:
    """Return path and value of every tensor, number, text and None of an output, in order.

    Takes apart tuples, lists, mappings, namedtuples, dataclasses, registered pytree classes, nested tensors, and
    objects by their fields. Raises TrtgateError, naming path and class, for what can't be taken apart.
    """
    return [(node.path, node.value) for node in walk(output) if isinstance(node, Leaf)]


def walk(output: Any, root: str = ROOT) -> list[Leaf | Container]:
    """Return the containers and leaves of an output, each container before what it holds. Raises as `leaves`.

    Paths begin with `root`.
    """
    with torch._C.DisableTorchFunctionSubclass():
        return list(_walked(output, root, "", ()))


def copied(output: Any, root: str = ROOT) -> list[Leaf | Container]:
    """Return `walk`'s nodes with tensors of their own: an output may be a buffer that the next call changes."""
    return [
        msgspec.structs.replace(node, value=node.value.detach().clone())
        if isinstance(node, Leaf) and isinstance(node.value, torch.Tensor)
        else node
        for node in walk(output, root)
    ]


def _walked(value: Any, path: str, name: str, above: tuple[tuple[int, str], ...]) -> Iterator[Leaf | Container]:
    if _is_leaf(value):
        yield Leaf(path, name, _number(value, path))
        return
    within = next((other for identity, other in above if identity == id(value)), None)
    if within is not None:
        yield Leaf(path, name, Cycle(within))
        return
    if len(above) > DEEPEST:
        raise TrtgateError(f"{_short(path)}: containers are nested more than {DEEPEST} deep")
    kind, children = _taken_apart(value, path)
    yield Container(path, kind, tuple(part for part, _, _ in children), isinstance(value, Mapping))
    for part, own_name, child in children:
        yield from _walked(child, path + part, own_name or name, (*above, (id(value), path)))


def _is_leaf(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not value.is_nested
    return value is None or isinstance(value, (*NUMBERS, *PLAIN, *SYMBOLIC))


def _number(value: Any, path: str) -> Any:
    """Return what a symbolic number stands for, anything else as it is."""
    for symbolic, plain in SYMBOLIC.items():
        if isinstance(value, symbolic):
            try:
                return plain(value)
            except Exception as error:
                raise TrtgateError(f"{path}: a {symbolic.__name__} without a value: {one_line(error)}") from error
    return value


def _taken_apart(value: Any, path: str) -> tuple[str, Children]:
    """Return what kind of container a value is, and its children. Raises TrtgateError for what is none."""
    kind = type(value).__qualname__
    kind = SAME_AS.get(kind, kind)
    if isinstance(value, torch.Tensor):
        return "nested tensor", _numbered(value.unbind())
    if isinstance(value, tuple):
        names = getattr(value, "_fields", None) or getattr(value, "__match_args__", None)  # of torch.return_types
        if names and len(names) == len(value):
            return kind, [(f".{name}", name, child) for name, child in zip(names, value, strict=True)]
        return kind, _numbered(value)
    if isinstance(value, list):
        return kind, _numbered(value)
    if isinstance(value, Mapping):
        return kind, _items(value)
    if type(value) in pytree.SUPPORTED_NODES:
        children, context = _registered(value)
        return f"{kind}{context}", children
    if _has_fields(value):
        return kind, [(f".{name}", name, child) for name, child in _fields(value)]
    raise TrtgateError(
        f"{path}: a {kind} can't be taken apart; return tensors, numbers, texts, or containers and dataclasses of them"
    )


def _numbered(values: Any) -> Children:
    return [(f"[{number}]", "", child) for number, child in enumerate(values)]


def _items(mapping: Mapping[Any, Any]) -> Children:
    """Return the items of a mapping; those of one that is a dataclass too, as Hugging Face's outputs, as fields."""
    fields = dataclasses.is_dataclass(mapping)
    return [
        (f".{key}", key, child) if fields and isinstance(key, str) else (*_key(key, number), child)
        for number, (key, child) in enumerate(mapping.items())
    ]


def _key(key: Any, number: int) -> tuple[str, str]:
    """Return a key's part of the path and its name; of one whose repr may be its address, its class and position."""
    if isinstance(key, str):
        return f"[{json.dumps(key, ensure_ascii=False)}]", key
    told = key is None or isinstance(key, (*NUMBERS, *PLAIN, tuple, frozenset))
    text = repr(key) if told else f"<{type(key).__qualname__} {number}>"
    return f"[{_short(text)}]", ""


def _registered(value: Any) -> tuple[Children, str]:
    """Return the children of a registered pytree class, and what else its `flatten` says of it, where that is plain."""
    definition = pytree.SUPPORTED_NODES[type(value)]
    if definition.flatten_with_keys_fn is None:
        children, context = definition.flatten_fn(value)
        found = _numbered(children)
    else:
        keyed, context = definition.flatten_with_keys_fn(value)
        found = [(*_pytree_key(key, number), child) for number, (key, child) in enumerate(keyed)]
    plain = _plain(context)
    return found, f"({_short(repr(context))})" if plain and context else ""


def _pytree_key(key: Any, number: int) -> tuple[str, str]:
    if isinstance(key, pytree.GetAttrKey):
        return f".{key.name}", key.name
    if isinstance(key, pytree.MappingKey):
        return _key(key.key, number)
    return f"[{number}]", ""


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return _plain(list(value.items()))
    if isinstance(value, (list, tuple)):
        return all(_plain(one) for one in value)
    return value is None or isinstance(value, (*NUMBERS, *PLAIN))


def _has_fields(value: Any) -> bool:
    """Whether an object is one of data: no function, module, iterator or the like, whose fields say nothing."""
    if callable(value) and not dataclasses.is_dataclass(value):
        return False
    own_class = type(value)
    if own_class.__module__ in ("builtins", "types", "_weakref", "weakref", "threading", "_thread", "torch._C"):
        return False
    declared = dataclasses.is_dataclass(value) or isinstance(value, msgspec.Struct)
    return declared or bool(_fields(value))  # one without fields keeps what it is elsewhere


def _fields(value: Any) -> list[tuple[str, Any]]:
    """Return name and value of the fields that an object has: those that it declares, else what it holds."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    elif isinstance(value, msgspec.Struct):
        names = list(value.__struct_fields__)
    else:
        names = list(dict.fromkeys([*_slots(type(value)), *sorted(getattr(value, "__dict__", ()))]))
    return [(name, getattr(value, name)) for name in names if hasattr(value, name)]


def _slots(own_class: type) -> list[str]:
    """Return the names of an object's slots; those that Python or a library keeps for itself are left out."""
    members = [
        name
        for base in own_class.__mro__
        for name, member in vars(base).items()
        if isinstance(member, MemberDescriptorType)
    ]
    return [name for name in members if not name.startswith("__")]


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]}…{text[-19:]}"
