"""What a call changes beside its output: buffers, attributes, inputs and random numbers; put back before the next."""

from __future__ import annotations

import contextlib
import random
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

SEED = 0
OF_TORCH = frozenset(vars(torch.nn.Module())) - {"training"}
"""Attributes that torch.nn.Module keeps for itself; parameters are taken to be constant."""
MOST_NAMED = 3


class RunState:
    """The state of modules and of the tensors that they are called with, as it is when this is made.

    Kept are all buffers and what else a submodule has as attributes: tensors, numbers, and containers of them. Objects
    of other kinds are kept as they are, and what they hold is not put back.
    """

    def __init__(self, modules: Iterable[object], inputs: object) -> None:
        own = [one for whole in modules if isinstance(whole, torch.nn.Module) for one in whole.named_modules()]
        self._modules = {id(module): (name, module) for name, module in own}
        self._buffers = {key: _copied(module._buffers) for key, (_, module) in self._modules.items()}
        self._attributes = {key: _copied(_attributes(module)) for key, (_, module) in self._modules.items()}
        self._bound = {key: dict(module._buffers) for key, (_, module) in self._modules.items()}
        self._inputs = [_copied(leaf) for leaf in pytree.tree_leaves(inputs)]

    def changed(self, inputs: object) -> list[str]:
        """Return the names of what is no longer as it was; `inputs` are in the same structure as at first."""
        found = []
        for key, (name, module) in self._modules.items():
            before, now = self._buffers[key], module._buffers
            found += [_joined(name, one) for one in {*before, *now} if not _same(before.get(one), now.get(one))]
            before, now = self._attributes[key], _attributes(module)
            found += [_joined(name, one) for one in {*before, *now} if not _same(before.get(one), now.get(one))]
        leaves = pytree.tree_leaves(inputs)
        numbers = (number for number, pair in enumerate(zip(self._inputs, leaves, strict=True)) if not _same(*pair))
        return sorted(set(found)) + [f"input {number}" for number in numbers]

    def restore(self, inputs: object) -> None:
        """Put everything back, in place where it is a tensor: graphs and engines hold its address."""
        with torch.no_grad():
            for key, (_, module) in self._modules.items():
                _restore_buffers(module, self._bound[key], self._buffers[key])
                _restore_attributes(module, self._attributes[key])
            for saved, leaf in zip(self._inputs, pytree.tree_leaves(inputs), strict=True):
                if isinstance(leaf, torch.Tensor) and not _is_expanded(leaf):
                    leaf.copy_(saved)


@contextlib.contextmanager
def unchanged(modules: Iterable[object], inputs: object) -> Iterator[None]:
    """Within: calls may change modules and inputs; afterwards they are as before."""
    state = RunState(modules, inputs)
    try:
        yield
    finally:
        state.restore(inputs)


def described(names: list[str]) -> str:
    """Return a few of the names in a line."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _attributes(module: torch.nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in OF_TORCH and _is_kept(value)}


def _is_kept(value: object) -> bool:
    plain = (torch.Tensor, bool, int, float, complex, str, type(None), list, dict, tuple, set)
    return isinstance(value, plain) and not isinstance(value, torch.nn.Module)


def _copied(value: Any) -> Any:
    """Return a copy that shares no tensor and no container."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if type(value) in (dict, OrderedDict):
        return type(value)((name, _copied(one)) for name, one in value.items())
    if type(value) in (list, tuple, set):
        return type(value)(_copied(one) for one in value)
    return value


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, torch.Tensor) and isinstance(now, torch.Tensor):
        alike = before.shape == now.shape and before.dtype == now.dtype and before.device == now.device
        return alike and _equal(before, now)
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_same(before[name], now[name]) for name in before)
    if type(before) in (list, tuple) and type(now) is type(before):
        return len(before) == len(now) and all(map(_same, before, now))
    if type(before) is not type(now):
        return False
    try:
        return before is now or bool(before == now) or (before != before and now != now)
    except (RuntimeError, TypeError, ValueError):  # a container of tensors that can't be compared so
        return False


def _equal(before: torch.Tensor, now: torch.Tensor) -> bool:
    if before.is_floating_point() or before.is_complex():
        return bool(((before == now) | ((before != before) & (now != now))).all())
    return torch.equal(before, now)


def _restore_buffers(module: torch.nn.Module, bound: dict[str, Any], saved: dict[str, Any]) -> None:
    if type(module._buffers) is dict:  # a script module's are always the same tensors
        module._buffers.clear()
        module._buffers.update(bound)
    for name, tensor in bound.items():
        if tensor is not None and not _same(saved[name], tensor):
            if tensor.shape != saved[name].shape:
                tensor.resize_(saved[name].shape)
            tensor.copy_(saved[name])


def _restore_attributes(module: torch.nn.Module, saved: dict[str, Any]) -> None:
    now = _attributes(module)
    for name in now.keys() - saved.keys():
        delattr(module, name)
    for name, value in saved.items():
        place: Any = now.get(name)
        if _same(value, place):
            continue
        if isinstance(place, torch.Tensor) and isinstance(value, torch.Tensor) and place.shape == value.shape:
            place.copy_(value)
        else:
            setattr(module, name, _copied(value))


def _is_expanded(tensor: torch.Tensor) -> bool:
    """Whether values share their memory: then no call can have written there, as torch refuses it."""
    return any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _joined(module: str, name: str) -> str:
    return f"{module}.{name}" if module else name


@contextlib.contextmanager
def seeded(seed: int = SEED) -> Iterator[None]:
    """Within: torch, Python and NumPy draw the numbers that follow a seed; afterwards they go on as before."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def random_numbers() -> list[Any]:
    """Return the state of all generators: it differs after something was drawn."""
    found: list[Any] = [torch.get_rng_state(), random.getstate(), repr(np.random.get_state(legacy=False))]
    if torch.cuda.is_initialized():
        found += torch.cuda.get_rng_state_all()
    return found


def drawn(before: list[Any], now: list[Any]) -> bool:
    """Whether any generator has moved between two `random_numbers`."""
    return not all(map(_same, before, now))
