"""The code of custom operators and Triton kernels in a program: its graph calls them by name, and shows no more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch

from . import function_code, operator_files

TRITON, TRITON_CONSTANTS = "kernel_idx", "constant_args_idx"
"""Arguments by which a graph names a Triton kernel and its constants: places in tables of the process."""


def fingerprint(program: torch.export.ExportedProgram) -> str:
    """Return a SHA-256 of the code behind a program's operators that are not upstream's; empty where there are none.

    Raises TrtgateError for an operator whose code nobody can find.
    """
    found = hashlib.sha256()
    known = list(_in(program))
    for name, what in sorted(known, key=lambda one: one[0]):
        found.update(f"{name} {_code(name, what)}\n".encode())
    return found.hexdigest() if known else ""


def _in(program: torch.export.ExportedProgram) -> Iterator[tuple[str, Any]]:
    """Yield each custom operator of a program, or Triton kernel, with its name; each once."""
    seen: set[Any] = set()
    for module in program.graph_module.modules():
        if not isinstance(module, torch.fx.GraphModule):
            continue
        for node in module.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload) and node.target in seen:
                continue
            seen.add(node.target)
            for name, what in _called(node):
                if name not in seen:
                    seen.add(name)
                    yield name, what


def _called(node: torch.fx.Node) -> Iterator[tuple[str, Any]]:
    for target in (node.target, *node.args):  # another operator may call it, as `auto_functionalized` does
        if isinstance(target, torch._ops.OpOverload) and (
            target.namespace not in operator_files.UPSTREAM or operator_files.has_kernel_of_users(target._schema)
        ):
            yield str(target), target
    if TRITON in node.kwargs:
        kernel = _kernel(node.kwargs[TRITON])
        yield f"Triton kernel {kernel.__module__}.{kernel.__qualname__} {_tuning(node.kwargs[TRITON])}", kernel


def arguments(node: torch.fx.Node) -> dict[str, Any]:
    """Return the keyword arguments of a node; a Triton kernel and its constants as themselves, not as a place."""
    found = dict(node.kwargs)
    if TRITON in found:
        from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

        found[TRITON] = _kernel(found[TRITON]).__qualname__
        if TRITON_CONSTANTS in found:
            found[TRITON_CONSTANTS] = kernel_side_table.get_constant_args(found[TRITON_CONSTANTS])
    return found


def _kernel(place: Any) -> Any:
    """Return the function of a Triton kernel: beneath what compiles it, and what tunes it."""
    return _layers(place)[-1]


def _tuning(place: Any) -> str:
    """Return what a kernel's tuning chooses from, which may have been read from a file."""
    configurations = [str(one) for layer in _layers(place) for one in getattr(layer, "configs", ())]
    return " ".join(configurations)


def _layers(place: Any) -> list[Any]:
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

    found = [kernel_side_table.get_kernel(place)]
    while hasattr(found[-1], "fn"):
        found.append(found[-1].fn)
    return found


def _code(name: str, what: Any) -> str:
    """Return the digest of an operator's or kernel's code. Raises TrtgateError where there is none to be found."""
    if not isinstance(what, torch._ops.OpOverload):
        return function_code.digest([what])
    functions, files = operator_files.of(what._schema, name)
    return hashlib.sha256(f"{what._schema} {function_code.digest(functions, files)}".encode()).hexdigest()
