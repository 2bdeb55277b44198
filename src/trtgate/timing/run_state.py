"""What a call changes beside its output: buffers, attributes, inputs and random numbers; put back before the next."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from ..common.errors import TrtgateError
from ..common.text_columns import first_few
from .function_fields import CODE
from .kept_values import MISSING, Held, KeptValues, fields_of, is_of_library, is_plain, same

SEED = 0
OF_TORCH = frozenset(vars(torch.nn.Module())) - {"training"}
"""Attributes that torch.nn.Module keeps for itself."""
HOOKS = ("_forward_pre_hooks", "_forward_hooks")
MOST_NAMED = 3
NO_STATE = ("_thread", "threading", "logging", "weakref")
"""Packages whose objects are not suspected of holding what a model computes with."""

Values = dict[str, Any]


class RunState:
    """The state of modules and other callables, and of the tensors that they are called with, as it is when it is made.

    Kept are all buffers and attributes of all submodules, and of modules that these hold in other ways: which object
    each is, and what tensors, containers, generators, objects with fields and functions hold (`KeptValues`). Which
    function an attribute or a hook is, is no state: something may have wrapped a forward for a while. Parameters are
    not kept; their versions tell a change.
    """

    def __init__(self, modules: Iterable[object], inputs: object) -> None:
        modules = list(modules)
        whole = [one for one in modules if isinstance(one, torch.nn.Module)]
        self._modules: dict[int, tuple[str, torch.nn.Module]] = {}
        self._versions: list[tuple[str, torch.Tensor, int]] = []
        self._bound: dict[int, tuple[Values, Values]] = {}
        self._values: dict[int, Values] = {}
        self._kept = KeptValues({id(parameter) for top in whole for parameter in top.parameters()})
        self._callables: list[tuple[str, object, Any]] = []
        for top in whole:
            self._keep("", top)
        others = [one for one in modules if not isinstance(one, torch.nn.Module)]
        self._callables += [("", one, self._kept.keep(one, "")) for one in others]
        while self._kept.modules:  # in lists, in fields of objects, and in closures
            path, module = self._kept.modules.pop(0)
            self._keep(path.lstrip("."), module)
        self._opaque = {path.lstrip("."): (value, _text(value)) for path, value in self._kept.opaque.items()}
        self._inputs = [_copied(leaf) for leaf in pytree.tree_leaves(inputs)]

    def _keep(self, path: str, top: torch.nn.Module) -> None:
        """Keep what a module and its submodules hold; the first to name a module names it."""
        for name, one in top.named_modules(prefix=path):
            if id(one) in self._modules:
                continue
            self._modules[id(one)] = (name, one)
            parameters = one.named_parameters(prefix=name, recurse=False)
            self._versions += [(full, parameter, parameter._version) for full, parameter in parameters]
            buffers, attributes = self._bound[id(one)] = dict(one._buffers), _attributes(one)
            self._callables += [
                (_joined(name, called), value, self._kept.keep(value, _joined(name, called)))
                for called, value in _callables_of(one)
            ]
            self._values[id(one)] = {
                attribute: self._kept.keep(value, _joined(name, attribute))
                for attribute, value in (*buffers.items(), *attributes.items())
            }

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
                if one not in before or one not in now or not same(before[one], now[one])
            ]
        found += [name for name, before, now in self._in_callables() if not same(before, now)]
        leaves = pytree.tree_leaves(inputs)
        numbers = (number for number, pair in enumerate(zip(self._inputs, leaves, strict=True)) if not same(*pair))
        return sorted(set(found)) + [f"input {number}" for number in numbers]

    def _in_callables(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield what callables hold, as name, value at first and value now."""
        for path, value, kept in self._callables:
            if not isinstance(kept, Held) or kept.items is not None:
                yield path, kept, value
                continue
            now = fields_of(value)
            for name in {**kept.fields, **now}:
                yield _joined(path, name), kept.fields.get(name, MISSING), now.get(name, MISSING)

    def elsewhere(self) -> str:
        """Return what a call changes, or may change, and nobody puts back, as the end of a sentence."""
        named = {path: f"{path} ({type(value).__name__})" for path, (value, _) in self._opaque.items()}
        changed = [named[path] for path, (value, text) in self._opaque.items() if _text(value) != text]
        if changed:
            return f"it changes {first_few(changed, MOST_NAMED)}, which can't be put back"
        outside = "outside of its modules: in a global or a class?"
        suspects = [
            named[path]
            for path, (value, _) in self._opaque.items()
            if type(value).__module__.partition(".")[0] not in NO_STATE
        ]
        if suspects:
            return f"does it keep state in {first_few(suspects, MOST_NAMED)}, which can't be put back, or {outside}"
        return f"does it keep state {outside}"

    def values(self, names: Iterable[str], inputs: object, containers: Values) -> Values:
        """Return what `changed` named, as it is now, and the containers that were named; others are left out."""
        leaves = containers | {f"input {number}": leaf for number, leaf in enumerate(pytree.tree_leaves(inputs))}
        leaves |= {name: now for name, _, now in self._in_callables()}
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
                if isinstance(leaf, torch.Tensor) and is_plain(leaf) and not _is_expanded(leaf):
                    _put_back(leaf, saved)


@contextlib.contextmanager
def unchanged(modules: Iterable[object], inputs: object) -> Iterator[None]:
    """Within: calls may change modules and inputs; afterwards they are as before."""
    state = RunState(modules, inputs)
    try:
        yield
    finally:
        state.restore(inputs)


def parameters_changed(module: torch.nn.Module, call: Callable[[], object]) -> list[str]:
    """Return the names of the parameters that a call changes or replaces, as through their `data`, which tells nobody.

    Copies all parameters meanwhile; they stay as the call leaves them.
    """
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    call()
    after = dict(module.named_parameters())
    return [name for name, value in before.items() if name not in after or not same(value, after[name].detach())]


def described(names: list[str]) -> str:
    """Return a few of the names in a line."""
    return first_few(names, MOST_NAMED)


def _attributes(module: torch.nn.Module) -> Values:
    if isinstance(module, torch.jit.ScriptModule):
        return {}
    return {name: value for name, value in vars(module).items() if name not in OF_TORCH and not isinstance(value, CODE)}


def _callables_of(module: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the functions among a module's attributes, and what it calls before and after its forward, by name."""
    for name, value in vars(module).items():
        if isinstance(value, CODE):
            yield name, value
        elif name in HOOKS:
            for at, hook in enumerate(value.values()):
                if isinstance(hook, CODE) or not is_of_library(hook):
                    yield f"{name}[{at}]", hook


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) and is_plain(value) else value


def _put_back(leaf: torch.Tensor, saved: torch.Tensor) -> None:
    """Let an input be what it was, at the address where it lies: a call may have squeezed or resized it in place."""
    if (leaf.shape, leaf.stride()) != (saved.shape, saved.stride()):
        leaf.resize_(saved.shape).as_strided_(saved.shape, saved.stride())
    leaf.copy_(saved)


def _text(value: Any) -> str:
    """Return what is seen of a value that can't be kept: how often a tensor was written to, or `count(3)`."""
    if isinstance(value, torch.Tensor):
        return "" if value.is_inference() else str(value._version)
    return repr(value) if isinstance(value, Iterator) else ""


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
    return not all(map(same, before, now))
