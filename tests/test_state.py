"""Models that change themselves or their inputs: what eager does first and second, a right module does too."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import logging
import math
import threading
import types
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.common.errors import TrtgateError
from trtgate.compiling import output_leaves, reference
from trtgate.compiling.inference import Inference
from trtgate.compiling.output_leaves import Leaf
from trtgate.compiling.reference import Reference
from trtgate.frontends import CompiledModule
from trtgate.suite.model_inputs import Inputs
from trtgate.timing.run_state import RunState, seeded


class Cache(torch.nn.Module):
    """A step of a decoder with a cache in a buffer, written `how`."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.q = torch.nn.Linear(16, 16)
        self.register_buffer("k", torch.zeros(1, 8, 16))
        self.register_buffer("at", torch.zeros(1, dtype=torch.long))
        self.how = how

    def forward(self, x: torch.Tensor) -> Any:
        q = self.q(x)
        if self.how == "bound anew":
            self.k = torch.cat([self.k[:, 1:], q], 1)
        elif self.how == "index":
            self.k.index_copy_(1, self.at, q)
        else:
            self.k.copy_(torch.cat([self.k[:, 1:], q], 1))
        y = torch.softmax(q @ self.k.transpose(1, 2), -1) @ self.k
        return (y, self.k) if self.how == "returned" else y


class Counter(torch.nn.Module):
    """Streaming: a running mean, a number of calls, and a list of what came."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))
        self.calls = 0
        self.past: list[torch.Tensor] = []
        self.last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean.mul_(0.9).add_(x.mean(0), alpha=0.1)
        self.calls += 1
        self.past.append(x.abs().sum())
        self.last = x if self.last is None else self.last + x
        return x * self.calls - self.mean + sum(self.past) + self.last


class EverySecond(torch.nn.Module):
    """Writes its mean, and to its input, at every second call only."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        self.calls += 1
        second = self.calls % 2 == 0
        self.mean.copy_(torch.where(second, x.mean(0), self.mean))
        x.copy_(torch.where(second, x * 0.5, x))
        return y


class Inplace(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sub_(0.5).div_(0.25) * 2


class Noise(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


def case(module: Callable[[], torch.nn.Module], x: torch.Tensor, frontend: str = "eager") -> Case:
    def factory() -> Any:
        torch.manual_seed(0)
        return module().eval(), x.clone()

    return Case(Model("m", factory, ()), Settings(frontend=frontend))


def quiet(_step: str) -> None: ...


ROW, STEP = torch.linspace(-1, 1, 64).view(4, 16), torch.linspace(-1, 1, 16).view(1, 1, 16)
STATEFUL = [
    pytest.param(lambda: Cache("copied back"), STEP, {"k"}, id="cache"),
    pytest.param(lambda: Cache("bound anew"), STEP, {"k"}, id="cache-bound"),
    pytest.param(lambda: Cache("index"), STEP, {"k"}, id="cache-index"),
    pytest.param(lambda: Cache("returned"), STEP, {"k"}, id="cache-returned"),
    pytest.param(Counter, ROW, {"mean", "calls", "past", "last"}, id="counter"),
    pytest.param(EverySecond, ROW, {"calls", "mean", "input 0"}, id="every-second"),
    pytest.param(Inplace, ROW, {"input 0"}, id="inplace"),
]


@pytest.mark.parametrize("frontend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize(("module", "x", "changes"), STATEFUL)
def test_a_model_that_changes_itself_or_its_input_is_right_against_itself(
    module: Any, x: torch.Tensor, changes: set[str], frontend: str
) -> None:
    inference, build = reference.checked(case(module, x, frontend), "cpu", quiet)
    assert set(inference.changes) == changes
    assert build.leaf_error < 1e-5


def test_what_calls_change_is_put_back() -> None:
    inference, _ = reference.checked(case(Counter, ROW), "cpu", quiet)
    first = inference()
    assert not torch.equal(inference(), first)
    inference.restore()
    torch.testing.assert_close(inference(), first)


def test_a_module_that_forgets_its_state_is_wrong_at_the_second_call() -> None:
    made = Reference(case(lambda: Cache("copied back"), STEP), "cpu", quiet)
    whole = RunState((made.module,), made.inputs)

    def forgets(x: torch.Tensor) -> Any:
        whole.restore((x,))
        return made.module(x)

    with pytest.raises(TrtgateError, match="called a second time, output differs from eager"):
        made.check(Inference(CompiledModule(forgets, 0.0), made.inputs))


def test_a_model_that_draws_passes_where_the_same_numbers_are_drawn() -> None:
    inference, build = reference.checked(case(Noise, ROW), "cpu", quiet)
    assert build.leaf_error == 0
    assert inference.changes == ()


def test_one_that_draws_others_is_said_to_be_not_deterministic_and_by_how_much() -> None:
    made = Reference(case(Noise, ROW), "cpu", quiet)

    def draws_others(x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(5))

    with pytest.raises(TrtgateError, match=r"not deterministic: two eager runs differ by 1\.\d \(relative L2\)"):
        made.check(Inference(CompiledModule(draws_others, 0.0), made.inputs))


def test_the_seed_of_a_comparison_moves_no_generator_of_the_user() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    with seeded():
        torch.rand(100)
    assert torch.equal(torch.rand(4), wanted)


def test_a_model_that_hardly_repeats_itself_is_compared_within_what_it_differs_by() -> None:
    """As atomic additions do: no state, and no generator that can be seeded."""
    differs = collections.deque([0.0, 5e-4, 1e-3, 19e-4, 21e-4, 21e-4])

    class Atomic(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (1 + differs.popleft())

    made = Reference(case(Atomic, ROW), "cpu", quiet)
    inference = Inference(CompiledModule(made.module, 0.0), made.inputs)
    made.check(inference)  # off by 1e-3 and 1.9e-3, where 1e-3 + 2 * 5e-4 are allowed
    with pytest.raises(TrtgateError, match="output differs from eager"):
        made.check(inference)


def test_state_that_nothing_can_put_back_is_refused() -> None:
    calls = iter(range(100))

    class Outside(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + next(calls)

    with pytest.raises(TrtgateError, match=r"not deterministic: two eager runs differ by .* keep state outside of its"):
        Reference(case(Outside, ROW), "cpu", quiet)


def test_a_worker_that_loads_compares_both_calls_too(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = case(lambda: Cache("copied back"), STEP)
    made = Reference(wanted, "cpu", quiet)
    made.expected.save(tmp_path)
    fresh = Inference(CompiledModule(Reference(wanted, "cpu", quiet).module, 0.0), Inputs((STEP.clone(),)))
    monkeypatch.setattr("trtgate.compiling.building.load", lambda *_: fresh)
    assert reference.load_checked(wanted, tmp_path, "cpu").changes == ("k",)


def test_an_expanded_input_beside_one_that_is_written_is_no_obstacle() -> None:
    class Adds(torch.nn.Module):
        def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
            return x.add_(bias)

    def factory() -> Any:
        return Adds().eval(), (torch.ones(4, 16), torch.ones(1, 16).expand(4, 16))

    wanted = Case(Model("m", factory, ()), Settings(frontend="eager"))
    inference, build = reference.checked(wanted, "cpu", quiet)
    assert (inference.changes, build.leaf_error) == (("input 0",), 0.0)


SHARED = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.ReLU()).eval()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_module_made_once_at_the_top_of_a_suite_stays_as_it_was_made(precision: str) -> None:
    before, x = SHARED[0].weight.detach().clone(), torch.ones(2, 16)
    wanted = Case(Model("m", lambda: (SHARED, x), ()), Settings(frontend="eager", precision=precision))
    inference, _ = reference.checked(wanted, "cpu", quiet)
    assert inference.inputs.tensors[0].dtype == getattr(torch, {"fp16": "float16", "bf16": "bfloat16"}[precision])
    assert torch.equal(SHARED[0].weight, before)
    assert SHARED[0].weight.requires_grad
    assert torch.equal(x, torch.ones(2, 16))


def test_complex_tables_stay_complex() -> None:
    class Rotary(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.polar(torch.ones(8), torch.arange(8.0)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            turned = torch.view_as_complex(x.float().reshape(2, 8, 2)) * self.table
            return torch.view_as_real(turned).flatten(1).to(x.dtype)

    wanted = Case(Model("m", lambda: (Rotary(), torch.ones(2, 16)), ()), Settings(frontend="eager", precision="fp16"))
    made = Reference(wanted, "cpu", quiet)
    assert made.module.table.dtype == torch.complex64
    rotated = made.expected.first[0]
    assert isinstance(rotated, Leaf)
    assert rotated.value[0, 2:4].tolist() == pytest.approx(
        [math.cos(1) - math.sin(1), math.cos(1) + math.sin(1)], abs=1e-3
    )


class Leaks(torch.nn.Module):
    """What it returns does not tell whether its state was written."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("kv", torch.zeros(4, 16))
        self.log: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wrong = torch.compiler.is_compiling()
        if self.how == "buffer":
            kv = self.kv.clone() if wrong else self.kv
            kv[0] = x[0]
            return kv.sum(0)
        if self.how == "mean":
            self.kv.add_(x * (5 if wrong else 0.1))
            return x * 2
        if self.how == "input":
            return torch.relu(x) + 0 if wrong else x.relu_()
        if not wrong:
            self.log.append(x.sum())
        return x * 2


@pytest.mark.parametrize(("how", "name"), [("buffer", "kv"), ("mean", "kv"), ("input", "input 0"), ("list", "log")])
def test_a_state_that_the_compiled_module_does_not_write_is_wrong_though_its_outputs_are_right(
    how: str, name: str
) -> None:
    with pytest.raises(TrtgateError, match=f"after the call {name}.* differs from eager"):
        reference.checked(case(lambda: Leaks(how), ROW, "aot_eager"), "cpu", quiet)


class Hooked(torch.nn.Module):
    """What a hook keeps is in the variables of a function, or in the fields of an object."""

    def __init__(self, how: str, *, wrong: bool = False) -> None:
        super().__init__()
        self.a = torch.nn.Identity()
        factor = 2.0 if wrong else 1.0
        kept = {"sum": torch.zeros(16)}

        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            kept["sum"] = kept["sum"] + output.sum(0) * (factor if torch.compiler.is_compiling() else 1.0)
            return output + kept["sum"] if how == "shown" else output * 1

        self.a.register_forward_hook(Meter(factor) if how == "object" else hook)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) * 2


class Meter:
    """A hook that keeps a running mean."""

    def __init__(self, factor: float) -> None:
        self.factor, self.mean = factor, torch.zeros(16)

    def __call__(self, _module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        self.mean.mul_(0.9).add_(output.mean(0), alpha=self.factor if torch.compiler.is_compiling() else 1.0)
        return output - self.mean


@pytest.mark.parametrize("frontend", ["eager", "aot_eager"])
@pytest.mark.parametrize(("how", "changed"), [("kept", "kept"), ("shown", "kept"), ("object", "mean")])
def test_what_hooks_keep_is_state(how: str, changed: str, frontend: str) -> None:
    inference, _ = reference.checked(case(lambda: Hooked(how), ROW, frontend), "cpu", quiet)
    assert inference.changes == (f"a._forward_hooks[0].{changed}",)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("kept", r'after the call a\._forward_hooks\[0\]\.kept\["sum"\]'),
        ("shown", "output"),
        ("object", "output"),
    ],
)
def test_a_hook_that_keeps_something_else_when_compiled_is_wrong(how: str, named: str) -> None:
    with pytest.raises(TrtgateError, match=f"{named} differs from eager"):
        reference.checked(case(lambda: Hooked(how, wrong=True), ROW, "aot_eager"), "cpu", quiet)


class Remembers(torch.nn.Module):
    """Its output shows what it keeps once the input is another."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(4, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last.copy_(x)
        return x + self.last


def test_state_that_no_output_shows_and_that_can_not_be_found_is_said_to_be_unknown() -> None:
    made = Reference(case(Remembers, ROW), "cpu", quiet)
    lost = Inference(CompiledModule(lambda x: x + x, 0.0), made.inputs)
    made.check(lost)
    assert "eager's call changes last; the compiled module holds nothing of that name" in made.unseen_state(lost)
    assert made.unseen_state(made.build(*made.prepare(quiet), quiet)) == ""
    shown = Reference(case(lambda: Cache("copied back"), STEP), "cpu", quiet)  # its second output would tell
    assert shown.unseen_state(Inference(CompiledModule(lambda x: x, 0.0), shown.inputs)) == ""


class Previous(torch.nn.Module):
    """Keeps its input, and a weight, under names of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(16, 16)
        self.prev = torch.zeros(4, 16)
        self.w = torch.zeros(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x - self.prev)
        self.prev, self.w = x, self.a.weight.detach()
        return y


class Shared(torch.nn.Module):
    """A cache that layers share, as many decoders have one, and one of other kinds."""

    def __init__(self, store: Any) -> None:
        super().__init__()
        self.store = self.again = store
        self.made = None
        self.rng = torch.Generator().manual_seed(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.store, dict):
            self.store["n"] = self.store.get("n", 0) + 1
            count = self.again["n"]
        else:
            self.store.append(x.sum())
            count = len(self.again)
        if self.made is None:
            self.made = object()
        return x * count + torch.rand(16, generator=self.rng)


KEEPING = [
    pytest.param(Previous, id="input and weight under another name"),
    pytest.param(lambda: Shared({}), id="shared dict"),
    pytest.param(lambda: Shared([]), id="shared list"),
    pytest.param(lambda: Shared(collections.deque()), id="deque"),
    pytest.param(lambda: Shared(collections.defaultdict(int)), id="defaultdict"),
]


@pytest.mark.parametrize("module", KEEPING)
def test_every_name_has_its_object_again_and_that_what_it_held(module: Any) -> None:
    made = Reference(case(module, ROW), "cpu", quiet)
    weights = {name: value.clone() for name, value in made.module.named_parameters()}
    inference = made.build(*made.prepare(quiet), quiet)
    assert made.check(inference).leaf_error == 0
    assert all(torch.equal(value, weights[name]) for name, value in made.module.named_parameters())
    assert torch.equal(made.inputs.tensors[0], ROW)


def test_a_list_of_its_childrens_buffers_stays_one() -> None:
    class Parent(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([Cache("copied back"), Cache("copied back")])
            self.caches = [layer.k for layer in self.layers]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return x + sum(cache.sum() for cache in self.caches)

    assert reference.checked(case(Parent, STEP), "cpu", quiet)[1].leaf_error == 0


def test_tensors_that_can_not_be_compared_are_no_obstacle() -> None:
    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("edges", torch.eye(16).to_sparse())
            self.shape = torch.empty(3, device="meta")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sparse.mm(self.edges, x.T).T

    assert reference.checked(case(Graph, ROW), "cpu", quiet)[1].leaf_error == 0


def test_a_parameter_that_a_call_changes_is_named() -> None:
    class Learns(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = torch.nn.Parameter(torch.ones(16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.p.add_(0.1)
            return x * self.p

    with pytest.raises(TrtgateError, match=r"^case .*: its call changes the parameter p, "):
        Reference(case(Learns, ROW), "cpu", quiet)


@pytest.mark.parametrize("how", ["through its data", "by another"])
def test_a_parameter_that_a_call_changes_unseen_is_named_too(how: str) -> None:
    class Learns(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.p = torch.nn.Parameter(torch.ones(16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if how == "by another":
                self.p = torch.nn.Parameter(self.p * 2)
            else:
                self.p.data.mul_(2)
            return x * self.p

    with pytest.raises(
        TrtgateError, match=r"not deterministic: .*: its call changes the parameter p \(docs: model-unusable\)$"
    ):
        Reference(case(Learns, ROW), "cpu", quiet)


def test_a_wrong_leaf_that_no_random_number_decides_is_not_said_to_be_random() -> None:
    class Both(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x + torch.randn_like(x), x * 2

    made = Reference(case(Both, ROW), "cpu", quiet)
    with pytest.raises(TrtgateError, match=r"case m-eager-fp32: output\[1\] differs"):
        made.check(Inference(CompiledModule(lambda x: (made.module(x)[0], x * 3), 0.0), made.inputs))


# State in fields of objects


class Store:
    """A cache as libraries have one: an object beside the modules."""

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.total = torch.zeros(16)
        self.calls = 0
        self.by_name: dict[str, Any] = {}
        self.inner: Any = None

    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.keys.append(x.sum(0))
        self.total.add_(x.sum(0))
        self.calls += 1
        self.by_name["last"] = x
        return torch.stack(self.keys).sum(0) + self.total + self.calls


class SlottedStore(Store):
    __slots__ = ("again",)

    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.again = getattr(self, "again", 0) + 1
        return super().update(x) + self.again


class OnlySlots:
    __slots__ = ("__weakref__", "calls", "keys")

    def __init__(self) -> None:
        self.keys = torch.zeros(16)

    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        self.keys = self.keys + x.sum(0)
        return self.keys * self.calls


@dataclasses.dataclass(frozen=True)
class Frozen:
    keys: list[Any] = dataclasses.field(default_factory=list)

    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.keys.append(x.sum(0))
        return torch.stack(self.keys).sum(0)


class Record(msgspec.Struct):
    calls: int = 0

    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls


class Layered:
    """As transformers' DynamicCache: a list of layers, each an object whose tensors are bound anew."""

    def __init__(self) -> None:
        self.layers = [OnlySlots(), OnlySlots()]

    def update(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[1].update(self.layers[0].update(x).expand(4, 16))


class Counts(dict):
    """A container with attributes."""

    calls = 0

    def update(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        self.calls += 1
        self["n"] = self.get("n", 0) + 2
        return x * self.calls + self["n"]


class Array:
    def __init__(self) -> None:
        self.seen = np.zeros(16, dtype=np.float32)

    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return x + torch.from_numpy(self.seen.copy())


class Called:
    """An object that is called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls

    def update(self, x: torch.Tensor) -> torch.Tensor:
        return self(x)


class Unregistered:
    """Holds a module that no module knows of."""

    def __init__(self) -> None:
        self.held = [Counter()]

    def update(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.held[0](x)
        return result


class Namespace(types.SimpleNamespace):
    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return x * self.calls


class OfThread(threading.local):
    calls = 0

    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls


def inside_itself() -> Store:
    store = Store()
    store.inner = Store()
    store.inner.inner, store.by_name["self"] = store, [store, store.inner]
    return store


class Keeps(torch.nn.Module):
    def __init__(self, store: Any) -> None:
        super().__init__()
        self.a = torch.nn.Linear(16, 16)
        self.store = store

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.a(x) + self.store.update(x)
        return result


OBJECTS = [
    Store, SlottedStore, OnlySlots, Frozen, Record, Layered, Counts, Array, Called, Unregistered, Namespace,
    inside_itself,
]  # fmt: skip
TORCH_CAN_NOT_TRACE = [OfThread]


@pytest.mark.parametrize(
    ("store", "frontend"),
    [(one, "eager") for one in OBJECTS + TORCH_CAN_NOT_TRACE]
    + [(one, frontend) for one in OBJECTS for frontend in ("aot_eager", "inductor")],
)
def test_state_in_fields_of_objects_is_put_back(store: Any, frontend: str) -> None:
    inference, build = reference.checked(case(lambda: Keeps(store()), ROW, frontend), "cpu", quiet)
    assert inference.changes
    assert build.leaf_error < 1e-5
    first = inference()
    assert not torch.equal(inference(), first)
    inference.restore()
    torch.testing.assert_close(inference(), first)


def test_what_objects_change_is_named_by_the_attribute_that_holds_them() -> None:
    assert reference.checked(case(lambda: Keeps(Layered()), ROW), "cpu", quiet)[0].changes == ("store",)
    changes = reference.checked(case(lambda: Keeps(Unregistered()), ROW), "cpu", quiet)[0].changes
    assert set(changes) == {"store.held[0].calls", "store.held[0].last", "store.held[0].mean", "store.held[0].past"}


def test_a_cache_that_the_compiled_module_does_not_write_is_wrong() -> None:
    class Forgets(Store):
        def update(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_compiling():
                self.total.add_(1)
            return x

    with pytest.raises(TrtgateError, match=r"after the call store\.total differs from eager"):
        reference.checked(case(lambda: Keeps(Forgets()), ROW, "aot_eager"), "cpu", quiet)


def test_what_is_another_after_each_run_of_eager_is_not_compared() -> None:
    """A time, for instance."""
    ticks = iter(range(1000))

    class Timed(Store):
        def update(self, x: torch.Tensor) -> torch.Tensor:
            self.calls = next(ticks)
            self.total.add_(1)
            return x

    made = Reference(case(lambda: Keeps(Timed()), ROW), "cpu", quiet)
    assert made.expected.changes == ("store",)
    values = {one.name: one.value for one in made.expected.after["store"] if isinstance(one, Leaf)}
    assert values["calls"] is output_leaves.ANY
    assert torch.equal(values["total"], torch.ones(16))
    made.check(made.build(*made.prepare(quiet), quiet))


def test_loggers_locks_and_other_objects_of_libraries_are_no_state() -> None:
    class Logs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logger = logging.getLogger("test_state.logs")
            self.lock, self.local, self.graph = threading.Lock(), threading.local(), torch.fx.Graph()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.logger.debug("called")
            self.graph.placeholder("x")
            with self.lock:
                return x * 2

    inference, _ = reference.checked(case(Logs, ROW), "cpu", quiet)
    assert inference.changes == ()


def test_kernels_that_triton_compiles_at_the_first_call_are_no_state() -> None:
    class Kernel:
        def __init__(self) -> None:
            self.compiled: dict[str, int] = {}

    Kernel.__module__ = "triton.runtime.jit"
    kernel = Kernel()

    class Launches(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.launch = lambda x: kernel.compiled.update(sm90=1) or x * 2

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.launch(x)

    inference, _ = reference.checked(case(Launches, ROW), "cpu", quiet)
    assert inference.changes == ()
    inference.restore()
    assert kernel.compiled


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (lambda: itertools.count(1), r"it changes store\.count \(count\), which can't be put back"),
        (
            lambda: iter([1, 2, 3, 4, 5, 6]),
            r"does it keep state in store\.count \(list_iterator\), which can't be put ",
        ),
    ],
)
def test_state_that_can_not_be_put_back_is_said_where_it_is(count: Any, said: str) -> None:
    class Counted:
        def __init__(self) -> None:
            self.count = count()

        def update(self, x: torch.Tensor) -> torch.Tensor:
            return x * next(self.count)

    with pytest.raises(TrtgateError, match=f"not deterministic: two eager runs differ by .*: {said}"):
        Reference(case(lambda: Keeps(Counted()), ROW), "cpu", quiet)


def test_integers_that_differ_are_counted() -> None:
    calls = itertools.count()

    class Outside(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.arange(4) + next(calls)

    with pytest.raises(TrtgateError, match="two eager runs differ by 4 of 4 values of output under"):
        Reference(case(Outside, ROW), "cpu", quiet)


def test_values_that_are_deep_down_are_no_obstacle() -> None:
    class Linked:
        def __init__(self, rest: Any) -> None:
            self.rest = rest

        def update(self, x: torch.Tensor) -> torch.Tensor:
            return x

    def chain() -> torch.nn.Module:
        found = None
        for _ in range(300):
            found = Linked(found)
        return Keeps(found)

    assert reference.checked(case(chain, ROW), "cpu", quiet)[0].changes == ()


# An output that holds nothing


class Gives(torch.nn.Module):
    """Returns what a function makes of its input."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: [{"boxes": x[:0]}], 'holds no value: no element is in output[0]["boxes"]'),
        (lambda x: (x[:0], None, {}), "holds no value: no element is in output[0]"),
        (lambda _x: None, "holds no value, so that only its structure"),
        (lambda _x: (), "holds no value, so that only its structure"),
    ],
)
def test_an_output_without_any_value_passes_and_is_told(function: Callable[[torch.Tensor], Any], said: str) -> None:
    (note,) = Reference(case(lambda: Gives(function), torch.ones(2, 4)), "cpu", quiet).remarks
    assert said in note
    assert "only its structure was compared" in note


@pytest.mark.parametrize(
    "function", [lambda x: {"boxes": x[:0], "count": 0}, lambda x: (x[:0], x), lambda x: x.add_(1)[:0]]
)
def test_a_number_beside_an_empty_tensor_or_an_input_that_was_written_proves_something(
    function: Callable[[torch.Tensor], Any],
) -> None:
    assert not Reference(case(lambda: Gives(function), torch.ones(2, 4)), "cpu", quiet).remarks


class Expanded(torch.nn.Module):
    """Holds a tensor, and before that a view that repeats it: nobody can write to the view as it is."""

    def __init__(self) -> None:
        super().__init__()
        total = torch.zeros(2, 1)
        self.register_buffer("repeated", total.expand(2, 3))
        self.register_buffer("total", total)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(1.0)
        return x + self.repeated


class Replaced(torch.nn.Module):
    """Its buffer's data becomes another tensor's, of another dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = x + self.kept
        self.kept.data = (self.kept + 1).double()
        return found


@pytest.mark.parametrize("module", [Expanded, Replaced])
def test_tensors_that_can_not_be_written_to_as_they_are_are_put_back(module: type[torch.nn.Module]) -> None:
    made, x = module(), torch.zeros(2, 3)
    state = RunState((made,), [x])
    with torch.no_grad():
        first = made(x).clone()
        assert state.changed([x])
        state.restore([x])
        assert not state.changed([x])
        second = made(x)
    assert torch.equal(first, second)
    assert first.dtype == second.dtype


@dataclasses.dataclass
class Hidden:
    h: torch.Tensor
    step: int = 0


def of(forward: Callable[..., Any], *args: Any, frontend: str = "aot_eager", **kwargs: Any) -> Case:
    """A case of a forward that gets a linear layer before its arguments."""

    class Made(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Linear(16, 16)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return forward(self.a, *args, **kwargs)

    def factory() -> Any:
        torch.manual_seed(0)
        return Made().eval(), args, kwargs

    return Case(Model("m", factory, ()), Settings(frontend=frontend))


def appended(a: Any, x: torch.Tensor, past: list[torch.Tensor]) -> torch.Tensor:
    past.append(a(x))
    return torch.stack(past).sum(0)


def grown(a: Any, x: torch.Tensor, past: list[torch.Tensor]) -> torch.Tensor:
    past[0] = torch.cat([past[0], a(x)])
    return past[0].mean(0)


def bound(a: Any, x: torch.Tensor, hidden: dict[str, Any]) -> Any:
    before = hidden["h"]
    hidden["h"] = torch.tanh(a(x) if before is None else a(x) + before)
    return hidden["h"] * 2


def popped(a: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    mask = batch.pop("mask")
    return a(batch["x"]) * mask


def filled(a: Any, batch: dict[str, torch.Tensor]) -> Any:
    batch["logits"] = a(batch["x"])
    return batch


def stepped(a: Any, x: torch.Tensor, hidden: Hidden) -> torch.Tensor:
    hidden.h = torch.tanh(a(x) + hidden.h)
    hidden.step += 1
    return hidden.h * hidden.step


CONTAINERS_WRITTEN = [
    pytest.param(appended, (ROW, [ROW * 2]), {}, "input args[1]", id="list-appended"),
    pytest.param(grown, (ROW, [ROW * 2]), {}, "input args[1]", id="item-grown"),
    pytest.param(bound, (ROW, {"h": ROW * 2}), {}, "input args[1]", id="key-bound-anew"),
    pytest.param(bound, (ROW,), {"hidden": {"h": None}}, "input hidden", id="none-filled"),
    pytest.param(popped, ({"x": ROW, "mask": ROW > 0},), {}, "input args[0]", id="key-popped"),
    pytest.param(filled, ({"x": ROW},), {}, "input args[0]", id="key-added"),
    pytest.param(stepped, (ROW, Hidden(ROW * 2)), {}, "input args[1]", id="dataclass"),
]


@pytest.mark.parametrize("frontend", ["eager", "aot_eager"])
@pytest.mark.parametrize(("forward", "args", "kwargs", "changes"), CONTAINERS_WRITTEN)
def test_each_call_gets_the_containers_that_the_factory_made(
    forward: Any, args: Any, kwargs: Any, changes: str, frontend: str
) -> None:
    inference, build = reference.checked(of(forward, *args, frontend=frontend, **kwargs), "cpu", quiet)
    assert inference.changes == (changes,)
    assert build.leaf_error < 1e-5
    first, second = inference(), inference()
    torch.testing.assert_close(first, second, equal_nan=True)


def compiled_by(run: Callable[..., Any], made: Reference) -> Inference:
    return made._with_state(Inference(CompiledModule(run, 0.0), made.inputs))


def test_a_compiled_module_that_puts_nothing_into_the_callers_containers_is_wrong() -> None:
    made = Reference(of(bound, ROW, {"h": ROW * 2}), "cpu", quiet)
    with pytest.raises(TrtgateError, match=r'call input args\[1\]\["h"\] differs from eager: .* let forward return'):
        made.check(compiled_by(lambda x, hidden: made.module(x, dict(hidden)), made))


def test_what_eager_takes_out_of_a_mapping_may_stay_there() -> None:
    made = Reference(of(popped, {"x": ROW, "mask": ROW > 0}), "cpu", quiet)
    made.check(compiled_by(lambda batch: made.module(dict(batch)), made))


@pytest.mark.parametrize(
    "forward",
    [
        lambda a, x: a(x.squeeze_(1)),
        lambda a, x: a(x.resize_(2, 16).fill_(1.0)),
        lambda a, x: a(x.view(4, 16).t_().t_() + x.transpose_(0, 1)[0]),
    ],
    ids=["squeezed", "resized", "transposed"],
)
def test_an_input_has_its_shape_again(forward: Any) -> None:
    inference, _ = reference.checked(of(forward, ROW.view(4, 1, 16).clone(), frontend="eager"), "cpu", quiet)
    assert inference.changes == ("input 0",)
    inference.restore()
    assert torch.equal(inference.inputs.tensors[0], ROW.view(4, 1, 16))
    assert inference.inputs.tensors[0].is_contiguous()


def test_an_input_that_has_no_strides_is_one_like_any_other() -> None:
    made = of(lambda a, x, table: table @ a(x), ROW, torch.eye(4).to_sparse_csr())
    assert reference.checked(made, "cpu", quiet)[1].leaf_error < 1e-5


def put_too_much(a: Any, x: torch.Tensor, hidden: dict[str, Any]) -> Any:
    hidden["h"] = a(x)
    if torch.compiler.is_compiling():
        hidden["more"] = x
    return hidden["h"]


def put_though_eager_does_not(a: Any, x: torch.Tensor, past: list[torch.Tensor]) -> Any:
    if torch.compiler.is_compiling():
        past.append(x)
    return a(x)


@pytest.mark.parametrize(
    ("forward", "container", "named"),
    [
        pytest.param(put_too_much, {"h": ROW}, r'input args\[1\]\["more"\]', id="another-key"),
        pytest.param(put_though_eager_does_not, [ROW], r"input args\[1\]\[1\]", id="untouched-list"),
    ],
)
def test_a_compiled_module_may_put_into_containers_only_what_eager_puts_there(
    forward: Any, container: Any, named: str
) -> None:
    with pytest.raises(TrtgateError, match=f"after the call {named} differs from eager: eager's output has none"):
        reference.checked(of(forward, ROW, container), "cpu", quiet)


def written(a: Any, x: torch.Tensor, past: Any) -> torch.Tensor:
    keys = past["keys"] if isinstance(past, dict) else past[0]
    keys[:, 0] = a(x)[0]
    return keys.sum(1)


def written_wrongly(a: Any, x: torch.Tensor, past: Any) -> torch.Tensor:
    found = written(a, x, past)
    if torch.compiler.is_compiling():
        past[0].mul_(2)
    return found


def bound_besides(a: Any, x: torch.Tensor, past: Any) -> torch.Tensor:
    found = written(a, x, past)
    if torch.compiler.is_compiling():
        past[1] = x * 2
    return found


@pytest.mark.parametrize("frontend", ["eager", "aot_eager"])
@pytest.mark.parametrize(
    "past",
    [{"keys": torch.zeros(16, 2)}, [torch.zeros(16, 2), ROW], (torch.zeros(16, 2),)],
    ids=["dict", "list", "tuple"],
)
def test_a_cache_in_a_container_of_the_inputs_may_be_written_in_place(past: Any, frontend: str) -> None:
    inference, build = reference.checked(of(written, ROW, past, frontend=frontend), "cpu", quiet)
    assert inference.changes == ("input 1",)
    assert build.leaf_error < 1e-5


@pytest.mark.parametrize(
    ("forward", "named"),
    [
        pytest.param(written_wrongly, "input 1", id="other-values"),
        pytest.param(bound_besides, r"input args\[1\]\[1\]", id="another-tensor"),
    ],
)
def test_what_else_is_done_to_a_cache_in_a_container_is_wrong(forward: Any, named: str) -> None:
    with pytest.raises(TrtgateError, match=f"after the call {named} differs from eager"):
        reference.checked(of(forward, ROW, [torch.zeros(16, 2), ROW]), "cpu", quiet)


class Untouched(torch.nn.Module):
    """Writes to nothing but, where it is compiled, to what `write` says."""

    def __init__(self, write: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(1, 2, 16))
        self.write = write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2 + 0 * self.table
        if torch.compiler.is_compiling():
            self.write(self, x)
        return y


@pytest.mark.parametrize(
    ("write", "named"),
    [
        pytest.param(lambda _module, x: x.mul_(0.5), "input 0", id="input"),
        pytest.param(lambda module, _x: module.table.add_(1.0), "table", id="buffer"),
        pytest.param(lambda module, x: module.table.copy_(x[0]), "table", id="buffer-with-the-same-each-time"),
    ],
)
def test_a_compiled_module_may_write_only_where_eager_does(write: Any, named: str) -> None:
    with pytest.raises(TrtgateError, match=f"after the call {named} differs from eager: .*eager leaves it as it is"):
        reference.checked(case(lambda: Untouched(write), ROW, "aot_eager"), "cpu", quiet)
