"""The code of custom operators and Triton kernels in a program: its graph calls them by name, and shows no more."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS

from ..common.errors import TrtgateError
from . import function_code, native_files
from .imported_files import INSTALLED

UPSTREAM = frozenset(
    "aten prim prims quantized c10d _c10d_functional inductor higher_order profiler tensorrt debugprims rngprims "
    "sparse mkldnn mkl onednn xnnpack".split()
)
"""Namespaces of operators that change with an installed version only."""
REGISTERED = re.compile(r"registered at (.+?):\d+")
UNKNOWN = re.compile(r"^(?!debug|Meta|Autograd)\w+(\[alias\])?: registered at \S*/torch/library\.py:", re.MULTILINE)
"""A kernel given to `torch.library.impl`: a function of Python, and torch keeps no record of where it is from."""
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
            target.namespace not in UPSTREAM or _registering(_qualified(target))
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
    functions, files = _functions(what._schema.name), _registering(_qualified(what))
    if UNKNOWN.search(torch._C._dispatch_dump(_qualified(what))):
        raise TrtgateError(
            f"the code of its operator {name} is not to be found: write torch.library.custom_op, triton_op or "
            "register_kernel, or Library.impl, instead of torch.library.impl"
        )
    native = [] if (functions or files) and all(file.suffix == ".py" for file in files) else native_files.loaded()
    if not functions and not native and not files:
        raise TrtgateError(f"the code of its operator {name} is not to be found")
    return hashlib.sha256(f"{what._schema} {function_code.digest(functions, [*files, *native])}".encode()).hexdigest()


def _qualified(target: torch._ops.OpOverload) -> str:
    schema = target._schema
    return f"{schema.name}.{schema.overload_name}" if schema.overload_name else str(schema.name)


def _registering(qualified: str) -> list[Path]:
    """Return the files of a user's own in which an operator is registered, of Python or C++."""
    places = REGISTERED.findall(torch._C._dispatch_dump(qualified))
    return [Path(place) for place in dict.fromkeys(places) if not place.startswith(INSTALLED) and Path(place).is_file()]


def _functions(qualified: str) -> list[Any]:
    """Return the Python functions of an operator made with `torch.library.custom_op` or `triton_op`."""
    made = OPDEFS.get(qualified)
    if made is None:
        return []
    return [made._init_fn, *made._backend_fns.values(), *(one for one in (made._abstract_fn,) if one is not None)]
