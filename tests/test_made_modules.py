"""Modules that factories return: made in inference mode, lazy, scripted; each works, or one line says what to do."""

from __future__ import annotations

import functools
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.common.errors import TrtgateError
from trtgate.compiling import building, made_modules, reference
from trtgate.compiling.inference import Inference
from trtgate.suite.model_inputs import Inputs
from trtgate.torch_trt import exporting

ROW = torch.linspace(-1, 1, 8).view(2, 4)


class Counter(torch.nn.Module):
    """Keeps state, and something that can't be copied."""

    def __init__(self, lock: Any = None) -> None:
        super().__init__()
        self.lock = lock
        self.a = self.again = torch.nn.Linear(4, 4)
        self.register_buffer("total", torch.zeros(4))
        self.last = torch.zeros(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x.sum(0))
        self.last.add_(1)
        return self.again(self.a(x)) + self.total + self.last


def checked(
    module: Callable[[], torch.nn.Module], frontend: str = "eager", precision: str = "fp32", x: torch.Tensor = ROW
) -> Inference:
    def factory() -> Any:
        torch.manual_seed(0)
        return module(), x

    settings = Settings(frontend=frontend, precision=precision)
    return reference.checked(Case(Model("m", factory, ()), settings), "cpu", lambda _step: None)[0]


def in_inference_mode(module: Callable[[], torch.nn.Module]) -> Callable[[], torch.nn.Module]:
    @torch.inference_mode()
    def make() -> torch.nn.Module:
        return module()

    return make


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("frontend", ["eager", "aot_eager"])
@pytest.mark.parametrize("lock", [None, threading.Lock()], ids=["copied", "can't be copied"])
def test_a_module_made_in_inference_mode_is_one_like_any_other(frontend: str, precision: str, lock: Any) -> None:
    inference = checked(in_inference_mode(lambda: Counter(lock)), frontend, precision)
    assert set(inference.changes) == {"total", "last"}
    inference.restore()
    assert not inference().is_inference()


def test_weights_that_are_tied_stay_so() -> None:
    found = building.make(
        Case(
            Model("m", lambda: (in_inference_mode(lambda: Counter(threading.Lock()))(), ROW), ()),
            Settings(frontend="eager"),
        ),
        "cpu",
    )[0]
    assert found.a is found.again
    assert not any(value.is_inference() for value in (*found.parameters(), *found.buffers(), found.last))


class Lazy(torch.nn.Module):
    """Learns its shapes when it is first called, and counts calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.LazyLinear(8), torch.nn.LazyBatchNorm1d(), torch.nn.ReLU())
        self.first = self.layers[0]
        self.head = torch.nn.Linear(8, 2)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(self.layers(x)) * self.calls


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("frontend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("module", [Lazy, lambda: torch.nn.LazyLinear(8), lambda: torch.nn.LazyConv1d(3, 1)])
def test_lazy_modules_get_their_shapes_from_the_example(module: Any, frontend: str, precision: str) -> None:
    checked(module, frontend, precision, ROW.view(1, 2, 4) if module is not Lazy else ROW)


def test_the_call_that_gives_shapes_changes_nothing_else() -> None:
    assert checked(Lazy)().tolist() == checked(Lazy)().tolist()
    found = building.make(Case(Model("m", lambda: (Lazy(), ROW), ()), Settings(frontend="eager")), "cpu")[0]
    assert found.calls == 0
    assert found.first is found.layers[0]
    assert found.first.weight.shape == (8, 4)


class Unreached(torch.nn.Module):
    def __init__(self, *, raises: bool) -> None:
        super().__init__()
        self.head = torch.nn.LazyLinear(8)
        self.raises = raises

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.raises, "no luck"
        return x


@pytest.mark.parametrize(
    ("raises", "said"),
    [
        (
            True,
            r"^model 'm': its lazy modules \(head\) get their shapes from a call, which raised AssertionError: no luck",
        ),
        (False, r"^model 'm': head\.weight has no shape after a call with the example inputs: call it in the factory"),
    ],
)
def test_a_lazy_module_that_gets_no_shape_is_named(raises: bool, said: str) -> None:
    with pytest.raises(TrtgateError, match=said):
        checked(lambda: Unreached(raises=raises))


def scripted() -> torch.nn.Module:
    return torch.jit.script(Counter())


SCRIPTED = [
    pytest.param(lambda: torch.jit.script(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())), id="scripted"),
    pytest.param(lambda: torch.jit.trace(torch.nn.Linear(4, 4).eval(), ROW), id="traced"),
    pytest.param(lambda: torch.nn.Sequential(torch.jit.script(torch.nn.Linear(4, 4)), torch.nn.ReLU()), id="inside"),
    pytest.param(in_inference_mode(lambda: torch.jit.script(torch.nn.Linear(4, 4))), id="in inference mode"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("module", SCRIPTED)
def test_scripted_modules_run_in_eager(module: Any, precision: str) -> None:
    assert checked(module, "eager", precision)().dtype == getattr(
        torch, {"fp32": "float32", "bf16": "bfloat16"}[precision]
    )


def test_a_frozen_module_has_its_weights_in_its_code() -> None:
    def frozen() -> torch.nn.Module:
        return torch.jit.freeze(torch.jit.script(torch.nn.Linear(4, 4).eval()))

    checked(frozen)
    with pytest.raises(TrtgateError, match="model 'm': eager can't run its own example inputs"):
        checked(frozen, precision="bf16")


def test_buffers_of_a_scripted_module_are_put_back() -> None:
    class Total(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("total", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.total.add_(x.sum(0))
            return x + self.total

    assert checked(lambda: torch.jit.script(Total())).changes == ("total",)


@pytest.mark.parametrize("frontend", ["aot_eager", "inductor", "torch_compile", "dynamo"])
def test_what_can_not_take_a_scripted_module_says_so_and_what_to_do(frontend: str) -> None:
    with pytest.raises(TrtgateError) as found:
        checked(SCRIPTED[0].values[0], frontend)  # type: ignore[arg-type]
    assert str(found.value) == (
        f"model 'm': its factory returns a RecursiveScriptModule, which {frontend} can't compile: return the module "
        "that it was made from, or take the frontend eager, ts_trace or ts_script (docs: model-unusable)"
    )


def test_a_scripted_part_that_export_can_not_look_into_is_named() -> None:
    with pytest.raises(TrtgateError, match="its submodule 0 is a RecursiveScriptModule: let the factory put in the mo"):
        exporting.export(SCRIPTED[2].values[0](), Inputs((ROW,)), Settings(frontend="dynamo"))  # type: ignore[operator]


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("around", [lambda module: module, torch.nn.Sequential])
def test_the_module_of_a_program_refuses_eval_and_is_a_module_all_the_same(around: Any, copied: bool) -> None:
    module = around(torch.export.export(torch.nn.Linear(4, 4), (ROW,)).module())
    found = building.make(Case(Model("m", lambda: (module, ROW), ()), Settings(frontend="eager")), "cpu", copied=copied)
    assert not any(one.requires_grad for one in found[0].parameters())
    assert torch.equal(found[1].call(found[0]), module(ROW))


@pytest.mark.parametrize("lock", [None, threading.Lock()], ids=["copied", "can't be copied"])
def test_a_module_at_the_top_of_a_suite_is_after_a_dry_run_as_it_was_made(lock: Any) -> None:
    last = torch.nn.LazyLinear(2) if lock is None else torch.nn.Linear(4, 2)
    module = torch.nn.Sequential(Counter(lock), last, torch.nn.BatchNorm1d(2))
    weight, before = module[0].a.weight.detach().clone(), dict(module[0]._buffers)
    for precision in ("bf16", "as_is"):
        building.end_case()
        settings = Settings(frontend="eager", precision=precision)
        found = building.make(Case(Model("m", lambda: (module, ROW), ()), settings), "cpu", copied=False)[0]
        assert found is module
        assert found[0].a.weight.dtype == {"bf16": torch.bfloat16, "as_is": torch.float32}[precision]
        assert not found.training
    building.end_case()
    assert torch.equal(module[0].a.weight, weight)
    assert module[0].a.weight.requires_grad
    assert module[0]._buffers == before
    assert module[0].a is module[0].again
    assert module.training
    assert module[1] is last
    assert type(last) is (torch.nn.LazyLinear if lock is None else torch.nn.Linear)


def test_one_that_can_not_be_copied_is_for_one_precision() -> None:
    """The next would get what the first was cast to."""
    module = Counter(threading.Lock())
    for _ in range(2):
        checked(lambda: module, precision="bf16")
    with pytest.raises(
        TrtgateError, match=r"^model 'm': its factory returns one Counter each time, which can't be cop"
    ):
        checked(lambda: module, precision="as_is")
    checked(lambda: Counter(threading.Lock()), precision="as_is")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_module_whose_forward_was_replaced_by_a_closure_over_it_computes_with_its_own_weights(precision: str) -> None:
    """A copy would have the closure, and the closure the weights of the first, of another precision or device."""

    def wrapped() -> torch.nn.Module:
        module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
        forward = module[0].forward
        module[0].forward = lambda x: forward(x) * 2
        return module

    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert checked(wrapped, precision=precision)().dtype is wanted


class Extractor(torch.nn.Module):
    """Returns what a function put where only the function and the module itself look, or what it has of the module."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.a = torch.nn.Linear(4, 4)
        self.kept = kept = {"a": torch.empty(0)}
        weight = self.a.weight

        def of_module(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            self.kept["a"] = output

        def of_dict(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            kept["a"] = output

        def of_weight(x: torch.Tensor) -> torch.Tensor:
            return x @ weight

        def of_object(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            store.a = output

        self.store = store = types.SimpleNamespace(a=torch.empty(0))
        bound = functools.partial(Extractor.keep, self)
        hooks = {"module": of_module, "dict": of_dict, "object": of_object, "bound": bound}
        if how in hooks:
            self.a.register_forward_hook(hooks[how])
        self.functions = [of_weight] if how == "weight" else []
        self.of_store = how == "object"

    def keep(self, _module: Any, _inputs: Any, output: torch.Tensor) -> None:
        self.kept["a"] = output

    def forward(self, x: torch.Tensor) -> Any:
        if self.functions:
            return self.functions[0](x)
        return self.a(x), self.store.a if self.of_store else self.kept["a"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("how", ["module", "dict", "object", "bound", "weight"])
def test_hooks_and_functions_in_lists_look_at_the_module_that_is_called(how: str, precision: str) -> None:
    """Those of a copy would look at the first: its outputs would be empty, in eager as well, and prove nothing."""
    found = checked(lambda: Extractor(how), precision=precision)()
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    for output in found if isinstance(found, tuple) else [found]:
        assert (output.shape, output.dtype) == ((2, 4), wanted)


class Configured(torch.nn.Module):
    """A function of it reads the object that it holds, too."""

    def __init__(self) -> None:
        super().__init__()
        self.config = config = types.SimpleNamespace(scale=2.0)
        self.scaled = lambda x: x * config.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scaled(x)


def test_a_module_whose_functions_read_its_configuration_is_copied() -> None:
    module = Configured()
    for precision in ("bf16", "fp32"):
        checked(lambda: module, precision=precision)
    assert made_modules.copied(module) is not module


class Child(torch.nn.Module):
    """Asks the module that holds it for a weight, as adapters do."""

    def __init__(self, parent: torch.nn.Module) -> None:
        super().__init__()
        self.parent = weakref.ref(parent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.parent().weight.t()


class Parent(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 4, bias=False)
        self.child = Child(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.child(x)


def test_a_part_that_refers_weakly_to_its_module_refers_to_the_copy() -> None:
    made = Parent()
    copied = made_modules.copied(made)
    assert copied.child.parent() is copied
    assert made.child.parent() is made
    torch.nn.init.zeros_(made.weight)
    assert copied(torch.ones(1, 4)).abs().sum() > 0


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)), "in training mode (1), and eval mode is"),
        (torch.nn.Sequential(torch.nn.Linear(4, 4).eval(), torch.nn.Dropout(0.5)), "in training mode (1), and eval"),
        (torch.nn.Dropout(0.5), "in training mode (itself), and eval mode is measured"),
        (torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.0), torch.nn.LayerNorm(4)), ""),
        (torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)).eval(), ""),
    ],
)
def test_parts_that_were_left_in_training_mode_are_told(module: torch.nn.Module, said: str) -> None:
    remarks: list[str] = []
    building.make(Case(Model("m", lambda: (module, ROW), ()), Settings(frontend="eager")), "cpu", remarks=remarks)
    assert [said in one for one in remarks] == [True] * bool(said)


class Scaled(torch.nn.Linear):
    """Keeps a tensor that was computed from its weights."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.norm = self.weight.norm()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / self.norm


@pytest.mark.filterwarnings("ignore:.*weight_norm")
@pytest.mark.parametrize("module", [Scaled, lambda: torch.nn.utils.weight_norm(torch.nn.Linear(4, 4))])
def test_a_tensor_computed_from_weights_can_be_copied(module: Callable[[], torch.nn.Module]) -> None:
    made = module()
    wanted = made(ROW)
    copied = made_modules.copied(made)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(1.0)
    torch.testing.assert_close(copied(ROW), wanted)
    for precision in ("fp32", "as_is"):  # one module for both
        checked(lambda: made, precision=precision)
