"""A module that is right when it is built may be wrong from another thread, with other values, or loaded elsewhere."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.common.errors import TrtgateError
from trtgate.compiling import building, lifecycle
from trtgate.compiling.inference import Inference
from trtgate.compiling.reference import Reference
from trtgate.frontends import CompiledModule
from trtgate.timing.run_state import RunState

from .in_process import InProcess

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


def ways(module: Callable[[], torch.nn.Module], inputs: Any, run: Callable[..., Any] | None = None) -> dict[str, str]:
    """Check what was compiled of a module, by default the module itself; returns in which ways, and why not in others.

    `others` is the path of a reason.
    """
    case = Case(Model("m", lambda: (module().eval(), inputs), ()), Settings(frontend="eager"))
    made = Reference(case, "cpu", quiet)
    return lifecycle.check(made, Inference(CompiledModule(run or made.module, 0.0), made.inputs)).ways


def check(run: Callable[[Any], Any], module: type[torch.nn.Module] = Double) -> None:
    ways(module, torch.arange(1.0, 5.0), run)


IN_A_THREAD = "called from a second thread"
WITH_OTHERS = "called with inputs of other values"
AS_A_GRAPH = "replayed as a CUDA graph with inputs of other values"


def test_a_right_module_passes_and_what_was_not_checked_is_said_with_its_reason() -> None:
    found = ways(Double, torch.arange(1.0, 5.0))
    assert (found[IN_A_THREAD], found[WITH_OTHERS]) == ("", "")
    assert found[AS_A_GRAPH] == "it runs on a CPU"


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


# Inputs of other values


class Embedded(torch.nn.Module):
    """Tokens, of which as many count as `lengths` says, where the mask allows it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(40, 8)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1])
        scores = self.words(tokens).sum(-1).masked_fill(places[None] >= lengths[:, None], -torch.inf)
        return (scores + allowed).softmax(-1)


TOKENS = torch.arange(12).view(2, 6) * 3
LENGTHS = torch.tensor([6, 2])
BIAS = torch.zeros(2, 6).masked_fill(torch.arange(6) == 5, -torch.inf)


def only_when(holds: Callable[[torch.Tensor], bool]) -> type[torch.nn.Module]:
    """Return a module that raises for inputs of which something does not hold."""

    class Only(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert holds(x), "no such input"
            return x * 2

    return Only


VALID = [
    pytest.param(Embedded, (TOKENS, LENGTHS, BIAS), id="tokens, lengths and a mask"),
    pytest.param(only_when(lambda x: bool((x > 0).all())), torch.rand(4) + 0.1, id="positive"),
    pytest.param(only_when(lambda x: bool((x <= 1).all())), torch.rand(4), id="at most 1"),
    pytest.param(only_when(lambda x: bool((x.diff() >= 0).all())), torch.arange(4.0), id="sorted"),
    pytest.param(only_when(lambda x: bool((x.sum(1) == 6).all())), torch.tensor([[1, 2, 3], [4, 1, 1]]), id="rows"),
    pytest.param(only_when(lambda x: bool((x == x[0]).all())), torch.ones(1), id="a constant"),
    pytest.param(only_when(lambda x: bool(torch.isfinite(x).all())), torch.zeros(2, 3), id="zeros"),
    pytest.param(only_when(lambda x: x.dtype == torch.bool), torch.tensor([True, False, False]), id="booleans"),
    pytest.param(only_when(torch.is_complex), torch.complex(torch.rand(3), torch.rand(3)), id="complex"),
]


@pytest.mark.parametrize(("module", "inputs"), VALID)
def test_other_values_are_ones_that_the_model_takes(module: Any, inputs: Any) -> None:
    assert ways(module, inputs)[WITH_OTHERS] == ""


@pytest.mark.parametrize(("module", "inputs"), VALID)
def test_other_values_are_others(module: Any, inputs: Any) -> None:
    own = inputs if isinstance(inputs, tuple) else (inputs,)
    with torch.no_grad():
        baked = module()(*own)
    with pytest.raises(TrtgateError, match="called with inputs of other values, output differs"):
        ways(module, inputs, lambda *_inputs: baked)


def test_the_models_own_samples_go_before_what_is_drawn() -> None:
    def samples(count: int, _seed: int) -> Any:
        return (torch.full((1, 3), 7.0) for _ in range(count))

    seen = []

    class Keeps(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    def run(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.max())
        return x * 2

    model = Model("m", lambda: (Keeps(), torch.rand(1, 3)), (), samples=samples)
    made = Reference(Case(model, Settings(frontend="eager")), "cpu", quiet)
    assert lifecycle.check(made, Inference(CompiledModule(run, 0.0), made.inputs)).ways[WITH_OTHERS] == ""
    assert 7.0 in seen


def test_that_eager_takes_no_other_values_is_said() -> None:
    example = torch.tensor([2.0, 1.0, 3.0])
    found = ways(only_when(lambda x: torch.equal(x, example)), example)
    assert found[WITH_OTHERS] == "eager takes none of those that were tried: AssertionError: no such input"
    assert found[AS_A_GRAPH]


def test_that_eager_gives_the_same_for_all_values_is_said() -> None:
    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(x)

    assert "eager's output stays within its tolerance with those that" in ways(Constant, torch.rand(3))[WITH_OTHERS]


# Threads


class Local(torch.nn.Module):
    """Keeps something for each thread, as a thread that did not make it can't know."""

    def __init__(self, *, falls_back: bool) -> None:
        super().__init__()
        self.of_thread = threading.local()
        self.of_thread.scale = 2.0
        self.falls_back = falls_back

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = getattr(self.of_thread, "scale", 3.0) if self.falls_back else self.of_thread.scale
        return x * scale


def test_what_fails_in_a_thread_in_eager_too_is_no_fault_and_is_said() -> None:
    found = ways(lambda: Local(falls_back=False), torch.rand(3))
    assert found[IN_A_THREAD].startswith("eager fails there too: AttributeError")


def test_what_is_another_in_a_thread_is_compared_with_what_it_is_there_in_eager() -> None:
    assert ways(lambda: Local(falls_back=True), torch.rand(3))[IN_A_THREAD] == ""
    with pytest.raises(TrtgateError, match="called from a second thread, output differs"):
        ways(lambda: Local(falls_back=True), torch.rand(3), lambda x: x * 2)


# Refitted: with a scripted release, since TensorRT needs a GPU


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = torch.nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return self.a(x) * self.calls


REFITTED = "refitted with other weights"


def refit(release: Any, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> dict[str, str]:
    monkeypatch.setattr(lifecycle.refitting, "refitted", release)
    own = {"frontend": "dynamo", "options": {"immutable_weights": False}, **settings}
    made = Reference(Case(Model("m", lambda: (Net().eval(), torch.rand(2, 4)), ()), Settings(**own)), "cpu", quiet)
    run = copy.deepcopy(made.module)
    state = RunState((run,), made.inputs)
    return lifecycle.check(made, Inference(CompiledModule(run, 0.0), made.inputs, state, ("calls",))).ways


def test_a_refitted_module_has_the_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def release(compiled: Any, module: Any, _inputs: Any, settings: Settings, _dynamic: Any) -> torch.nn.Module:
        assert not settings.options["immutable_weights"]
        assert not torch.equal(compiled.a.weight, module.a.weight)
        assert module.calls == compiled.calls == 0
        return copy.deepcopy(module)

    assert refit(release, monkeypatch)[REFITTED] == ""


def test_one_that_keeps_its_weights_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrtgateError, match=r"case m-dynamo-.*: refitted with other weights, output differs from eager"):
        refit(lambda compiled, *_: copy.deepcopy(compiled), monkeypatch)


def test_a_release_that_can_not_is_no_fault_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def release(*_: Any) -> Any:
        raise AssertionError("Fast refitting failed due to incomplete mapping")

    said = "the release can't: AssertionError: Fast refitting failed due to incomplete mapping"
    assert refit(release, monkeypatch)[REFITTED] == said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"options": {}}, "not refittable: its engines are built with immutable_weights"),
        ({"options": {"immutable_weights": True}}, "not refittable: its engines are built with immutable_weights"),
        ({"frontend": "torch_compile"}, "not refittable: torch_compile makes no engines that can be"),
    ],
)
def test_engines_that_are_not_made_for_it_are_not_refitted(
    settings: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refit(None, monkeypatch, **settings)[REFITTED] == said


# What is said of it


def test_a_build_remembers_in_which_ways_its_module_was_compared() -> None:
    case = Case(Model("m", lambda: (Double(), torch.rand(3)), ()), Settings(frontend="eager"))
    made = Reference(case, "cpu", quiet)
    inference = made.build(*made.prepare(quiet), quiet)
    assert building.figures(inference, lifecycle.check(made, inference)).ways[AS_A_GRAPH] == "it runs on a CPU"
    assert building.figures(inference, made.check(inference)).ways == {}


def test_a_run_says_which_ways_were_checked_and_which_were_not_and_why(here: InProcess) -> None:
    status, said = here.run("suite.py", "-m", "trtgate_accuracy", "--trtgate-lifecycle", "-k", "alpha")
    assert status == pytest.ExitCode.OK
    assert (
        "alpha-eager-fp32-b1: checked: called from a second thread, called with inputs of other values; not checked: "
        "replayed as a CUDA graph with inputs of other values (it runs on a CPU), refitted with other weights "
        "(not refittable: eager makes no engines that can be), loaded in a fresh process (eager stores nothing), taken "
        "from the artifact cache (eager stores nothing)"
    ) in said
