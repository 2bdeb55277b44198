"""A loaded program whose engines are submodules again, so that it can be profiled; the engines are played."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from trtgate.common.errors import TrtgateError
from trtgate.compiling import reference
from trtgate.frontends import CompiledModule, dynamo
from trtgate.profiles import profile_recording
from trtgate.records.profile_record import PYTORCH, TENSORRT, Part
from trtgate.torch_trt import engine_sizes, loaded_engines, stored_modules


class PlayedEngine:
    """As `torch.classes.tensorrt.Engine`, as far as it goes: adds a number to each input."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.said: list[str] = []
        self.profile_path_prefix = ""

    def __getstate__(self) -> tuple[Any, ...]:
        return (["version", base64.b64encode(b"serialized engine %d" % self.number).decode()],)

    def _type(self) -> str:
        return "__torch__.torch.classes.tensorrt.Engine"

    def enable_profiling(self) -> None:
        self.said.append(f"profiling into {self.profile_path_prefix}")

    def set_profile_format(self, name: str) -> None:
        self.said.append(name)

    def get_engine_layer_info(self) -> str:
        return f"layers of {self.number}"


def execute_engine(inputs: list[torch.Tensor], engine: PlayedEngine) -> list[torch.Tensor]:
    return [value + engine.number for value in inputs]


@pytest.fixture(autouse=True)
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "ScriptObject", PlayedEngine)


def program(*numbers: int) -> Any:
    """Return a program that calls an engine for each number, one after the other, as a loaded one does."""
    graph = torch.fx.Graph()
    value, root = graph.placeholder("x"), torch.nn.Module()
    for place, number in enumerate(numbers):
        name = f"_run_on_acc_{place}_engine"
        setattr(root, name, PlayedEngine(number))
        called = graph.call_function(execute_engine, ([value], graph.get_attr(name)))
        value = graph.call_function(torch.ops.aten.relu.default, (graph.call_function(getitem, (called, 0)),))
    graph.output(value)
    return torch.fx.GraphModule(root, graph)


def getitem(values: list[torch.Tensor], place: int) -> torch.Tensor:
    return values[place]


def parts(*names: str, kind: str = TENSORRT) -> tuple[tuple[Part, ...], ...]:
    return (tuple(Part(name=name, kind=kind, layers=[], inputs=["x"]) for name in names),)


class Stored:
    """A folder that holds a program; of an earlier version it says nothing of its parts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.asked = folder, list[Path]()
        self._patch = monkeypatch
        self.inference: Any = None

    def to_profile(self, made: Any, known: Any, dynamic: Any = None) -> Any:
        """Return what is loaded of it to be profiled."""
        self.inference = SimpleNamespace(compiled=CompiledModule(made, 0.1))

        def load_checked(_case: Any, folder: Path, _device: str) -> Any:
            self.asked.append(folder)
            return self.inference

        self._patch.setattr(reference, "load_checked", load_checked)
        if known is not None:
            (self.folder / dynamo.PARTS).write_bytes(msgspec.json.encode(known))
        case: Any = SimpleNamespace(settings=SimpleNamespace(dynamic=dynamic))
        return profile_recording.loaded(case, self.folder, "cuda")


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stored:
    return Stored(tmp_path, monkeypatch)


def test_each_engine_is_a_submodule_and_the_program_says_what_it_said(stored: Stored) -> None:
    made, x, known = program(1, 20), torch.zeros(3), parts("_run_on_acc_0", "_run_on_acc_1")
    before, sizes = made(x), engine_sizes.of(made)
    inference = stored.to_profile(made, known)
    assert inference is not None
    assert inference.compiled.parts == known
    (module,) = inference.compiled.modules
    seen: list[float] = []
    for name in ("_run_on_acc_0", "_run_on_acc_1"):
        module.get_submodule(name).register_forward_pre_hook(lambda _module, given: seen.append(float(given[0][0])))
    assert torch.equal(module(x), before)
    assert seen == [0.0, 1.0]
    assert engine_sizes.of(module) == sizes == [len(b"serialized engine 1"), len(b"serialized engine 20")]
    assert module.get_submodule("_run_on_acc_1").serialized_engine == b"serialized engine 20"


def test_a_submodule_profiles_its_engine_as_upstream_s_does() -> None:
    made = program(7)
    engine = made._run_on_acc_0_engine
    loaded_engines.make_submodules(made, ["engine"])
    module = made.get_submodule("engine")
    module.enable_profiling("folder", "trex")
    assert engine.said == ["profiling into folder", "trex"]
    assert module.get_layer_info() == "layers of 7"


@pytest.mark.parametrize(
    ("numbers", "known"),
    [
        ((1,), ()),
        ((1,), parts("a", "b")),
        ((1, 2), parts("a")),
        ((1,), parts("a", kind=PYTORCH)),
        ((1,), parts("")),
        ((1,), (*parts("a"), *parts("b"))),
    ],
)
def test_a_program_whose_parts_are_not_seen_is_built_to_be_profiled_and_stays_as_it_is(
    numbers: tuple[int, ...], known: Any, stored: Stored
) -> None:
    made = program(*numbers)
    code = made.code
    assert stored.to_profile(made, known) is None
    assert (made.code, stored.inference.compiled.modules) == (code, ())


def test_an_engine_of_another_runtime_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    made = program(1)
    monkeypatch.setattr(torch, "ScriptObject", int)
    with pytest.raises(TrtgateError, match="1 engines were built, and the loaded program calls 1"):
        loaded_engines.make_submodules(made, ["a"])
    assert not hasattr(made, "a")


def test_what_a_module_was_partitioned_into_is_stored_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_modules, "save", lambda _module, file: file.write_bytes(b""))
    monkeypatch.setattr(stored_modules, "load", lambda _file: "the module")
    known = parts("_run_on_acc_0")
    dynamo.FRONTEND.save(CompiledModule("the module", 1.0, parts=known), None, tmp_path)  # type: ignore[arg-type]
    assert dynamo.stored_parts(tmp_path) == known
    (tmp_path / dynamo.PARTS).unlink()  # by an earlier version
    assert dynamo.stored_parts(tmp_path) == ()
    assert dynamo.FRONTEND.load(tmp_path).run == "the module"  # type: ignore[comparison-overlap]
    (tmp_path / dynamo.PARTS).write_bytes(b'[[{"name": 1}]]')
    with pytest.raises(msgspec.ValidationError):
        dynamo.stored_parts(tmp_path)


@pytest.mark.parametrize(
    ("known", "dynamic", "wanted"),
    [
        (parts("_run_on_acc_0"), None, True),
        (parts("_run_on_acc_0"), {"seq": (1, 2, 4)}, False),  # all shapes share what is stored
        (parts("_run_on_gpu_0", kind=PYTORCH), None, False),
        (None, None, False),
    ],
    ids=["engines alone", "dynamic shapes", "a part in PyTorch", "of an earlier version"],
)
def test_which_stored_modules_are_profiled_as_they_are(known: Any, dynamic: Any, wanted: bool, stored: Stored) -> None:
    found = stored.to_profile(program(1), known, dynamic)
    assert (found is not None, stored.asked) == (wanted, [stored.folder] * wanted)  # what is built is not loaded first
