"""An output taken apart: its containers, and the tensors and values in them, each with its path."""

from __future__ import annotations

import dataclasses
import enum
import json
import operator
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..common.errors import TrtgateError, one_line
from ..common.object_fields import declares_fields, fields_of, is_data
from ..suite import pytree_classes

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

    Takes apart tuples, lists, mappings, namedtuples, dataclasses, registered pytree classes, nested tensors, wrapper
    subclasses of tensors, and objects by their fields. Raises TrtgateError, naming path and class, for what can't be
    taken apart.
    """
    return [(node.path, node.value) for node in walk(output) if isinstance(node, Leaf)]


def walk(output: Any, root: str = ROOT) -> list[Leaf | Container]:
    """Return the containers and leaves of an output, each container before what it holds. Raises as `leaves`.

    Paths begin with `root`.
    """
    with torch._C.DisableTorchFunctionSubclass():
        return list(_walked(output, root, "", ()))


def copied(output: Any, root: str = ROOT, but: Collection[int] = ()) -> list[Leaf | Container]:
    """Return `walk`'s nodes with tensors of their own: an output may be a buffer that the next call changes.

    ANY stands for each tensor whose `id` is in `but`.
    """
    return [
        msgspec.structs.replace(node, value=ANY if id(node.value) in but else node.value.detach().clone())
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
        raise TrtgateError(f"{shown(path)}: containers are nested more than {DEEPEST} deep")
    kind, children = _taken_apart(value, path)
    children = _told_apart(children)
    yield Container(path, kind, tuple(part for part, _, _ in children), isinstance(value, Mapping))
    for part, own_name, child in children:
        yield from _walked(child, path + part, own_name or name, (*above, (id(value), path)))


def _is_leaf(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return not (value.is_nested or is_traceable_wrapper_subclass(value))
    return value is None or isinstance(value, (*NUMBERS, *PLAIN, *SYMBOLIC))


def _number(value: Any, path: str) -> Any:
    """Return what a symbolic number stands for, anything else as it is."""
    for symbolic, plain in SYMBOLIC.items():
        if isinstance(value, symbolic):
            try:
                return plain(value)
            except Exception as error:
                raise TrtgateError(
                    f"{shown(path)}: a {symbolic.__name__} without a value: {one_line(error)}"
                ) from error
    return value


def _taken_apart(value: Any, path: str) -> tuple[str, Children]:
    """Return what kind of container a value is, and its children. Raises TrtgateError for what is none."""
    kind = type(value).__qualname__
    kind = SAME_AS.get(kind, kind)
    if isinstance(value, torch.Tensor):
        return ("nested tensor", _numbered(value.unbind())) if value.is_nested else _wrapped(value, kind)
    if isinstance(value, (tuple, list, deque, Mapping)):
        items = _items(value) if isinstance(value, Mapping) else _in_order(value)
        return kind, [*items, *_beside(value, items)]
    if type(value) in pytree.SUPPORTED_NODES:
        children, context = _registered(value)
        return f"{kind}{context}", children
    fields = fields_of(value) if is_data(value) else []
    if fields or (is_data(value) and declares_fields(value)):  # one without fields keeps what it is elsewhere
        return kind, [(f".{name}", name, child) for name, child in fields]
    raise TrtgateError(
        f"{shown(path)}: a {kind} can't be taken apart; return tensors, numbers, texts, or containers and dataclasses "
        "of them"
    )


def _wrapped(value: Any, kind: str) -> tuple[str, Children]:
    """Return the tensors that a wrapper subclass holds: its operators may show only some of them."""
    names, context = value.__tensor_flatten__()
    kind = f"{kind} of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    told = f" ({context!r})" if _plain(context) and context else ""
    return kind + told, [(f".{name}", name, getattr(value, name)) for name in names]


def _numbered(values: Any) -> Children:
    return [(f"[{number}]", "", child) for number, child in enumerate(values)]


def _in_order(values: Any) -> Children:
    """Return the items of a tuple or list, under the names that a tuple may have for them."""
    names = isinstance(values, tuple) and (
        getattr(values, "_fields", None) or getattr(values, "__match_args__", None)  # of torch.return_types
    )
    if names and len(names) == len(values):
        return [(f".{name}", name, child) for name, child in zip(names, values, strict=True)]
    return _numbered(values)


def _items(mapping: Mapping[Any, Any]) -> Children:
    """Return the items of a mapping; those of one that is a dataclass too, as Hugging Face's outputs, as fields."""
    fields = dataclasses.is_dataclass(mapping)
    return [
        (f".{key}", key, child)
        if fields and isinstance(key, str) and getattr(mapping, key, ANY) is child
        else (*_key(key, number), child)
        for number, (key, child) in enumerate(mapping.items())
    ]


def _beside(container: Any, items: Children) -> Children:
    """Return the attributes that a container has beside its items.

    Left out are those that are the items again, and fields that are None in a mapping that has them as its items. A
    class that is registered with pytree says what belongs to it: of its attributes, the public ones that can be taken
    apart.
    """
    held = {name: child for _, name, child in items}
    registered, optional = type(container) in pytree.SUPPORTED_NODES, dataclasses.is_dataclass(container)
    return [
        (f".{name}", name, child)
        for name, child in fields_of(container)
        if held.get(name, ANY) is not child
        and not (child is None and optional and isinstance(container, Mapping))
        and not (isinstance(child, Mapping) and _is_again(child, items))
        and not (registered and (name.startswith("_") or not _can_be_taken_apart(child)))
    ]


def _is_again(mapping: Mapping[Any, Any], items: Children) -> bool:
    """Whether a mapping has the same items, as that in which a `UserDict` keeps them."""
    return len(mapping) == len(items) and all(map(operator.is_, mapping.values(), (child for _, _, child in items)))


def _can_be_taken_apart(value: Any) -> bool:
    try:
        return bool(list(_walked(value, ROOT, "", ())))
    except TrtgateError:
        return False


def _told_apart(children: Children) -> Children:
    """Return children whose parts of the path all differ: two keys may look alike, as NaN does."""
    seen: Counter[str] = Counter()
    found = []
    for part, name, child in children:
        seen[part] += 1
        found.append((part if seen[part] == 1 else f"{part}#{seen[part]}", name, child))
    return found


def _key(key: Any, number: int) -> tuple[str, str]:
    """Return a key's part of the path and its name; of one whose repr may be its address, its class and position."""
    if isinstance(key, str):
        return f"[{json.dumps(key, ensure_ascii=False)}]", key
    return f"[{_text(key) or f'<{type(key).__qualname__} {number}>'}]", ""


def _text(key: Any) -> str:
    """Return a key as it is written, alike in every process; empty where it can't be."""
    if isinstance(key, (tuple, frozenset)):
        texts = [_text(one) for one in key]
        if not all(texts):
            return ""
        if isinstance(key, frozenset):
            return f"frozenset({{{', '.join(sorted(texts))}}})"
        return f"({', '.join(texts)}{',' * (len(key) == 1)})"
    return repr(key) if key is None or isinstance(key, (*NUMBERS, *PLAIN)) else ""


def _registered(value: Any) -> tuple[Children, str]:
    """Return the children of a registered pytree class, and what else its `flatten` says of it, where that is plain."""
    definition = pytree.SUPPORTED_NODES[type(value)]
    if definition.flatten_with_keys_fn is None:
        children, context = definition.flatten_fn(value)
        found = _numbered(children)
    else:
        keyed, context = definition.flatten_with_keys_fn(value)
        found = [(*_pytree_key(key, number), child) for number, (key, child) in enumerate(keyed)]
    if dataclasses.is_dataclass(value) and context == [name for _, name, _ in found]:
        return [*found, *_left_out(value, context)], ""
    plain = _plain(context)
    return found, f"({context!r})" if plain and context else ""


def _left_out(value: Any, names: list[str]) -> Children:
    """Return the fields beside `names` of a dataclass that is registered as torch does it: without those that are None.

    Who registers a class may leave out others on purpose; trtgate does not.
    """
    ours = pytree_classes.is_ours(type(value))
    others = [field.name for field in dataclasses.fields(value) if field.name not in names]
    left = [(f".{name}", name, getattr(value, name, ANY)) for name in others]
    return [one for one in left if one[2] is None or (ours and one[2] is not ANY)]


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


def shown(text: str, most: int = 160) -> str:
    """Return a path as a sentence shows it: what is longer loses its middle."""
    return text if len(text) <= most else f"{text[: most * 3 // 4]}…{text[1 - most // 4 :]}"
