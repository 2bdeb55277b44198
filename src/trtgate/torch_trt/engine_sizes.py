"""How large the TensorRT engines of a callable are, wherever it holds them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any


def of(compiled: Any) -> list[int]:
    """Return the serialized size of each engine, in bytes; none where none can be seen.

    Looked into are modules with all submodules, TorchScript, and the modules that a bound method, a closure or an
    object holds. What torch.compile built is held by Dynamo, and not seen.
    """
    import torch

    return [
        size
        for module in modules_of(compiled)
        for size in (_of_script(module) if isinstance(module, torch.jit.ScriptModule) else _of_module(module))
    ]


def modules_of(compiled: Any) -> list[Any]:
    """Return a module, or those that a method, a closure or an object holds."""
    import torch

    return [compiled] if isinstance(compiled, torch.nn.Module) else _held_by(compiled)


def _of_module(module: Any) -> Iterator[int]:
    """Yield the size of what each submodule holds: an engine as bytes, or, in a loaded program, as an object."""
    import torch

    for part in module.modules():
        serialized = getattr(part, "serialized_engine", None)
        if isinstance(serialized, bytes | bytearray):
            yield len(serialized)
            continue
        for value in vars(part).values():
            if isinstance(value, torch.ScriptObject) and "tensorrt.Engine" in str(value._type()):
                yield _of_object(value)


def _of_script(module: Any) -> Iterator[int]:
    """Yield the size of each engine that a TorchScript module's graph fetches."""
    for node in module.graph.findAllNodes("prim::GetAttr"):
        if "tensorrt.Engine" in str(node.output().type()):
            yield _of_object(getattr(module, node.s("name")))


def serialized(engine: Any) -> bytes:
    """Return an engine of the C++ runtime in its serialized form: it is the longest text of its state."""
    return max(map(_decoded, _texts(engine.__getstate__())), key=len)


def _of_object(engine: Any) -> int:
    return len(serialized(engine))


def _texts(state: Any) -> Iterator[str | bytes]:
    if isinstance(state, str | bytes):
        yield state
    elif isinstance(state, list | tuple):
        for part in state:
            yield from _texts(part)


def _decoded(text: str | bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode(errors="surrogateescape") if isinstance(text, str) else text


def _held_by(function: Any) -> list[Any]:
    """Return the modules that a method is bound to, that a function closes over, or that are an object's fields."""
    import torch

    held = [getattr(function, "__self__", None), *vars(function).values()] if hasattr(function, "__dict__") else []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # nothing is in it yet
            continue
    distinct = {id(one): one for one in held if isinstance(one, torch.nn.Module)}
    return list(distinct.values())
