"""What values hold at one time: tensors, containers, generators, objects, functions; put back later."""

from __future__ import annotations

import argparse
import copy
import enum
import operator
import random
import sys
import threading
import types
from collections import OrderedDict, UserDict, UserList, deque
from typing import Any, NamedTuple

import numpy as np
import torch

from ..common.object_fields import holds_only_fields, slots_of
from . import function_fields
from .function_fields import CODE

GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
CONTAINERS = (OrderedDict, deque, list, dict, set)
"""A container is of the first of these kinds that it is an instance of."""
CONSTANTS = (
    str, bytes, bool, int, float, complex, type(None), type, types.ModuleType, types.BuiltinFunctionType,
    types.CodeType, enum.Enum, range, slice, frozenset, torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip
LIBRARIES = sys.stdlib_module_names | {
    "torch", "torch_tensorrt", "tensorrt", "tensorrt_rtx", "triton", "numpy", "sympy",
}  # fmt: skip
"""Packages whose objects are not looked into: a logger, a graph or a stream is no state of a model."""
LOOKED_INTO = (types.SimpleNamespace, argparse.Namespace, UserDict, UserList, threading.local)
"""Classes of theirs that models keep state in."""
DEEPEST = 100
"""Values in values; what is further down is taken for constant."""
MISSING = object()


class Generator(NamedTuple):
    """Stands for a generator where states are compared."""

    state: Any


class Held(NamedTuple):
    """Stands for a container or an object where values are compared: its items, None if it has none, and its fields."""

    own_class: type
    items: Any
    fields: dict[str, Any]


class KeptValues:
    """What tensors, containers, objects and generators hold, each once however many names it has.

    `modules` are those that were met, with their paths. `opaque` is path → value of what can't be put back.
    """

    def __init__(self, constant: set[int]) -> None:
        """Keep nothing yet; `constant` has the ids of tensors that are not to be kept."""
        self._constant = constant
        self._values: dict[int, tuple[Any, Any]] = {}
        self._containers: dict[int, tuple[Any, type, Any]] = {}
        self._objects: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._generators: dict[int, tuple[Any, Any]] = {}
        self.modules: list[tuple[str, torch.nn.Module]] = []
        self.opaque: dict[str, Any] = {}

    def keep(self, value: Any, path: str, depth: int = 0) -> Any:
        """Remember what a value holds; returns something to compare a later value with."""
        if isinstance(value, torch.Tensor | np.ndarray):
            return self._keep_values(value, path)
        if isinstance(value, GENERATORS):
            self._generators[id(value)] = (value, _state_of(value))
            return Generator(self._generators[id(value)][1])
        if isinstance(value, CONSTANTS) or depth > DEEPEST:
            return value
        if isinstance(value, torch.nn.Module):
            self.modules.append((path, value))
            return value
        if isinstance(value, tuple):
            return tuple(self.keep(one, f"{path}[{at}]", depth + 1) for at, one in enumerate(value))
        if id(value) in self._objects:  # shared, or inside itself
            return value
        kind = next((kind for kind in CONTAINERS if isinstance(value, kind)), None)
        if kind is None and not isinstance(value, CODE) and not _is_looked_into(value):
            self.opaque[path] = value
            return value
        fields = fields_of(value)
        self._objects[id(value)] = (value, fields)
        items = None if kind is None else self._keep_items(value, kind, path, depth)
        kept = {name: self.keep(one, f"{path}.{name}", depth + 1) for name, one in fields.items()}
        return Held(type(value), items, kept)

    def _keep_values(self, value: Any, path: str) -> Any:
        if id(value) in self._constant:
            return value
        if isinstance(value, np.ndarray) and value.dtype != object:
            return self._values.setdefault(id(value), (value, value.copy()))[1]
        if isinstance(value, torch.Tensor) and is_plain(value):
            return self._values.setdefault(id(value), (value, value.detach().clone()))[1]
        self.opaque[path] = value
        return value

    def _keep_items(self, value: Any, kind: type, path: str, depth: int) -> Any:
        shallow = _items(value, kind)
        self._containers[id(value)] = (value, kind, shallow)
        if isinstance(shallow, dict):
            return {name: self.keep(one, f"{path}[{name!r}]", depth + 1) for name, one in shallow.items()}
        return [self.keep(one, f"{path}[{at}]", depth + 1) for at, one in enumerate(shallow)]

    def restore(self) -> None:
        """Put everything back: each container and object holds what it held, and that has its values again."""
        for container, kind, items in self._containers.values():
            _refill(container, kind, items)
        for one, fields in self._objects.values():
            _set_fields(one, fields)
        for value, before in self._values.values():
            if same(before, value):
                continue
            if isinstance(value, torch.Tensor):
                _put_back(value, before)
            else:
                value[...] = before
        for generator, state in self._generators.values():
            _set_state(generator, state)


def _put_back(tensor: torch.Tensor, before: torch.Tensor) -> None:
    """Let a tensor hold what it held, at the address where it lies if it can."""
    if (tensor.dtype, tensor.device) != (before.dtype, before.device):  # its `data` is another's
        tensor.data = before.clone()
        return
    if tensor.shape != before.shape:
        tensor.resize_(before.shape)
    once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in tensor.stride())
    tensor[once].copy_(before[once])  # of an expanded one each value, which lies there once


def same(before: Any, now: Any) -> bool:
    """Whether a value is as `KeptValues.keep` returned it; what was not kept is, if it is the same object."""
    if before is now:
        return True
    if isinstance(before, torch.Tensor) and isinstance(now, torch.Tensor):
        alike = before.shape == now.shape and before.dtype == now.dtype and before.device == now.device
        return alike and is_plain(before) and is_plain(now) and _equal(before, now)
    if isinstance(before, np.ndarray) and isinstance(now, np.ndarray):
        return before.dtype == now.dtype and before.tobytes() == now.tobytes() and before.shape == now.shape
    if isinstance(before, Generator):
        return isinstance(now, GENERATORS) and repr(before.state) == repr(_state_of(now))
    if isinstance(before, Held):
        return type(now) is before.own_class and _same_items(before.items, now) and same(before.fields, fields_of(now))
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(same(before[name], now[name]) for name in before)
    if isinstance(before, tuple | list) and isinstance(now, tuple | list):
        return len(before) == len(now) and all(map(same, before, now))
    if isinstance(before, bool | int | float | complex | str | bytes) and type(before) is type(now):
        return bool(before == now) or before != before
    return False


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether its values can be copied and compared: a sparse, nested, quantized or meta tensor's are left alone."""
    plain = tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_quantized
    return plain and tensor.device.type != "meta" and not tensor.is_inference()


def _same_items(before: Any, now: Any) -> bool:
    return before is None or same(before, dict(now) if isinstance(before, dict) else list(now))


def _is_looked_into(value: Any) -> bool:
    """Whether what an object holds is in its fields, and may be the state of a model."""
    return isinstance(value, LOOKED_INTO) or (not is_of_library(value) and holds_only_fields(value))


def is_of_library(value: Any) -> bool:
    """Whether the class of an object is one of LIBRARIES."""
    return type(value).__module__.partition(".")[0] in LIBRARIES


def fields_of(value: Any) -> dict[str, Any]:
    """Return what an object holds in its slots and its `__dict__`, by name; a function in its closure."""
    if isinstance(value, CODE):
        return function_fields.of(value, LIBRARIES)
    slots = {name: getattr(value, name) for name in slots_of(type(value)) if hasattr(value, name)}
    return slots | {name: one for name, one in getattr(value, "__dict__", {}).items() if isinstance(name, str)}


def _set_fields(value: Any, fields: dict[str, Any]) -> None:
    if isinstance(value, CODE):
        function_fields.put_back(value, fields)
        return
    now, slots = fields_of(value), slots_of(type(value))
    for name in now.keys() - fields.keys():
        if name in slots:
            slots[name].__delete__(value)
        else:
            del value.__dict__[name]
    for name, one in fields.items():
        if now.get(name, MISSING) is one:
            continue
        if name in slots:
            slots[name].__set__(value, one)
        else:
            value.__dict__[name] = one


def _items(container: Any, kind: type) -> Any:
    return dict(container) if issubclass(kind, dict) else list(container)


def _refill(container: Any, kind: Any, items: Any) -> None:
    """Let a container hold what it held, past what its class does when something is put in or taken out."""
    before, now = _flat(items), _flat(_items(container, kind))
    if len(before) == len(now) and all(map(operator.is_, before, now)):
        return
    kind.clear(container)
    if isinstance(items, dict):
        for name, one in items.items():
            kind.__setitem__(container, name, one)
    elif kind is set:
        kind.update(container, items)
    else:
        kind.extend(container, items)


def _flat(items: Any) -> list[Any]:
    return [*items.keys(), *items.values()] if isinstance(items, dict) else items


def _equal(before: torch.Tensor, now: torch.Tensor) -> bool:
    if before.is_floating_point() or before.is_complex():
        return bool(((before == now) | ((before != before) & (now != now))).all())
    return torch.equal(before, now)


def _state_of(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state().tolist()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return copy.deepcopy(generator.bit_generator.state)
    return generator.get_state(legacy=False)


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.tensor(state, dtype=torch.uint8, device="cpu"))
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)
