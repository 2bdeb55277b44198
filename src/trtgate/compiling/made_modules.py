"""What factories return as modules, made ready for all that follows: copied, ordinary tensors, every shape known."""

from __future__ import annotations

import copy
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import chain
from types import CellType, FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedBuffer, is_lazy

from ..common.errors import TrtgateError, one_line
from ..common.text_columns import first_few
from ..suite.model_inputs import Inputs
from ..timing.run_state import HOOKS, OF_TORCH

TAKE_SCRIPTED = ("eager", "ts_trace", "ts_script")
"""Frontends that take a module whose code is TorchScript."""
MOST_NAMED = 3
NOT_CALLED = OF_TORCH.difference(HOOKS)
"""Attributes of every module that hold no function that a call runs."""
HOLD_STATE = (torch.nn.Module, torch.Tensor, list, dict, set, deque)


def copied(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy. Raises whatever copying raises, and TypeError for a closure, which no copy can be given anew."""
    copies: dict[int, Any] = {
        id(value): UninitializedBuffer(value.requires_grad, value.device, value.dtype)
        for value in module.buffers()
        if isinstance(value, UninitializedBuffer)
    }  # torch copies a parameter without a shape, and no such buffer
    for one in module.modules():  # nor what was computed from parameters, as the weight of `weight_norm`
        computed = [value for value in vars(one).values() if isinstance(value, torch.Tensor) and not value.is_leaf]
        copies |= {id(value): value.detach().clone() for value in computed}
    made = copy.deepcopy(module, copies)
    _check_functions(module, copies)
    own = {id(one) for one in module.modules()}
    for one in made.modules():
        for name, value in vars(one).items():
            if isinstance(value, weakref.ref) and id(value()) in own:  # deepcopy leaves these as they are
                vars(one)[name] = weakref.ref(copies[id(value())])
    return made


def _check_functions(module: torch.nn.Module, copies: Mapping[int, Any]) -> None:
    """Raise TypeError where a call runs a function that holds something of `copies`: the copy's would hold the same.

    Of a function that is no hook an object of the user's does not count: it is most often a configuration.
    """
    held = {identity for identity, one in copies.items() if isinstance(one, HOLD_STATE)}
    for path, one in module.named_modules():
        for name, value in vars(one).items():
            if name not in NOT_CALLED and _calls(value, copies if name in HOOKS else held):
                raise TypeError(f"{f'{path}.' * bool(path)}{name} has a function that holds a part of the module")


def _calls(value: Any, parts: Collection[int]) -> bool:
    """Whether a function, or one in containers, holds one of the parts, which are named by their `id`."""
    seen: set[tuple[int, bool]] = set()
    asked: list[tuple[Any, bool]] = [(value, False)]
    while asked:
        one, in_function = asked.pop()
        if in_function and id(one) in parts:
            return True
        if (id(one), in_function) not in seen:
            seen.add((id(one), in_function))
            asked += [(held, in_function or isinstance(one, FunctionType)) for held in _held(one)]
    return False


def _held(value: Any) -> list[Any]:
    """Return what a function or a container holds."""
    match value:
        case FunctionType():
            cells = [cell for cell in value.__closure__ or () if _is_filled(cell)]
            return [*(cell.cell_contents for cell in cells), *(value.__defaults__ or ())]
        case MethodType():
            return [value.__self__, value.__func__]
        case partial():
            return [value.func, *value.args, *value.keywords.values()]
        case Mapping():
            return list(value.values())
        case tuple() | list() | set() | deque():
            return list(value)
    return []


def _is_filled(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # nothing is in it yet
        return False
    return True


def copied_or_itself(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy; the module itself where it can't be copied, as one that holds a lock or a tensor of a graph."""
    try:
        return copied(module)
    except Exception:
        return module


_uncopied: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()
"""Modules of factories that could not be copied → the precision of the first case that got them."""


def check_uncopied(module: torch.nn.Module, precision: str, name: str) -> None:
    """Raise TrtgateError, which begins with `name`, for a module that can't be copied and was another precision's."""
    first = _uncopied.setdefault(module, precision)
    if first != precision:
        raise TrtgateError(
            f"{name}: its factory returns one {type(module).__name__} each time, which can't be copied and was cast "
            f"for {first} before: let the factory make it"
        )


def as_it_was(module: torch.nn.Module) -> Callable[[], None]:
    """Return what puts a module back as it is now: its parts, modes and tensors, of which no copy is made."""
    parts = [one for one in module.modules() if not isinstance(one, torch.jit.ScriptModule)]
    held = [(kept, dict(kept)) for one in parts for kept in (one._modules, one._parameters, one._buffers, vars(one))]
    tensors = [
        (value, value.data, value.requires_grad)
        for value in chain(module.parameters(), module.buffers())
        if not is_lazy(value) and not value.is_inference()
    ]

    shapeless = [value for value in chain(module.parameters(), module.buffers()) if is_lazy(value)]

    def back() -> None:
        if not all(map(is_lazy, shapeless)):  # it can't be copied, and has got its shapes for good
            return
        for kept, before in held:
            kept.clear()
            kept.update(before)
        for value, data, wants_gradient in tensors:
            value.data = data
            value.requires_grad_(wants_gradient)

    return back


def check_code(module: torch.nn.Module, frontend: str, name: str) -> None:
    """Raise TrtgateError, which begins with `name`, for a scripted module that a frontend can't look into."""
    if isinstance(module, torch.jit.ScriptModule) and frontend not in TAKE_SCRIPTED:
        eager, *others = TAKE_SCRIPTED
        raise TrtgateError(
            f"{name}: its factory returns a {type(module).__name__}, which {frontend} can't compile: return the module "
            f"that it was made from, or take the frontend {eager}, {' or '.join(others)}"
        )


def make_ordinary(module: torch.nn.Module) -> None:
    """Put copies in the place of tensors made in inference mode: they can't be written to, and tell no change."""
    ordinary: dict[int, torch.Tensor] = {}
    for one in module.modules():
        if isinstance(one, torch.jit.ScriptModule):
            continue
        for held in (one._parameters, one._buffers, vars(one)):
            for name, value in held.items():
                if isinstance(value, torch.Tensor) and value.is_inference():
                    held[name] = ordinary.setdefault(id(value), _ordinary(value))


def _ordinary(value: torch.Tensor) -> torch.Tensor:
    cloned = value.clone()
    return torch.nn.Parameter(cloned, requires_grad=False) if isinstance(value, torch.nn.Parameter) else cloned


def initialised(module: torch.nn.Module, inputs: Inputs, name: str) -> torch.nn.Module:
    """Return the module with its lazy parts as a call of a copy leaves them; nothing else of it is changed.

    Raises TrtgateError, which begins with `name`, where the call fails or leaves out a lazy part.
    """
    lazy = [
        (path, one)
        for path, one in module.named_modules()
        if isinstance(one, LazyModuleMixin) and one.has_uninitialized_params()
    ]
    if lazy:
        called = copied_or_itself(module)
        try:
            with torch.no_grad():
                inputs.cloned().call(called.eval())
        except Exception as error:
            paths = first_few([path or "itself" for path, _ in lazy], MOST_NAMED)
            raise TrtgateError(
                f"{name}: its lazy modules ({paths}) get their shapes from a call, which raised {one_line(error)}"
            ) from error
        made = {id(one): called.get_submodule(path) for path, one in lazy}
        for one in module.modules():
            one._modules.update({child: made.get(id(part), part) for child, part in one._modules.items()})
        module = made.get(id(module), module)
    for path, value in chain(module.named_parameters(), module.named_buffers()):
        if is_lazy(value):
            raise TrtgateError(
                f"{name}: {path} has no shape after a call with the example inputs: call it in the factory"
            )
    return module


def freeze(module: torch.nn.Module) -> str:
    """Let a module be in eval mode, and its parameters have no gradients.

    Returns a sentence on parts that compute otherwise than as the factory left them; empty where there are none.
    Modules of exported programs refuse to be asked for a mode, which changes nothing of their graphs.
    """
    other = [path or "itself" for path, one in module.named_modules() if _is_other_by_mode(one) and one.training]
    for one in module.modules():
        for name in ("eval", "train"):
            if getattr(vars(one).get(name), "__module__", "") == torch.export.exported_program.__name__:
                delattr(one, name)
    module.eval()
    for parameter in module.parameters():
        if parameter.is_leaf:  # a script module inside another has its parameters anew each time
            parameter.requires_grad_(False)
    if not other:
        return ""
    left = first_few(other, MOST_NAMED)
    return f"its factory leaves dropout or normalization in training mode ({left}), and eval mode is measured"


def _is_other_by_mode(module: torch.nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    return isinstance(module, _NormBase) and module.track_running_stats
