"""What a factory may return, how a module is called with it, and what of it other processes find again."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import OrderedDict, UserDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from trtgate import Case, Model, Settings, assert_supported
from trtgate.common.errors import TrtgateError
from trtgate.compiling import building, output_check, program_fingerprint, reference, stored_inputs
from trtgate.coverage import dry_run
from trtgate.suite import samples
from trtgate.suite.model_inputs import Inputs
from trtgate.torch_trt import compile_calls, exporting, gpu_stand_in, releases, stored_modules

needs_torch_tensorrt = pytest.mark.skipif(bool(releases.unavailable()), reason="needs torch_tensorrt")
ROW = torch.linspace(-1.0, 1.0, 16).view(2, 8)


def quiet(_text: str) -> None:
    """Say nothing."""


class Tokens(UserDict[str, Any]):
    """As tokenizers return them."""

    def __init__(self, data: Any = None, encoding: Any = None) -> None:
        super().__init__(data)
        self.encoding = encoding


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@dataclasses.dataclass
class Inner:
    x: torch.Tensor
    mask: torch.Tensor | None = None


@dataclasses.dataclass
class Outer:
    inner: Inner
    scale: float = 2.0
    mode: str = "sum"


class Net(nn.Module):
    """One linear layer, called as a subclass says."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(8, 8)


class OfDict(Net):
    def forward(self, features: Any) -> Any:
        return {"score": torch.relu(self.a(features["user"])) + features["item"]}


class OfKeywords(Net):
    def forward(self, x: Any, *, mask: Any = None, scale: float = 1.0, mode: str = "sum") -> Any:
        y = self.a(x) * scale
        y = y if mask is None else y.masked_fill(mask, 0.0)
        return y.sum(0) if mode == "sum" else y


class OfList(Net):
    def forward(self, levels: Any) -> Any:
        return [torch.relu(self.a(one)) for one in levels]


class OfSteps(Net):
    def forward(self, x: Any, mask: Any = None, steps: int = 2) -> Any:
        for _ in range(steps):
            x = torch.tanh(self.a(x))
        return x if mask is None else x * mask


class OfOuter(Net):
    def forward(self, given: Any) -> Any:
        y = self.a(given.inner.x) * given.scale
        y = y if given.inner.mask is None else y * given.inner.mask
        return y.sum(0) if given.mode == "sum" else y


class OfPair(Net):
    def forward(self, pair: Any) -> Any:
        return self.a(pair.x) + pair.y


class OfAll(Net):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        return torch.relu(self.a(torch.cat([leaf.float().reshape(-1, 8) for leaf in leaves])))


class Adds(nn.Module):
    def forward(self, x: Any, y: Any) -> Any:
        return torch.relu(x + y) * 2


TWO = (ROW, ROW.flip(0))
MASK = ROW > 0
WHOLE: dict[str, Any] = {
    "a dict": lambda: (OfDict(), ({"user": ROW, "item": ROW},)),
    "keywords beside positions": lambda: (OfKeywords(), (ROW,), {"mask": MASK, "scale": 0.5}),
    "a text among the keywords": lambda: (OfKeywords(), ROW, {"mode": "rows"}),
    "keywords alone": lambda: (OfKeywords(), (), {"x": ROW, "mask": MASK}),
    "no positions": lambda: (OfKeywords(), None, {"x": ROW}),
    "a mapping": lambda: (OfKeywords(), {"mask": MASK, "x": ROW}),
    "a tokenizer's mapping": lambda: (OfKeywords(), Tokens({"x": ROW, "mask": MASK})),
    "a tokenizer's mapping at a position": lambda: (OfDict(), (Tokens({"user": ROW, "item": ROW}),)),
    "a list of other sizes": lambda: (OfList(), ([ROW, torch.ones(3, 8)],)),
    "None and a number": lambda: (OfSteps(), (ROW, None, 3)),
    "a list for the tuples": lambda: [OfSteps(), [ROW, torch.ones(2, 8)]],
    "dataclasses": lambda: (OfOuter(), Outer(Inner(ROW, MASK.float()), mode="rows")),
    "dataclasses with None": lambda: (OfOuter(), (Outer(Inner(ROW)),)),
    "a namedtuple": lambda: (OfPair(), Pair(*TWO)),
    "a namedtuple at a position": lambda: (OfPair(), (Pair(*TWO),)),
    "nested": lambda: (
        OfAll(), [{"a": (ROW, [ROW]), 3: ROW}, OrderedDict(z=ROW, y=None)], {"more": {"on": True, "x": ROW}},
    ),
    "one tensor twice": lambda: (Adds(), (ROW, ROW)),
    "a tensor of no dimension": lambda: (Adds(), (ROW, torch.tensor(2.0))),
    "an empty tensor": lambda: (OfAll(), (ROW, torch.zeros(0, 8))),
    "booleans": lambda: (OfAll(), (ROW, MASK)),
    "other strides": lambda: (Adds(), (torch.ones(8, 2).t(), torch.ones(2, 16)[:, ::2])),
    "a size": lambda: (nn.Upsample(), (ROW.view(1, 2, 2, 4),)),
    "any number": lambda: (OfAll(), (ROW, ROW, ROW)),
}  # fmt: skip


def case(factory: Any, frontend: str = "eager", **settings: Any) -> Case:
    return Case(Model("m", factory, ()), Settings(frontend=frontend, **settings))


WHOLE["a size"] = lambda: (Sized(), (ROW.view(1, 2, 2, 4), torch.Size([4, 8])))


class Sized(nn.Module):
    def forward(self, x: Any, size: Any) -> Any:
        return nn.functional.interpolate(x, size=size)


@pytest.mark.parametrize("frontend", ["eager", "aot_eager"])
@pytest.mark.parametrize("name", WHOLE)
def test_each_is_called_as_the_factory_says(name: str, frontend: str) -> None:
    made = WHOLE[name]()
    args, kwargs = made[1], made[2] if len(made) == 3 else {}
    inference, build = reference.checked(case(WHOLE[name], frontend), "cpu", quiet)
    assert build.leaf_error == 0.0
    if type(args) in (tuple, list):
        wanted = made[0](*args, **kwargs)
        assert output_check.compare(wanted, inference()).problem("fp32") == ""


def test_inductor_takes_them_too() -> None:
    for name in ("keywords beside positions", "dataclasses", "a list of other sizes"):
        assert reference.checked(case(WHOLE[name], "inductor"), "cpu", quiet)[1].leaf_error < 1e-5


@needs_torch_tensorrt
@pytest.mark.parametrize("frontend", ["dynamo", "torch_compile"])
@pytest.mark.parametrize("name", [name for name in WHOLE if name != "a size"])
def test_its_coverage_is_asked_without_a_gpu(name: str, frontend: str) -> None:
    found = dry_run.ask(case(WHOLE[name], frontend, min_block_size=1))
    assert (found.in_pytorch, len(found.engines)) == (0, 1)


@needs_torch_tensorrt
@pytest.mark.parametrize("name", WHOLE)
def test_a_stored_program_is_called_with_stored_inputs_as_the_first_was(name: str, tmp_path: Path) -> None:
    """All of it stays in PyTorch, so that no GPU is needed."""
    wanted = case(WHOLE[name], "dynamo", min_block_size=1000)
    module, inputs = building.make(wanted, "cpu")
    eager = inputs.call(module)
    with gpu_stand_in.stand_in(), torch.no_grad():
        compiled = compile_calls.compile_exported(
            exporting.export(module, inputs, wanted.settings), inputs, wanted.settings
        )
        stored_modules.save(compiled, tmp_path / "compiled.pt2")
        stored_inputs.save(inputs, tmp_path)
        loaded = stored_modules.load(tmp_path / "compiled.pt2")
        output = stored_inputs.load(tmp_path, "cpu").call(loaded)
    assert output_check.compare(eager, output).problem("fp32") == ""


BAD = {
    "a dict that means keywords": (
        lambda: (OfDict(), {"user": ROW, "item": ROW}),
        "a mapping, which is keyword arguments, and forward takes no 'user', 'item'; forward takes (features.*({…},)",
    ),
    "a misspelt keyword": (lambda: (OfKeywords(), (ROW,), {"maks": MASK}), "forward takes no keyword argument 'maks'"),
    "a function": (lambda: (torch.relu, ROW), "a callable that is no module is a case of the frontend 'own' alone"),
    "a class": (lambda: (Adds, (ROW, ROW)), "with the class Adds: make an object of it"),
    "a missing argument": (lambda: (Adds(), (ROW,)), "missing a required argument: 'y'; forward takes (x"),
    "both kinds as a pair": (
        lambda: (OfKeywords(), ((ROW,), {"mask": MASK})),
        "too many positional.*: write one mapping by name where some",
    ),
    "one argument more": (lambda: (Adds(), (ROW, ROW, ROW)), "too many positional arguments"),
    "a third tensor": (lambda: (Adds(), ROW, ROW), "kwargs must be a mapping of names to values, not a torch.Tensor"),
    "numbers as names": (lambda: (Adds(), {0: ROW}), "0 is no name: write ({…},)"),
    "an array": (lambda: (OfDict(), ({"user": np.ones(2)},)), 'input args[0]["user"] is a numpy.ndarray: .*as_tensor'),
    "an object": (lambda: (Adds(), (ROW, object())), "input args[1] is an object: inputs are tensors, None"),
    "without end": (lambda: (OfList(), (endless(),)), "its inputs are nested without end"),
    "a module": (Adds, "must return (module, inputs) or (module, args, kwargs), not"),
    "four": (lambda: (Adds(), ROW, {}, 1), "not a tuple of 4: Adds, Tensor, dict, int"),
    "no module": (lambda: ("net", ROW), "not a tuple of 2: str, Tensor"),
}


def endless() -> list[Any]:
    found: list[Any] = [ROW]
    found.append(found)
    return found


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_a_line(name: str) -> None:
    factory, said = BAD[name]
    with pytest.raises(TrtgateError) as failed:
        building.make(case(factory), "cpu")
    place = 0
    for part in said.split(".*"):
        place = str(failed.value).index(part, place)
    assert str(failed.value).startswith("model 'm': ")
    assert "\n" not in str(failed.value)


def test_a_batch_is_asked_of_the_inputs_that_have_it() -> None:
    def factory(batch: int) -> Any:
        return OfAll(), (torch.ones(batch, 8), torch.ones(5, 8))

    assert building.make(case(factory, batch=3), "cpu")[1].shapes == "(3, 8), (5, 8)"
    with pytest.raises(TrtgateError, match=r"batch 3 was asked for, and its factory gave inputs of shape \(2, 8\)"):
        building.make(case(lambda batch: (OfAll(), ROW), batch=3), "cpu")


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_may_be_part_of_a_size(batch: int) -> None:
    """As the tokens of all sequences one after another."""
    settings = Settings(frontend="eager", batch=batch, shape={"seq": 16})
    model = Model("m", lambda batch, seq: (OfAll(), torch.ones(batch * seq, 8)), (settings,))
    assert building.make(Case(model, settings), "cpu")[1].shapes == f"({16 * batch}, 8)"


IMAGE = torch.ones(1, 3, 4, 4)
FIRST = nn.Conv2d(3, 2, 3)


@pytest.mark.parametrize(
    ("factory", "more"),
    [
        (lambda batch: (FIRST, IMAGE), {}),
        (lambda: FIRST, {"inputs": lambda batch: IMAGE}),
        (lambda: FIRST, {"inputs": lambda batch: torch.ones(3, 3, 4, 4)}),
        (lambda batch: (FIRST, IMAGE[0]), {}),
        (lambda batch: (FIRST, torch.ones(3, 3, 4, 4)), {}),
        (lambda batch: (FIRST, torch.ones(2, 3, 4, 4)), {}),
    ],
)
def test_a_batch_that_inputs_have_by_chance_is_told_from_one_that_they_follow(factory: Any, more: Any) -> None:
    model = Model("m", factory, (), **more)
    with pytest.raises(TrtgateError, match=r"batch 3 was asked for, .* and the same at another batch"):
        building.make(Case(model, Settings(frontend="eager", batch=3)), "cpu")


@pytest.mark.parametrize(
    ("factory", "more"),
    [
        (lambda: nn.Linear(8, 8), {"inputs": lambda batch, seq: torch.randn(batch, 8)}),
        (lambda: nn.Linear(8, 8), {"inputs": lambda batch, seq: {"input": torch.ones(batch, 8)}}),
        (lambda batch, seq: (nn.Linear(8, 8), torch.randn(batch, 8)), {}),
        (lambda: nn.Identity(), {"inputs": lambda batch, seq: torch.ones(batch, min(seq, 8))}),
    ],
)
def test_a_dimension_that_changes_no_input_is_named(factory: Any, more: Any) -> None:
    settings = [Settings(frontend="eager", batch=2, shape={"seq": size}) for size in (128, 512)]
    model = Model("m", factory, settings, **more)
    with pytest.raises(TrtgateError) as failed:
        building.make(Case(model, settings[0]), "cpu")
    said = str(failed.value)
    assert said.startswith("model 'm': dimension 'seq' changes no input: they are the same at seq 128 and 512; ")
    assert said.endswith("take it out of shapes, or let the inputs depend on it")


def only_at_128(seq: int) -> Any:
    if seq != 128:
        raise ValueError("a multiple of 128")
    return torch.ones(2, 8)


@pytest.mark.parametrize(
    ("factory", "more"),
    [
        (lambda: nn.Identity(), {"inputs": lambda seq: torch.ones(1, seq)}),
        (lambda: nn.Identity(), {"inputs": lambda seq: torch.ones(1, min(seq, 128))}),
        (lambda: nn.Identity(), {"inputs": lambda seq: torch.ones(1, -(-seq // 64))}),
        (lambda: OfAll(), {"inputs": lambda seq: (torch.ones(1, 512), torch.tensor(seq))}),
        (lambda: OfAll(), {"inputs": lambda seq: (torch.ones(1, 512), seq)}),
        (lambda: nn.Identity(), {"inputs": only_at_128}),
        (lambda seq: (nn.Linear(8, seq), ROW), {}),
        (lambda seq: (nn.MaxPool2d(seq, padding=1), ROW), {}),
        (lambda seq: (nn.Sequential(*(nn.ReLU() for _ in range(seq))), ROW), {}),
    ],
)
def test_a_dimension_may_change_a_shape_a_value_a_number_or_the_module(factory: Any, more: Any) -> None:
    model = Model("m", factory, (), **more)
    building.make(Case(model, Settings(frontend="eager", shape={"seq": 128})), "cpu")


def test_the_parts_of_a_model_need_not_have_all_dimensions() -> None:
    def inputs(seq: int) -> Any:
        return {"prefill": torch.ones(1, seq), "decode": torch.ones(1, 1)}

    settings = [Settings(frontend="eager", shape={"seq": 128})]
    whole = Model(
        "m", lambda: {"prefill": nn.Identity(), "decode": nn.Identity()}, settings, inputs=inputs,
        parts=("prefill", "decode"),
    )  # fmt: skip
    for part in whole.each:
        building.make(Case(part.having(settings), settings[0]), "cpu")


def test_a_batch_that_is_not_leading_is_one_and_the_random_numbers_go_on_as_if_nothing_was_asked() -> None:
    def factory(batch: int) -> Any:
        return nn.Linear(8, 8), torch.randn(5, batch, 8)

    torch.manual_seed(0)
    wanted = factory(3)[1]
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(building.make(case(factory, batch=3), "cpu")[1].args[0], wanted)
    assert torch.equal(torch.rand(1), after)


def test_inputs_of_one_batch_alone_are_believed() -> None:
    def factory(batch: int) -> Any:
        assert batch == 3
        return nn.Linear(8, 8), torch.ones(5, batch, 8)

    assert building.make(case(factory, batch=3), "cpu")[1].shapes == "(5, 3, 8)"


def test_constants_and_structure_are_part_of_what_is_compiled() -> None:
    def fingerprint(*made: Any) -> str:
        module, inputs = building.make(case(lambda: made, "dynamo"), "cpu")
        return program_fingerprint.of_program(exporting.export(module, inputs, Settings(frontend="dynamo")), "cpu")

    of_two = fingerprint(OfSteps(), (ROW, None, 2))
    assert of_two == fingerprint(OfSteps(), (ROW + 1, None, 2))
    assert of_two != fingerprint(OfSteps(), (ROW, None, 3))
    assert fingerprint(OfAll(), (ROW, ROW)) != fingerprint(OfAll(), ([ROW, ROW],))


def test_a_tensor_that_appears_twice_stays_one() -> None:
    mapped = Inputs((ROW, [ROW]), {"x": ROW}).cloned()
    assert mapped.args[0] is mapped.args[1][0] is mapped.kwargs["x"] is not ROW


def test_samples_are_what_the_factory_returns_behind_the_module() -> None:
    def drawn(count: int, seed: int) -> Any:
        for number in range(count):
            yield (torch.full((1, 8), float(number)),), {"scale": 0.5}

    model = Model("m", lambda batch: (OfKeywords(), (torch.ones(batch, 8),), {"scale": 0.5}), (), samples=drawn)
    wanted = Case(model, Settings(frontend="eager", batch=2))
    found = list(samples.of(wanted, building.make(wanted, "cpu")[1], 2, seed=1))
    assert [given.args[0][:, 0].tolist() for given in found] == [[0.0, 1.0], [2.0, 3.0]]
    model = Model("m", lambda: (OfKeywords(), ROW, {"scale": 2.0}), (), samples=drawn)
    wanted = Case(model, Settings(frontend="eager"))
    with pytest.raises(TrtgateError, match="structure or constants"):
        list(samples.of(wanted, building.make(wanted, "cpu")[1], 1, seed=1))


@pytest.mark.parametrize(
    "value",
    [ROW.to_sparse(), torch.nested.nested_tensor([ROW, ROW[:1]], layout=torch.jagged)],
    ids=["sparse", "nested"],
)
def test_samples_of_what_is_not_dense_are_the_example(value: torch.Tensor) -> None:
    model = Model("m", lambda: (OfPair(), value), ())
    (found,) = samples.of(Case(model, Settings(frontend="eager")), Inputs((value, ROW)), 1, seed=1)
    assert found.args[0] is value
    assert not torch.equal(found.args[1], ROW)


@needs_torch_tensorrt
def test_the_assertion_takes_keyword_arguments() -> None:
    assert assert_supported(OfKeywords(), (ROW,), {"mask": MASK}, min_block_size=1).engines
    assert assert_supported(OfKeywords(), None, {"x": ROW}, min_block_size=1).engines
    assert assert_supported(OfKeywords(), {"x": ROW}, min_block_size=1).engines
    with pytest.raises(TrtgateError, match="OfKeywords: inputs is a function, so kwargs is left out"):
        assert_supported(OfKeywords(), lambda batch: ROW, {"mask": MASK})


@pytest.mark.parametrize("frontend", ["ts_trace", "ts_script", "fx"])
def test_a_frontend_that_takes_tensors_alone_says_so(frontend: str) -> None:
    with pytest.raises(
        TrtgateError, match=f"{frontend} takes tensors as positional arguments only, .* have mask, scale"
    ):
        Inputs((ROW,), {"mask": MASK, "scale": 0.5}).check_plain(frontend)
    Inputs((ROW, ROW)).check_plain(frontend)


# Classes that a package registers when it is imported


PACKAGE = {
    "shapes/__init__.py": "from . import registering\n",
    "shapes/classes.py": "class Box:\n    def __init__(self, at, size):\n        self.at, self.size = at, size\n",
    "shapes/registering.py": (
        "from torch.utils import _pytree\nfrom .classes import Box\n"
        "_pytree.register_pytree_node(Box, lambda box: ([box.at, box.size], None), lambda held, _: Box(*held),\n"
        "    serialized_type_name='shapes.Box', flatten_with_keys_fn=lambda box: (\n"
        "        [(_pytree.GetAttrKey('at'), box.at), (_pytree.GetAttrKey('size'), box.size)], None))\n"
    ),
}
STORES = """
import sys, torch, shapes
from pathlib import Path
from shapes.classes import Box
from trtgate.suite.model_inputs import Inputs
from trtgate.compiling import stored_inputs
from trtgate.torch_trt import stored_modules

class Moves(torch.nn.Module):
    def forward(self, box):
        return Box(box.at + 1, box.size * 2)

inputs = Inputs((Box(torch.zeros(2), torch.ones(2)),))
program = torch.export.export(Moves(), inputs.args)
file = Path(sys.argv[1]) / "compiled.pt2"
torch.export.save(program, file)
stored_modules.save_classes(program.module(), file)
stored_inputs.save(inputs, file.parent)
"""
LOADS = """
import sys, torch
from pathlib import Path
from trtgate.compiling import stored_inputs
from trtgate.torch_trt import stored_modules

file = Path(sys.argv[1]) / "compiled.pt2"
assert "shapes" not in sys.modules
stored_modules.load_classes(file)
found = stored_inputs.load(file.parent, "cpu").call(torch.export.load(file).module())
print(type(found).__name__, found.at.tolist(), found.size.tolist())
"""


@pytest.mark.usefixtures("forked")
def test_a_process_that_never_imported_a_package_loads_a_program_that_returns_its_classes(tmp_path: Path) -> None:
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    said = ""
    for code in (STORES, LOADS):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said = done.stdout
    assert said.splitlines()[-1] == "Box [1.0, 1.0] [2.0, 2.0]"


class Keyless:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


pytree.register_pytree_node(Keyless, lambda one: ([one.x], None), lambda held, _context: Keyless(*held))


def test_a_class_that_is_registered_without_keys_is_a_node_too() -> None:
    inference = reference.checked(case(lambda: (OfAll(), (Keyless(ROW), ROW))), "cpu", quiet)[0]
    assert inference.inputs.args[0].x is not ROW


def test_a_class_that_no_other_process_finds_is_named(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Local:
        x: torch.Tensor

    inputs = building.make(case(lambda: (OfAll(), (ROW, Local(ROW)))), "cpu")[1]
    with pytest.raises(TrtgateError, match=r"Local, a class of its inputs or output, is not at the top of a module"):
        stored_inputs.save(inputs, tmp_path)


# Outputs of classes that nobody registered


@dataclasses.dataclass
class Scores:
    scores: torch.Tensor
    loss: Any = None


class Opaque:
    def __init__(self, scores: torch.Tensor) -> None:
        self.scores = scores


class Returns(Net):
    """Gives its output in a class."""

    def __init__(self, cls: Any) -> None:
        super().__init__()
        self.cls = cls

    def forward(self, x: torch.Tensor) -> Any:
        return [self.cls(self.a(x))]


def test_the_classes_of_an_output_are_registered_as_those_of_inputs_are() -> None:
    class Local(Scores):
        pass

    dataclasses.dataclass(Local)
    module = Returns(Local)
    program = exporting.export(module, Inputs((ROW,)), Settings(frontend="dynamo"))
    (found,) = program.module()(ROW)
    assert isinstance(found, Local)
    torch.testing.assert_close(found.scores, module(ROW)[0].scores)


def test_eagers_output_is_taken_apart_as_that_of_a_compiled_module_is() -> None:
    class Local(Scores):
        pass

    dataclasses.dataclass(Local)
    own = case(lambda: (Returns(Local), ROW), "dynamo")
    found = reference.Reference(own, "cpu", quiet)
    program = exporting.export(found.module, found.inputs, own.settings)
    compared = output_check.compare_walked(found.expected.first, program.module()(ROW))
    assert compared.problem("fp32") == ""
    assert compared.counted == {"floating-point": 1, "other": 1}  # a field that is None, as of a class not registered


def test_an_output_of_another_class_is_named_with_what_to_do() -> None:
    with pytest.raises(TrtgateError, match=r"its output holds a .*Opaque, which torch.export takes only if it is reg"):
        exporting.export(Returns(Opaque), Inputs((ROW,)), Settings(frontend="dynamo"))
