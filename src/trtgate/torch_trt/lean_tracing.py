"""Exporting and partitioning without work whose result nobody reads, where a program is looked at and not run."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..common import garbage
from .patching import replaced

GENERATED = ("_code", "_lineno_map", "_prologue_start")
"""What `GraphModule.recompile` leaves on a module."""
READ = (*GENERATED, "forward", "__reduce__")
"""How all that reads the code gets at it."""
REGISTRY = "torch_tensorrt.dynamo.conversion._ConverterRegistry"


@contextlib.contextmanager
def lean() -> Iterator[None]:
    """Within: graphs, and what is decided of them, are as ever; some 30 % of a dry run's time is saved.

    A graph's Python code is generated when it is first read or called: every pass asks for it anew. The registry of
    converters is validated once, not at each look at it, and the operators of C++ are listed once for all namespaces.
    Of each node's stack those lines are read that are kept. Garbage is collected afterwards.

    Threads may overlap, and it may be within itself: the last to leave puts all back.
    """
    with garbage.later():
        _shared.enter()
        try:
            yield
        finally:
            _shared.leave()


class _Shared:
    """What is replaced in torch and torch_tensorrt, once for all who are within."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._within = 0
        self._replaced = contextlib.ExitStack()

    def enter(self) -> None:
        with self._guard:
            if not self._within:
                with contextlib.ExitStack() as stack:
                    _replace(stack)
                    self._replaced = stack.pop_all()
            self._within += 1

    def leave(self) -> None:
        with self._guard:
            self._within -= 1
            if not self._within:
                self._replaced.close()


_shared = _Shared()
_one_at_a_time = threading.RLock()
"""Held while code is generated, or operators are listed: what both change is shared by threads."""


def _replace(stack: contextlib.ExitStack) -> None:
    from torch.fx import GraphModule

    stack.enter_context(replaced(GraphModule, "recompile", _recompiling_later(GraphModule.recompile)))
    stack.enter_context(_operators_listed_once())
    stack.enter_context(_lines_read_when_asked_for())
    if REGISTRY in sys.modules:
        stack.enter_context(_registry_validated_once(sys.modules[REGISTRY].ConverterRegistry))


class _Later:
    """An attribute of a graph module's class, which every graph module has of its own, that is not there yet."""

    def __init__(self, name: str, module: Any, recompile: Callable[[Any], Any]) -> None:
        self._name = name
        self._module = weakref.ref(module)  # a class dies with the next collection of garbage only
        self._recompile = recompile

    def __get__(self, instance: Any, owner: type) -> Any:
        module = self._module() if instance is None else instance
        if module is None:
            raise AttributeError(f"{owner.__name__} has no {self._name}: its graph module is gone")
        with _one_at_a_time:
            if inspect.getattr_static(type(module), self._name, None) is self:  # else another thread was first
                self._recompile(module)
                for name in READ:
                    if isinstance(vars(type(module)).get(name), _Later):
                        delattr(type(module), name)
        return getattr(owner if instance is None else instance, self._name)


class _LaterCode:
    """The code of a graph, which is generated when something of it is read."""

    def __init__(self, module: Any, recompile: Callable[[Any], Any]) -> None:
        self._generated = lambda: recompile(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generated(), name)


def _recompiling_later(recompile: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return `GraphModule.recompile` that takes note that a graph changed."""
    from torch.fx.graph import _PyTreeCodeGen

    def recompile_later(module: Any) -> _LaterCode:
        codegen = module._graph._codegen
        if isinstance(codegen, _PyTreeCodeGen):
            module._in_spec, module._out_spec = codegen.pytree_info.in_spec, codegen.pytree_info.out_spec
        for name in GENERATED:
            vars(module).pop(name, None)
        for name in READ:
            setattr(type(module), name, _Later(name, module, recompile))
        return _LaterCode(module, recompile)

    return recompile_later


@contextlib.contextmanager
def _registry_validated_once(registry: Any) -> Iterator[None]:
    validate, valid = registry.validate_invariants, set()

    def validate_once(self: Any) -> None:
        if id(self) not in valid:
            validate(self)
            valid.add(id(self))

    with replaced(registry, "validate_invariants", validate_once):
        yield


@contextlib.contextmanager
def _operators_listed_once() -> Iterator[None]:
    """Within: torch.export asks C++ once for its composite operators, not once for each of some thirty namespaces."""
    from torch._export import utils
    from torch.export import exported_program

    collect, listed = "_collect_all_valid_cia_ops", "_materialize_cpp_cia_ops"
    if not (hasattr(exported_program, collect) and hasattr(utils, listed)):
        yield
        return
    original, list_them = getattr(exported_program, collect), getattr(utils, listed)

    def collected() -> Any:
        with _one_at_a_time:
            list_them()
            with replaced(utils, listed, lambda: None):
                return original()

    with replaced(exported_program, collect, collected):
        yield


@contextlib.contextmanager
def _lines_read_when_asked_for() -> Iterator[None]:
    """Within: frames of a stack have their lines when these are asked for; torch.fx drops most frames unseen."""
    from torch.utils import _traceback

    name = "_extract_symbolized_tb"
    if not hasattr(_traceback, name):
        yield
        return

    def extracted(frames: Sequence[Mapping[str, Any]], skip: int) -> traceback.StackSummary:
        summary = traceback.StackSummary()
        for frame in reversed(frames[skip:]):
            summary.append(traceback.FrameSummary(frame["filename"], frame["line"], frame["name"], lookup_line=False))
        return summary

    with replaced(_traceback, name, extracted):
        yield
