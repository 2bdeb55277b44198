"""A module that is right when it is built may be wrong from another thread, with other values, or loaded elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.common.errors import TrtgateError
from trtgate.compiling import lifecycle
from trtgate.compiling.building import Inference
from trtgate.compiling.reference import Reference
from trtgate.frontends import CompiledModule

MAIN = threading.main_thread()


class Running(torch.nn.Module):
    """Its output depends on the calls before."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        return self.total * 2


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def quiet(_step: str) -> None: ...


def check(run: Callable[[Any], Any], module: type[torch.nn.Module] = Double) -> None:
    case = Case(Model("m", lambda: (module().eval(), torch.arange(1.0, 5.0)), ()), Settings(frontend="eager"))
    made = Reference(case, "cpu", quiet)
    lifecycle.check(made, Inference(CompiledModule(run, 0.0), made.inputs))


def test_a_right_module_passes() -> None:
    check(Double())


def test_a_right_module_that_keeps_state_passes() -> None:
    case = Case(Model("m", lambda: (Running().eval(), torch.arange(1.0, 5.0)), ()), Settings(frontend="eager"))
    made = Reference(case, "cpu", quiet)
    lifecycle.check(made, made.build(*made.prepare(quiet), quiet))


def test_one_that_is_wrong_in_a_thread_fails() -> None:
    with pytest.raises(TrtgateError, match=r"case m-eager-fp32: called from a second thread, output differs"):
        check(lambda x: x * (2 if threading.current_thread() is MAIN else 3))


def test_one_that_raises_in_a_thread_fails_as_itself() -> None:
    def run(x: torch.Tensor) -> torch.Tensor:
        if threading.current_thread() is not MAIN:
            raise RuntimeError("no context in this thread")
        return x * 2

    with pytest.raises(TrtgateError, match="called from a second thread, RuntimeError: no context in this thread"):
        check(run)


def test_one_that_computes_with_the_example_whatever_it_is_given_fails() -> None:
    baked = torch.arange(1.0, 5.0) * 2
    with pytest.raises(TrtgateError, match="called with inputs of other values, output differs"):
        check(lambda _x: baked)


def test_all_that_is_wrong_is_named() -> None:
    baked = torch.arange(1.0, 5.0) * 2
    with pytest.raises(TrtgateError, match=r"second thread, .*; called with inputs of other values, "):
        check(lambda _x: baked if threading.current_thread() is MAIN else baked * 2)
