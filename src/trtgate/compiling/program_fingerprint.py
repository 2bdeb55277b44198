"""What an exported program is, as a hash: its graphs, its signature, and every byte of its weights and constants."""

from __future__ import annotations

import hashlib
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch


def of_program(program: torch.export.ExportedProgram) -> str:
    """Return a SHA-256 that two programs share only if they compute the same with the same weights.

    Names of modules and nodes are in it, since a compiled module keeps them; where a line stands in a file is not.
    Raises NotImplementedError or RuntimeError for a tensor whose bytes can't be read, such as a sparse one.
    """
    found = hashlib.sha256()
    for name, module in program.graph_module.named_modules():
        if isinstance(module, torch.fx.GraphModule):
            _feed(found, "graph", name)
            for node in module.graph.nodes:
                _feed(found, node.op, node.name, _target(node.target), repr(node.args), repr(sorted(_items(node))))
                _feed(found, repr(_origin(node)), repr(_value(node.meta.get("val"))))
    _feed(found, repr(program.graph_signature), repr(program.range_constraints))
    for entry in program.module_call_graph:  # how inputs and output are nested, and in which classes
        if entry.signature is not None:
            _feed(found, entry.fqn, repr(entry.signature.in_spec), repr(entry.signature.out_spec))
    for kind, tensors in (("state", program.state_dict), ("constant", program.constants)):
        for name, tensor in sorted(tensors.items()):
            _feed(found, kind, name)
            _feed_value(found, tensor)
    return found.hexdigest()


def _feed(found: Any, *texts: str) -> None:
    for text in texts:
        encoded = text.encode()
        found.update(len(encoded).to_bytes(8, "little"))
        found.update(encoded)


def _feed_value(found: Any, value: Any) -> None:
    if not isinstance(value, torch.Tensor):
        raise NotImplementedError(f"a constant of type {type(value).__name__}")
    _feed(found, repr(_value(value)))
    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    found.update(memoryview(flat.numpy()))


def _items(node: torch.fx.Node) -> list[tuple[str, str]]:
    return [(name, repr(value)) for name, value in node.kwargs.items()]


def _target(target: Any) -> str:
    if isinstance(target, FunctionType | BuiltinFunctionType):
        return f"{target.__module__}.{target.__qualname__}"
    return str(target)


def _origin(node: torch.fx.Node) -> list[tuple[str, str]]:
    """Return the modules that a node stems from, as (path, class)."""
    stack = node.meta.get("nn_module_stack") or {}
    return [(str(path), str(kind)) for path, kind in stack.values()]


def _value(value: Any) -> Any:
    """Return what a tensor is without what is in it; of anything else its text."""
    if isinstance(value, list | tuple):
        return [_value(one) for one in value]
    if not isinstance(value, torch.Tensor):
        return repr(value)
    return [str(value.dtype), str(value.device), str(tuple(value.shape)), str(value.stride()), value.requires_grad]
