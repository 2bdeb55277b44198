"""Converters that are registered, and that the installed build of torch_tensorrt refuses to run.

The registry has them: `torch_tensorrt._features` wraps such a converter in a function that raises NotImplementedError
when it is called, as `needs_not_tensorrt_rtx` does to that of `aten.nonzero` on TensorRT-RTX. Upstream's partitioner
puts the operator into an engine, and the build fails there.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from ..common.errors import one_line

GUARDS = "torch_tensorrt._features"
"""The module of upstream's guards."""

Withheld = dict[Any, list[tuple[Any, str]]]
"""Operator → its converters that are disabled (`ConverterSupport`), each with upstream's reason."""


def why_disabled(converter: Callable[..., Any]) -> str:
    """Return upstream's reason why this build refuses to run a converter; empty when it runs it."""
    guards = (layer for layer in _layers(converter) if layer.__globals__.get("__name__") == GUARDS)
    return next(filter(None, map(_refusal, guards)), "")


def _refusal(guard: Callable[..., Any]) -> str:
    """Return why a guard refuses. It looks at the build before it calls the converter, which needs arguments."""
    try:
        guard()
    except NotImplementedError as error:
        return one_line(error).partition(": ")[2]
    except Exception:
        return ""
    return ""


def _layers(function: Any) -> Iterator[Any]:
    """Return a decorated function and what its decorators hold, from the outermost to the function itself."""
    todo, seen = [function], set()
    while todo:
        layer = todo.pop()
        if id(layer) in seen or not inspect.isfunction(layer):
            continue
        seen.add(id(layer))
        yield layer
        todo.append(getattr(layer, "__wrapped__", None))
        todo += [cell.cell_contents for cell in layer.__closure__ or () if _is_filled(cell)]


def _is_filled(cell: Any) -> bool:
    try:
        return callable(cell.cell_contents)
    except ValueError:
        return False


@contextlib.contextmanager
def withheld() -> Iterator[Withheld]:
    """Within: the registry is without its disabled converters, so that their operators stay in PyTorch."""
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS as CONVERTERS

    found: Withheld = {}
    before = [(registry, target, entries) for registry in CONVERTERS.registries for target, entries in registry.items()]
    changed = []
    try:
        for registry, target, entries in before:
            if not isinstance(entries, list | tuple):
                continue
            disabled = [(entry, why) for entry in entries if (why := why_disabled(entry.converter_implementation))]
            if not disabled:
                continue
            found.setdefault(target, []).extend(disabled)
            changed.append((registry, target, entries))
            kept = [entry for entry in entries if all(entry is not other for other, _ in disabled)]
            if kept:
                registry[target] = kept
            else:
                del registry[target]
        yield found
    finally:
        for registry, target, entries in changed:
            registry[target] = entries
