"""Calls of submodules as eager makes them: which there are, and one of them made again alone."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import torch
from torch.utils import _pytree as pytree

from ..common.errors import TrtgateError, one_line
from ..suite.model_inputs import Inputs
from ..timing import run_state
from ..timing.run_state import RunState
from . import output_leaves
from .fp32_arithmetic import strict_fp32
from .output_leaves import Container, Leaf

CALLS = 2
"""How often a call is made: a submodule that keeps something may be wrong at the second call only."""

Outputs = list[list[Leaf | Container]]
"""The outputs of calls in a row, taken apart."""


class DirectCall(msgspec.Struct, frozen=True):
    """A call that another makes directly: its position, and the module with its path and number of the call, from 1."""

    position: int
    path: str
    number: int
    module: torch.nn.Module


class Rebuilt(torch.nn.Module):
    """Calls a module with arguments that are put together from a row of tensors and what else there is.

    So a module with keywords, nested arguments or texts takes tensors only, as frontends want it.
    """

    def __init__(self, module: torch.nn.Module, structure: Any, leaves: Sequence[Any]) -> None:
        super().__init__()
        self.module = module
        self._structure = structure
        self._is_tensor = [isinstance(leaf, torch.Tensor) for leaf in leaves]
        self.others: list[Any] = [leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)]

    def forward(self, *tensors: torch.Tensor) -> Any:
        """Return what the module returns."""
        args, kwargs = self.arguments(tensors)
        return self.module(*args, **kwargs)

    def arguments(self, tensors: Sequence[torch.Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what the module is called with."""
        fed, others = iter(tensors), iter(self.others)
        leaves = [next(fed) if is_tensor else next(others) for is_tensor in self._is_tensor]
        args, kwargs = pytree.tree_unflatten(leaves, self._structure)
        return args, kwargs


class Call:
    """A module with the state that it has when this is made, and copies of the arguments that it is called with.

    `fresh().call(target)` makes the call again. Raises TrtgateError for arguments that can't be copied.
    """

    def __init__(
        self, path: str, module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], number: int = 1,
        names: Mapping[int, str] | None = None,
    ) -> None:  # fmt: skip
        self.path, self.module, self.number = path, module, number
        self._names = names or {id(one): name for name, one in module.named_modules()}
        self._kept = {id(one): one for one in module.modules()}  # an argument that holds one of them keeps it
        leaves, structure = pytree.tree_flatten((args, dict(kwargs)))
        self._leaves = self._copied(leaves)
        plain = not kwargs and all(isinstance(value, torch.Tensor) for value in args)
        self.target = module if plain else Rebuilt(module, structure, self._leaves)
        self._state = RunState((self.target,), ())
        kind = next((leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)), "cpu")
        self._autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))

    def fresh(self) -> Inputs:
        """Put the module's state back, and return new copies of the tensors that it is called with."""
        self._state.restore(())
        leaves = self._copied(self._leaves)
        if isinstance(self.target, Rebuilt):
            self.target.others = [leaf for leaf in leaves if not isinstance(leaf, torch.Tensor)]
        return Inputs(tuple(leaf for leaf in leaves if isinstance(leaf, torch.Tensor)))

    @contextlib.contextmanager
    def surroundings(self) -> Iterator[None]:
        """Within: gradients and autocast are as they were where eager made the call."""
        kind, dtype, enabled = self._autocast
        with torch.no_grad(), torch.autocast(kind, dtype, enabled) if enabled else contextlib.nullcontext():
            yield

    def outputs(self, run: Callable[..., Any], calls: int = CALLS) -> Outputs:
        """Return what `run`, this module or what was compiled of it, returns for these arguments, call by call.

        Random numbers follow one seed. Raises TrtgateError for an output that can't be taken apart.
        """
        inputs = self.fresh()
        found = []
        for _ in range(calls):
            with run_state.seeded(), self.surroundings():
                found.append(output_leaves.copied(inputs.call(run)))
        return found

    def in_eager(self, calls: int = CALLS) -> Outputs:
        """Return what eager makes of it."""
        with strict_fp32():
            return self.outputs(self.target, calls)

    def next(self) -> Call:
        """Make the call in eager, and return the next one of the same tensors, with the state that this one leaves."""
        inputs = self.fresh()
        with run_state.seeded(), self.surroundings(), strict_fp32():
            inputs.call(self.target)
        rebuilt = isinstance(self.target, Rebuilt)
        args, kwargs = self.target.arguments(inputs.args) if rebuilt else (inputs.args, {})
        return Call(self.path, self.module, args, kwargs, self.number, self._names)

    def children(self) -> list[DirectCall]:
        """Return the calls that this one makes directly, in order: of submodules, not of their own submodules.

        Raises TrtgateError where eager can't make this call by itself.
        """
        found: list[DirectCall] = []
        counted: Counter[int] = Counter()

        def entered(module: torch.nn.Module, _args: Any, _kwargs: Any) -> None:
            counted[id(module)] += 1
            found.append(DirectCall(len(found), self._names[id(module)], counted[id(module)], module))

        self._run_watched(entered)
        return found

    def child(self, name: DirectCall) -> Call:
        """Make one of the calls of `children` by itself. Raises as the class, and as `children`."""
        taken: list[Call] = []
        passed = 0

        def entered(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            nonlocal passed
            if passed == name.position:
                taken.append(Call(name.path, module, args, kwargs, name.number, self._names))
            passed += 1

        self._run_watched(entered)
        return taken[0]

    def _run_watched(self, entered: Callable[[torch.nn.Module, Any, Any], None]) -> None:
        """Run once in eager; `entered` is told of each direct call of a submodule before it happens."""
        depth = 0

        def before(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
            nonlocal depth
            if depth == 0:
                entered(module, args, kwargs)
            depth += 1

        def after(_module: torch.nn.Module, _args: Any, _output: Any) -> None:
            nonlocal depth
            depth -= 1

        with contextlib.ExitStack() as stack:
            for module in self.module.modules():
                if module is not self.module:
                    first = module.register_forward_pre_hook(before, prepend=True, with_kwargs=True)
                    stack.callback(first.remove)
                    stack.callback(module.register_forward_hook(after, always_call=True).remove)
            inputs = self.fresh()
            try:
                with run_state.seeded(), self.surroundings(), strict_fp32():
                    inputs.call(self.target)
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:
                raise TrtgateError(f"eager can't make the call again: {one_line(error)}") from error

    def _copied(self, leaves: list[Any]) -> list[Any]:
        """Return copies that share what the leaves share, and of this call's modules none."""
        try:
            return copy.deepcopy(leaves, dict(self._kept))
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            raise TrtgateError(f"its arguments can't be copied: {one_line(error)}") from error
