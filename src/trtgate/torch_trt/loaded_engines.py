"""A program that was loaded calls its engines as operators; to be profiled each engine is a submodule again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..common.errors import TrtgateError
from . import engine_sizes

OPERATOR = "execute_engine"


class LoadedEngine(torch.nn.Module):
    """An engine of the C++ runtime, with what `TorchTensorRTModule` offers of it."""

    def __init__(self, engine: Any, operator: Any) -> None:
        super().__init__()
        self.engine = engine
        self.serialized_engine = engine_sizes.serialized(engine)
        self._operator = operator

    def forward(self, *inputs: Any) -> Any:
        """Run it; returns its outputs."""
        return self._operator(list(inputs), self.engine)

    def enable_profiling(self, folder: str, profile_format: str) -> None:
        """Let each call write into `folder` what its layers take."""
        self.engine.profile_path_prefix = folder
        self.engine.enable_profiling()
        self.engine.set_profile_format(profile_format)

    def get_layer_info(self) -> str:
        """Return what TensorRT's inspector says."""
        return str(self.engine.get_engine_layer_info())


def make_submodules(program: Any, names: Sequence[str]) -> None:
    """Change a loaded program in place: the engine that is called first becomes the submodule of the first name, …

    Raises TrtgateError, and changes nothing, where it has not so many engines of the C++ runtime.
    """
    graph = getattr(program, "graph", None)
    calls = [node for node in graph.nodes if _calls_an_engine(node)] if graph is not None else []
    engines = [vars(program).get(node.args[1].target) for node in calls]
    if len(calls) != len(names) or not all(isinstance(engine, torch.ScriptObject) for engine in engines):
        raise TrtgateError(f"{len(names)} engines were built, and the loaded program calls {len(calls)}")
    fetched = {node.args[1] for node in calls}
    for node, name, engine in zip(calls, names, engines, strict=True):
        program.add_submodule(name, LoadedEngine(engine, node.target))
        with program.graph.inserting_before(node):
            called = program.graph.call_module(name, tuple(node.args[0]))
        node.replace_all_uses_with(called)
        program.graph.erase_node(node)
    for node in fetched:
        program.graph.erase_node(node)
        delattr(program, node.target)  # else it is counted twice
    program.recompile()


def _calls_an_engine(node: Any) -> bool:
    return (
        node.op == "call_function"
        and OPERATOR in str(node.target)
        and len(node.args) > 1
        and getattr(node.args[1], "op", "") == "get_attr"
    )
