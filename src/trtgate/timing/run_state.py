"""What a call changes beside its output: buffers, attributes, inputs and random numbers; put back before the next."""

from __future__ import annotations

import contextlib
import copy
import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ..common.errors import TrtgateError

SEED = 0
OF_TORCH = frozenset(vars(torch.nn.Module())) - {"training"}
"""Attributes that torch.nn.Module keeps for itself."""
GENERATORS = (torch.Generator, random.Random, np.random.Generator, np.random.RandomState)
CONTAINERS = (list, dict, OrderedDict, defaultdict, deque, set)
CODE = (FunctionType, MethodType, partial)
"""Attributes that are no state: a forward that something has wrapped for a while."""
MOST_NAMED = 3

Values = dict[str, Any]


class RunState:
    """The state of modules and of the tensors that they are called with, as it is when this is made.

    Kept are all buffers and attributes of all submodules: which object each is, what tensors and containers hold, and
    the state of generators. Fields of other objects are not kept, nor parameters, whose versions tell a change.
    """

    def __init__(self, modules: Iterable[object], inputs: object) -> None:
        whole = [one for one in modules if isinstance(one, torch.nn.Module)]
        self._modules: dict[int, tuple[str, torch.nn.Module]] = {}
        for top in whole:  # the first to name a module names it
            for name, one in top.named_modules():
                self._modules.setdefault(id(one), (name, one))
        self._versions = [(name, p, p._version) for top in whole for name, p in top.named_parameters()]
        self._kept = _Kept()
        self._bound = {key: (dict(one._buffers), _attributes(one)) for key, (_, one) in self._modules.items()}
        self._values = {
            key: {name: self._kept.keep(value) for name, value in (*buffers.items(), *attributes.items())}
            for key, (buffers, attributes) in self._bound.items()
        }
        self._inputs = [_copied(leaf) for leaf in pytree.tree_leaves(inputs)]

    def changed(self, inputs: object) -> list[str]:
        """Return the names of what is no longer as it was; `inputs` are in the same structure as at first.

        Raises TrtgateError for a parameter that was changed: nobody could put it back.
        """
        for name, parameter, version in self._versions:
            if parameter._version != version:
                raise TrtgateError(f"its call changes the parameter {name}, which trtgate does not put back")
        found = []
        for key, (name, module) in self._modules.items():
            before, now = self._values[key], {**module._buffers, **_attributes(module)}
            names = {*before, *now}
            found += [
                _joined(name, one)
                for one in names
                if one not in before or one not in now or not _same(before[one], now[one])
            ]
        leaves = pytree.tree_leaves(inputs)
        numbers = (number for number, pair in enumerate(zip(self._inputs, leaves, strict=True)) if not _same(*pair))
        return sorted(set(found)) + [f"input {number}" for number in numbers]

    def values(self, names: Iterable[str], inputs: object) -> Values:
        """Return what `changed` named, as it is now; names that nothing has are left out."""
        leaves = {f"input {number}": leaf for number, leaf in enumerate(pytree.tree_leaves(inputs))}
        for name, module in reversed(self._modules.values()):
            leaves |= {
                _joined(name, one): value for one, value in (*module._buffers.items(), *_attributes(module).items())
            }
        return {name: leaves[name] for name in names if name in leaves}

    def restore(self, inputs: object) -> None:
        """Put everything back: each name has its object again, and that holds what it held, where it held it."""
        with torch.no_grad():
            for key, (_, module) in self._modules.items():
                buffers, attributes = self._bound[key]
                if type(module._buffers) is dict:  # a script module's are always the same tensors
                    module._buffers.clear()
                    module._buffers.update(buffers)
                own = vars(module)
                for name in _attributes(module).keys() - attributes.keys():
                    del own[name]
                own.update({name: value for name, value in attributes.items() if own.get(name) is not value})
            self._kept.restore()
            for saved, leaf in zip(self._inputs, pytree.tree_leaves(inputs), strict=True):
                if isinstance(leaf, torch.Tensor) and not _is_expanded(leaf):
                    leaf.copy_(saved)


class _Kept:
    """What tensors, containers and generators hold, each once however many names it has."""

    def __init__(self) -> None:
        self._tensors: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._containers: dict[int, tuple[Any, Any]] = {}
        self._generators: dict[int, tuple[Any, Any]] = {}

    def keep(self, value: Any) -> Any:
        """Remember what a value holds; returns something to compare a later value with."""
        if isinstance(value, torch.Tensor):
            if not _is_plain(value):
                return value
            return self._tensors.setdefault(id(value), (value, value.detach().clone()))[1]
        if isinstance(value, GENERATORS):
            self._generators[id(value)] = (value, _state_of(value))
            return _Generator(self._generators[id(value)][1])
        if isinstance(value, tuple):
            return tuple(self.keep(one) for one in value)
        if type(value) not in CONTAINERS:
            return value
        if id(value) in self._containers:  # shared, or inside itself
            return self._containers[id(value)][1]
        shallow: Any = dict(value) if isinstance(value, dict) else list(value)
        self._containers[id(value)] = (value, shallow)
        if isinstance(value, dict):
            return {name: self.keep(one) for name, one in shallow.items()}
        return [self.keep(one) for one in shallow]

    def restore(self) -> None:
        for container, held in self._containers.values():
            container.clear()
            container.update(held) if isinstance(container, dict | set) else container.extend(held)
        for tensor, held in self._tensors.values():
            if _same(held, tensor):
                continue
            if tensor.shape != held.shape:
                tensor.resize_(held.shape)
            tensor.copy_(held)
        for generator, held in self._generators.values():
            _set_state(generator, held)


class _Generator(NamedTuple):
    """Stands for a generator where states are compared."""

    state: Any


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


def _attributes(module: torch.nn.Module) -> Values:
    if isinstance(module, torch.jit.ScriptModule):
        return {}
    return {name: value for name, value in vars(module).items() if name not in OF_TORCH and not isinstance(value, CODE)}


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether its values can be copied and compared: a sparse, nested, quantized or meta tensor's are left alone."""
    plain = tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_quantized
    return plain and tensor.device.type != "meta" and not tensor.is_inference()


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) and _is_plain(value) else value


def _same(before: Any, now: Any) -> bool:
    """Whether a value is as `_Kept.keep` returned it; objects of other kinds are, if they are the same object."""
    if before is now:
        return True
    if isinstance(before, torch.Tensor) and isinstance(now, torch.Tensor):
        alike = before.shape == now.shape and before.dtype == now.dtype and before.device == now.device
        return alike and _is_plain(before) and _is_plain(now) and _equal(before, now)
    if isinstance(before, _Generator):
        return isinstance(now, GENERATORS) and repr(before.state) == repr(_state_of(now))
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_same(before[name], now[name]) for name in before)
    if isinstance(before, tuple | list) and isinstance(now, tuple | list | deque | set):
        return len(before) == len(now) and all(map(_same, before, now))
    if isinstance(before, bool | int | float | complex | str | bytes) and type(before) is type(now):
        return bool(before == now) or before != before
    return False


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
