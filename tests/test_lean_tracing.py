"""Exporting without work whose result nobody reads: what is read is as ever, within and afterwards."""

from __future__ import annotations

import contextlib
import copy
import gc
import operator
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import fx, nn

from trtgate.torch_trt import lean_tracing

X = torch.arange(4.0)
DOUBLED = X * 2


class Sum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 2


def doubling() -> fx.GraphModule:
    """Return a graph that was traced from a sum, and made a product."""
    module = fx.symbolic_trace(Sum())
    for node in module.graph.nodes:
        if node.target is operator.add:
            node.target = operator.mul
    module.recompile()
    return module


READERS: dict[str, Callable[[fx.GraphModule], Any]] = {
    "called": lambda module: module(X),
    "its forward": lambda module: module.forward(X),
    "its class's forward": lambda module: type(module).forward(module, X),
    "traced anew": lambda module: fx.symbolic_trace(module)(X),
    "its code": lambda module: DOUBLED if "x * 2" in module.code else None,
    "its text": lambda module: DOUBLED if "x * 2" in str(module) else None,
    "copied": lambda module: copy.copy(module)(X),
    "copied deeply": lambda module: copy.deepcopy(module)(X),
    "pickled": lambda module: pickle.loads(pickle.dumps(module))(X),
    "exported": lambda module: torch.export.export(module, (X,)).module()(X),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("within", [True, False], ids=["within", "afterwards"])
def test_a_graph_that_changed_is_read_as_it_is(read: Callable[[fx.GraphModule], Any], within: bool) -> None:
    with lean_tracing.lean():
        module = doubling()
        found = read(module) if within else None
    assert torch.equal(found if within else read(module), DOUBLED)


def test_code_is_generated_when_a_graph_is_read_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generated: list[fx.Graph] = []
    generate = fx.Graph.python_code

    def noted(graph: fx.Graph, *arguments: Any, **keywords: Any) -> Any:
        generated.append(graph)
        return generate(graph, *arguments, **keywords)

    with lean_tracing.lean():
        monkeypatch.setattr(fx.Graph, "python_code", noted)
        module = doubling()
        module.recompile()
        assert generated == []
        assert torch.equal(module(X), module(X))
    assert generated == [module.graph]
    module.recompile()
    assert len(generated) == 2, "outside, it is as ever"


def test_a_graph_module_that_is_gone_is_not_kept() -> None:
    with lean_tracing.lean():
        made = type(doubling())
    gc.collect()
    with pytest.raises(AttributeError, match="its graph module is gone"):
        _ = made.forward


def test_a_program_that_was_exported_within_runs_afterwards() -> None:
    with lean_tracing.lean():
        program = torch.export.export(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval(), (X.reshape(1, 4),))
        decomposed = program.run_decompositions()
    expected = program.module()(X.reshape(1, 4))
    torch.testing.assert_close(decomposed.module()(X.reshape(1, 4)), expected)
    assert "torch.ops.aten.linear" in program.graph_module.code
    assert "batch_norm" in decomposed.graph_module.code


def test_each_registry_is_validated_once_and_a_broken_one_is_refused() -> None:
    class Registry:
        def __init__(self, valid: bool) -> None:
            self.valid = valid
            self.looks = 0

        def validate_invariants(self) -> None:
            self.looks += 1
            assert self.valid

    good, broken = Registry(True), Registry(False)
    with lean_tracing._registry_validated_once(Registry):
        for _ in range(3):
            good.validate_invariants()
            with pytest.raises(AssertionError):
                broken.validate_invariants()
    assert (good.looks, broken.looks) == (1, 3)


def test_composite_operators_are_those_of_torch_and_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._export import utils
    from torch.export import exported_program

    usual = exported_program._collect_all_valid_cia_ops()
    looks: list[None] = []
    listed = utils._materialize_cpp_cia_ops
    monkeypatch.setattr(utils, "_materialize_cpp_cia_ops", lambda: looks.append(listed()))
    with lean_tracing.lean():
        assert exported_program._collect_all_valid_cia_ops() == usual
    assert len(looks) == 1


def test_the_stack_of_a_node_is_as_ever() -> None:
    def stacks() -> list[str]:
        graph = torch.export.export(Sum(), (X,)).graph
        return [node.stack_trace or "" for node in graph.nodes]

    usual = stacks()
    with lean_tracing.lean():
        assert stacks() == usual
    assert any("return x + 2" in stack for stack in usual)


@pytest.mark.parametrize("within", [True, False], ids=["within", "afterwards"])
def test_within_itself_it_changes_nothing_more(within: bool) -> None:
    with lean_tracing.lean():
        with lean_tracing.lean():
            module = doubling()
        found = module(X) if within else None
    assert torch.equal(found if within else module(X), DOUBLED)


def patched() -> tuple[Any, ...]:
    from torch._export import utils
    from torch.export import exported_program
    from torch.utils import _traceback

    return (
        fx.GraphModule.recompile, exported_program._collect_all_valid_cia_ops, utils._materialize_cpp_cia_ops,
        _traceback._extract_symbolized_tb, gc.isenabled(),
    )  # fmt: skip


def test_all_is_put_back_however_threads_overlap_and_whatever_is_raised() -> None:
    usual, entered, left = patched(), threading.Event(), threading.Event()

    def first() -> None:
        with lean_tracing.lean():
            entered.set()
            assert left.wait(60)

    with ThreadPoolExecutor(1) as threads:
        began = threads.submit(first)
        assert entered.wait(60)
        with lean_tracing.lean():
            left.set()
            began.result(60)
            assert torch.equal(doubling()(X), DOUBLED)
            assert fx.GraphModule.recompile is not usual[0], "one of them is still at it"
    assert patched() == usual
    with contextlib.suppress(ValueError), lean_tracing.lean(), lean_tracing.lean():
        raise ValueError
    assert patched() == usual


def test_threads_that_call_a_graph_for_the_first_time_find_it_there() -> None:
    at_once = threading.Barrier(4)
    with lean_tracing.lean():
        modules = [doubling() for _ in range(25)]

    def call_all(_number: int) -> bool:
        found = []
        for module in modules:
            at_once.wait(60)
            found.append(torch.equal(module(X), DOUBLED))
        return all(found)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(call_all, range(4)))
