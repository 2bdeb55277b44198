"""Which submodule of a compiled module is wrong first: planted faults, which eager does not have, are named."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trtgate import Case, Model, Settings, expected_failure, frontends
from trtgate.common.errors import TrtgateError
from trtgate.compiling import left_in_pytorch, locating_in_case
from trtgate.compiling.build_or_load import build_or_load
from trtgate.compiling.locating import Locator, first_wrong_count
from trtgate.compiling.location import Checked, Location, bound
from trtgate.compiling.submodule_calls import Call
from trtgate.frontends import CompiledModule
from trtgate.records.profile_record import Operator, Part
from trtgate.suite.model_inputs import Inputs

WIDTH = 8


class Wrong(nn.Module):
    """Adds a tenth of its module's output to it, when compiled: it stands for a miscompiled module."""

    def __init__(self, module: nn.Module | None = None) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        result = args[0].relu() if self.module is None else self.module(*args, **kwargs)
        return result * 1.1 if torch.compiler.is_compiling() else result


class Mlp(nn.Module):
    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, WIDTH)
        self.act = act or nn.GELU()
        self.down = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.up(x)))


class Layer(nn.Module):
    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = Mlp(act)

    def forward(self, x: torch.Tensor, *, scale: float = 1.0, mask: dict[str, torch.Tensor] | None = None) -> Any:
        x = x if mask is None else x * mask["keep"]
        return x + scale * self.mlp(self.norm(x))


class Encoder(nn.Module):
    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        keep = torch.ones(WIDTH)
        for number, layer in enumerate(self.layers):
            x = layer(x, scale=0.5 + number, mask={"keep": keep})
        return self.head(x)


def compiled(module: nn.Module, inputs: Any, left: Any = (), backend: Any = "eager") -> Callable[..., Any]:
    torch.compiler.reset()
    run: Callable[..., Any] = torch.compile(module, backend=backend)
    inputs.call(run)
    return run


def locate(module: nn.Module, *inputs: Any, compile_: Any = compiled, keep: Any = left_in_pytorch.disabled) -> Location:
    torch.manual_seed(0)
    module.eval().requires_grad_(False)
    return Locator(compile_, lambda found: found.problem("fp32"), keep=keep).locate(
        module, Inputs(inputs or (torch.randn(4, WIDTH),))
    )


# What is named


def test_a_right_module_is_said_to_be_right() -> None:
    found = locate(Encoder([Layer(), Layer()]))
    assert found.kind == "right"
    assert found.sentence().startswith("right: the model is within its tolerance")
    assert found.checked == ()


def test_the_wrong_layer_of_a_small_mlp_is_named() -> None:
    found = locate(Mlp(Wrong()))
    assert (found.kind, found.wrong.path, found.wrong.kind) == ("module", "act", "Wrong")
    assert found.sentence() == "first wrong: act (relative L2 0.1); everything before is within 0"


def test_a_fault_deep_in_repeated_layers_is_named_by_its_path() -> None:
    """The layers take keywords and nested tensors, as attention masks are passed."""
    found = locate(Encoder([Layer(), Layer(), Layer(Wrong())]))
    assert (found.kind, found.wrong.path) == ("module", "layers.2.mlp.act")
    way = [one.path for one in found.checked if one.problem]
    assert way == ["layers.2", "layers.2.mlp", "layers.2.mlp.act"]
    assert not any("layers.1." in one.path for one in found.checked)  # what is right is not looked into


def test_of_two_faults_the_first_in_execution_order_is_named() -> None:
    assert locate(Encoder([Layer(), Layer(Wrong()), Layer(Wrong())])).wrong.path == "layers.1.mlp.act"


def test_execution_order_is_not_the_order_of_definition() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = Wrong()
            self.first = Wrong(nn.Linear(WIDTH, WIDTH))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x))

    assert locate(Backwards()).wrong.path == "first"


def test_a_residual_branch_is_named_though_the_sum_hides_it() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Mlp(), Mlp(Wrong()), Mlp())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = x + block(x)
            return x

    assert locate(Residual()).wrong.path == "blocks.1.act"


def test_of_a_module_called_twice_the_wrong_call_is_named() -> None:
    class WrongWhenWide(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 1.5 if torch.compiler.is_compiling() and x.shape[1] > WIDTH else x * 1.0

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = WrongWhenWide()
            self.wide = nn.Linear(WIDTH, 2 * WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.wide(self.act(x)))

    found = locate(Shared())
    assert (found.wrong.path, found.wrong.number) == ("act", 2)
    assert "first wrong: act (call 2) (relative L2 0.5)" in found.sentence()


def test_a_fault_between_the_parts_is_not_blamed_on_any_of_them() -> None:
    class Glue(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            return self.b(-x if torch.compiler.is_compiling() else x)

    found = locate(nn.Sequential(nn.ReLU(), Glue(), nn.ReLU()))
    assert (found.kind, found.wrong.path) == ("own code", "1")
    assert "no part of it is wrong alone (within 0)" in found.sentence()
    assert "look at its own forward" in found.sentence()


def test_a_wrong_integer_output_is_named_with_how_many_values_differ() -> None:
    class Classes(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            classes = x.argmax(1)
            return x, classes + 1 if torch.compiler.is_compiling() else classes

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.classes = nn.Linear(WIDTH, WIDTH), Classes()

        def forward(self, x: torch.Tensor) -> dict[str, Any]:
            logits, classes = self.classes(self.body(x))
            return {"logits": logits, "classes": classes}

    found = locate(Detector())
    assert found.wrong.path == "classes"
    assert "first wrong: classes (output[1]: 4 of 4 values differ)" in found.sentence()


def gelu_after_linear_is_wrong(graph: Any, _inputs: Any) -> Any:
    """A backend that is wrong where it sees both in one graph, as a fusion is."""
    names = [str(node.target) for node in graph.graph.nodes]
    if any("linear" in name for name in names):
        for node in graph.graph.nodes:
            if "gelu" in str(node.target):
                node.target, node.kwargs = torch.relu, {}
        graph.recompile()
    return graph.forward


def test_what_is_wrong_in_context_only_is_named_with_its_context() -> None:
    def compile_(module: nn.Module, inputs: Any, left: Any) -> Any:
        return compiled(module, inputs, backend=gelu_after_linear_is_wrong)

    found = locate(Encoder([Layer(nn.ReLU()), Layer(), Layer()]), compile_=compile_)
    assert (found.kind, found.wrong.path, found.suspect) == ("in context", "layers.1.mlp", "layers.1.mlp.act")
    assert "from layers.1.mlp.act on: no part of it is wrong alone" in found.sentence()


def test_a_context_that_lies_across_modules_is_looked_for_inside_of_them() -> None:
    """The linear layer is in one module, the activation in another one's part."""
    outer = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Sequential(nn.LayerNorm(WIDTH), nn.Sequential(nn.GELU())))
    found = locate(
        nn.Sequential(nn.ReLU(), outer),
        compile_=lambda module, inputs, _: compiled(module, inputs, backend=gelu_after_linear_is_wrong),
    )
    assert (found.kind, found.wrong.path, found.suspect) == ("in context", "1", "1.1.1.0")


def test_where_nothing_can_be_left_in_pytorch_the_whole_is_named() -> None:
    found = locate(
        Mlp(),
        keep=None,
        compile_=lambda module, inputs, _: compiled(module, inputs, backend=gelu_after_linear_is_wrong),
    )
    assert (found.kind, found.wrong.path) == ("whole", "")
    assert "first wrong: the model" in found.sentence()
    assert "as a whole: no part of it is wrong alone" in found.sentence()


# What is passed to submodules, and what they keep


def test_a_module_that_writes_into_its_input_is_right() -> None:
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.add_(1).relu_()

    found = locate(nn.Sequential(nn.Linear(WIDTH, WIDTH), InPlace(), Wrong(), nn.ReLU(inplace=True)))
    assert found.wrong.path == "2"
    assert found.within == 0.0


class Counting(nn.Module):
    """Adds how often it has been called, in a buffer and in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen += 1
        return x + self.calls + self.seen


def test_state_is_as_eager_has_it_at_each_call_and_put_back_in_the_end() -> None:
    counting = Counting()
    found = locate(nn.Sequential(counting, nn.Linear(WIDTH, WIDTH), counting, Wrong(), counting))
    assert found.wrong.path == "3"
    assert [one.name for one in found.checked] == ["0", "1", "0 (call 2)", "3"]
    assert found.within == 0.0
    assert (float(counting.calls), counting.seen) == (0.0, 0)


def test_a_fault_that_shows_at_the_second_call_only_is_found() -> None:
    class Forgets(Counting):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_compiling():
                self.calls += 1
            return x + self.calls.clamp(min=1)

    found = locate(nn.Sequential(nn.Linear(WIDTH, WIDTH), Forgets()))
    assert found.wrong.path == "1"
    assert found.wrong.problem.startswith("called a second time, output differs from eager")


def test_random_numbers_are_the_same_in_both() -> None:
    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    assert locate(nn.Sequential(Noise(), nn.Linear(WIDTH, WIDTH), Noise(), Wrong(), Noise())).wrong.path == "3"


def test_an_object_that_is_passed_along_and_changed_is_anew_for_every_run() -> None:
    class Cache:
        def __init__(self) -> None:
            self.kept: list[torch.Tensor] = []

    class Remembers(nn.Module):
        def forward(self, x: torch.Tensor, cache: Cache) -> torch.Tensor:
            cache.kept.append(x)
            return torch.stack(cache.kept).sum(0)

    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.wrong = Remembers(), Remembers(), Wrong()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            cache = Cache()
            return self.wrong(self.b(self.a(x, cache), cache))

    found = locate(Cached())
    assert (found.wrong.path, found.within) == ("wrong", 0.0)


def test_autocast_of_the_parent_holds_for_the_part_alone() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.wrong = nn.Linear(WIDTH, WIDTH), Wrong()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                half = self.linear(x)
            return self.wrong(half.float())

    module = Cast().eval().requires_grad_(False)
    whole = Call("", module, (torch.randn(4, WIDTH),), {})
    linear = whole.child(whole.children()[0])
    assert linear.in_eager()[0][0].value.dtype == torch.bfloat16
    assert locate(module).wrong.path == "wrong"


def test_a_part_that_can_not_be_compared_alone_is_looked_into_and_said() -> None:
    class Opaque:
        __slots__ = ()

    class Odd(nn.Module):
        def __init__(self, act: nn.Module) -> None:
            super().__init__()
            self.act = act

        def forward(self, x: torch.Tensor) -> Any:
            return lambda: self.act(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.odd, self.wrong = Odd(nn.ReLU()), Wrong()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.wrong(self.odd(x)())

    found = locate(Outer())
    assert found.wrong.path == "wrong"
    assert found.sentence().endswith("; not checked alone: odd")


def test_a_part_that_raises_in_eager_and_is_tried_only_is_passed_over() -> None:
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.wrong = nn.Linear(WIDTH + 1, WIDTH), Wrong()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_compiling():
                with contextlib.suppress(RuntimeError):
                    self.wide(x)
            return self.wrong(x)

    found = locate(Tries())
    assert (found.wrong.path, [one.path for one in found.checked if one.unable]) == ("wrong", ["wide"])


def test_hooks_and_forwards_are_as_before_afterwards() -> None:
    module = Mlp()
    locate(module, compile_=lambda *a: compiled(*a[:2], backend=gelu_after_linear_is_wrong))
    for one in module.modules():
        assert not one._forward_hooks
        assert not one._forward_pre_hooks
        assert "forward" not in vars(one)


# Operators left in PyTorch, as for dynamo: with a scripted compiler, since TensorRT needs a GPU


def engine(*operators: tuple[str, str]) -> Part:
    found = [Operator(node=name, operator=name, module=module) for name, module in operators]
    return Part(name="engine", kind="tensorrt", layers=[], operators=found)


def test_the_first_operator_with_which_a_module_gets_wrong_is_named() -> None:
    def compile_(module: nn.Module, inputs: Any, left: Any) -> Any:
        return compiled(module, inputs, backend="eager" if "aten.gelu.default" in left else gelu_after_linear_is_wrong)

    part = engine(("aten.linear.default", "up"), ("aten.gelu.default", "act"), ("aten.linear.default", "down"))
    locator = Locator(
        compile_,
        lambda found: found.problem("fp32"),
        operators=lambda _module, _inputs: left_in_pytorch.operators_of([(part,)]),
    )
    found = locator.locate(Mlp().eval().requires_grad_(False), Inputs((torch.randn(4, WIDTH),)))
    assert (found.kind, found.suspect) == ("operator", "aten.gelu.default (in act)")
    assert "right with that and what follows left in PyTorch" in found.sentence()


def test_operators_are_those_in_engines_once_each_with_their_modules() -> None:
    pytorch = Part(name="segment", kind="pytorch", layers=[], operators=[Operator(node="n", operator="aten.nms")])
    graphs = [
        (engine(("aten.add.Tensor", ""), ("_operator.getitem", "a")), pytorch),
        (engine(("aten.add.Tensor", "b")),),
    ]
    assert left_in_pytorch.operators_of(graphs) == {"aten.add.Tensor": ["b"]}


def test_fused_attention_is_left_in_pytorch_whichever_kernel_it_is() -> None:
    names = left_in_pytorch.executed_names(["aten.relu.default", "aten._scaled_dot_product_*_attention.default"])
    assert names[0] == "aten.relu.default"
    assert len(names) == 4
    with pytest.raises(TrtgateError, match="torch has no operator"):
        left_in_pytorch.executed_names(["aten.rely.default"])


class Scripted:
    """Stands for dynamo: exports, and is wrong where a linear layer and a GELU are both in the engine."""

    stores_artifact = False
    stores = "nothing"

    def __init__(self) -> None:
        self.built: list[Settings] = []

    def import_libraries(self) -> None:
        pass

    def prepare(self, module: Any, inputs: Any, settings: Any, step: Any, dynamic: Any = None) -> Any:
        return torch.export.export(module, inputs.args, inputs.kwargs)

    def build(self, prepared: Any, inputs: Any, settings: Any, step: Any, dynamic: Any = None) -> CompiledModule:
        self.built.append(settings)
        in_engine = [node for node in prepared.graph.nodes if str(node.target) not in settings.torch_executed_ops]
        part = engine(*((str(node.target), "") for node in in_engine if node.op == "call_function"))
        module = prepared.module()
        if {"aten.linear.default", "aten.gelu.default"} <= {operator.operator for operator in part.operators}:
            gelu_after_linear_is_wrong(module, inputs)
        return CompiledModule(module, 0.0, parts=((part,),))


def test_a_case_of_dynamo_is_searched_with_its_settings_and_operators_left_in_pytorch(
    tmp_path: Path, monkeypatch: Any
) -> None:
    dynamo = Scripted()
    monkeypatch.setattr(frontends, "get", lambda _name: dynamo)
    own = {"torch_executed_ops": ("aten.layer_norm.default",), "batch": 4, "dynamic_batch": (1, 4, 8)}
    case = case_of(lambda: nn.Sequential(nn.LayerNorm(WIDTH), Mlp()), "dynamo", **own)
    message = failure(case, tmp_path)
    assert "first wrong: 1 (relative L2 " in message
    assert "from aten.gelu.default on: no part of it is wrong alone" in message
    whole, *parts = dynamo.built
    assert whole.dynamic == {"batch": ((1, 4, 8),)}
    assert not any(one.dynamic for one in parts)  # what runs inside may have no batch
    assert all("aten.layer_norm.default" in one.torch_executed_ops for one in parts)
    assert parts[-1].torch_executed_ops == ("aten.layer_norm.default", "aten.gelu.default")


@pytest.mark.parametrize("first", range(10))
def test_bisecting_finds_the_first_wrong_one_in_few_steps(first: int) -> None:
    asked: list[int] = []

    def is_wrong(count: int) -> bool:
        asked.append(count)
        return count >= first

    assert first_wrong_count(9, is_wrong) == first
    assert len(asked) <= 5


# Wrong at the second call


class Later(nn.Module):
    """Right at the first call, and wrong from the second on, by its own count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        wrong = torch.where(self.calls > 1, 1.1, 1.0) if torch.compiler.is_compiling() else 1.0
        return x.relu() * wrong


class ForLarge(nn.Module):
    """Wrong for large inputs only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = torch.where(x.abs().max() > 100, 1.1, 1.0)
        return x * (large if torch.compiler.is_compiling() else 1.0)


class Grows(nn.Module):
    """Hands its part what the calls before decide, kept in one of many places."""

    def __init__(self, part: nn.Module, where: str) -> None:
        super().__init__()
        self.before, self.part, self.where = nn.Linear(WIDTH, WIDTH), part, where
        self.register_buffer("factor", torch.ones(()))
        self.kept = [torch.ones(())]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = self.factor if self.where == "buffer" else self.kept[0]
        result = self.part(self.before(x) * factor)
        factor.mul_(1e4)
        return result


class InPlace(nn.Module):
    """Leaves its input ten thousand times as large."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.part(x * 1)
        x.mul_(1e4)
        return result


SECOND = [
    pytest.param(lambda: Encoder([Layer(), Layer(Later())]), "layers.1.mlp.act", id="its own count"),
    pytest.param(lambda: Grows(nn.Sequential(nn.ReLU(), ForLarge()), "buffer"), "part.1", id="what a buffer decides"),
    pytest.param(lambda: Grows(nn.Sequential(nn.ReLU(), ForLarge()), "list"), "part.1", id="what a list decides"),
    pytest.param(lambda: InPlace(nn.Sequential(nn.ReLU(), ForLarge())), "part.1", id="what is left in the input"),
]


@pytest.mark.parametrize(("module", "path"), SECOND)
def test_what_is_wrong_at_the_second_call_only_is_named_with_its_error_there(
    module: Any, path: str, tmp_path: Path
) -> None:
    message = failure(case_of(module), tmp_path)
    assert ": called a second time, output differs from eager: " in message
    assert f"; first wrong: {path} (relative L2 0.1 when called a second time); everything before is within" in message


@pytest.mark.parametrize(("module", "path"), SECOND)
def test_the_locator_finds_it_by_itself(module: Any, path: str) -> None:
    found = locate(module())
    assert (found.kind, found.wrong.path, found.wrong.at, found.whole.at) == ("module", path, 2, 2)
    assert found.whole.relative_l2 > 1e-3
    assert found.wrong.relative_l2 == pytest.approx(0.1, rel=1e-3)


def test_what_is_not_wrong_when_it_is_compiled_anew_for_the_second_call_is_searched_from_the_first() -> None:
    """A compiled module that goes wrong by being called twice, whatever state the model is in."""

    def compile_(module: nn.Module, inputs: Any, left: Any) -> Any:
        calls = itertools.count()
        faulty = any(isinstance(one, nn.GELU) for one in module.modules())
        return lambda *args: module(*args) * (1.1 if faulty and next(calls) else 1.0)

    found = locate(Mlp(), compile_=compile_, keep=None)
    assert (found.kind, found.wrong.path, found.wrong.at) == ("module", "act", 2)


def test_the_state_is_as_before_after_a_search_at_the_second_call() -> None:
    module = Grows(nn.Sequential(nn.ReLU(), ForLarge()), "buffer")
    locate(module)
    assert module.factor == 1


# Time, figures, and the message of a failed check


def test_when_the_time_runs_out_it_is_said_how_far_the_search_came() -> None:
    left = itertools.count()
    module = Encoder([Layer(), Layer(Wrong())]).eval().requires_grad_(False)
    locator = Locator(compiled, lambda found: found.problem("fp32"), out_of_time=lambda: next(left) > 4)
    found = locator.locate(module, Inputs((torch.randn(4, WIDTH),)))
    assert (found.kind, found.wrong.path) == ("unfinished", "layers.1")
    assert found.sentence() == f"the first wrong one lies in layers.1 ({found.wrong.figure})"


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "0"), (0.0029, "3e-3"), (0.003, "3e-3"), (9.4e-7, "1e-6"), (0.2, "2e-1"), (1.5, "2e0")]
)
def test_a_bound_is_never_below_the_value(value: float, said: str) -> None:
    assert bound(value) == said
    assert float(said) >= value


def case_of(module: Callable[[], nn.Module], frontend: str = "aot_eager", **settings: Any) -> Case:
    def whole(batch: int = 4) -> Any:
        torch.manual_seed(0)
        return module().eval(), torch.randn(batch, WIDTH)

    own = Settings(frontend=frontend, **settings)
    factory = (lambda: whole()) if own.batch is None else whole
    return Case(Model("planted", factory, [own]), own)


def failure(case: Case, folder: Path) -> str:
    with pytest.raises(TrtgateError) as caught:
        build_or_load(case, "cpu", folder, None, lambda _: None)
    return str(caught.value)


def test_a_failed_check_says_what_is_wrong_first(tmp_path: Path) -> None:
    message = failure(case_of(lambda: Encoder([Layer(), Layer(Wrong())])), tmp_path)
    assert message.startswith("case planted-aot_eager-fp32: output differs from eager: ")
    assert "; nothing was timed or stored; first wrong: layers.1.mlp.act (relative L2 0.1); everything" in message
    assert "\n" not in message


def test_a_failed_check_says_so_when_the_time_was_too_short(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(locating_in_case, "LIMIT_S", 0.0)
    case = case_of(lambda: Mlp(Wrong()))
    monkeypatch.setattr(locating_in_case.building, "build_prepared", None)
    known = Checked(path="", kind="Mlp", problem="output differs from eager", relative_l2=0.1)
    reference = locating_in_case.Reference(case, "cpu", lambda _: None)
    said = locating_in_case.clause(case, reference, known, 0.0, lambda _: None)
    assert said == "not located within 0 s: trtgate locate planted-aot_eager-fp32"
    said = locating_in_case.clause(case, reference, known, 5.0, lambda _: None)
    assert said == "not located, as it was built in 5 s: trtgate locate planted-aot_eager-fp32"


def test_a_search_that_fails_leaves_the_message_as_it_is(tmp_path: Path, monkeypatch: Any) -> None:
    def fails(*_: Any, **_more: Any) -> Any:
        raise RuntimeError("no more")

    monkeypatch.setattr(locating_in_case, "Locator", fails)
    message = failure(case_of(lambda: Mlp(Wrong())), tmp_path)
    assert "output differs from eager" in message
    assert message.endswith(
        "; not located (RuntimeError: no more): trtgate locate planted-aot_eager-fp32 (docs: wrong-output)"
    )


def test_of_a_module_without_submodules_nothing_is_added(tmp_path: Path) -> None:
    assert failure(case_of(Wrong), tmp_path).endswith("nothing was timed or stored (docs: wrong-output)")


def test_a_case_that_is_known_to_fail_is_not_searched(tmp_path: Path) -> None:
    case = case_of(lambda: Mlp(Wrong()), expected_failure=expected_failure("is a tenth too large"))
    assert failure(case, tmp_path).endswith("nothing was timed or stored (docs: wrong-output)")
