"""How compiled modules are stored, with torch's own archives; packed weights, also a script object, are the engine."""

from __future__ import annotations

import base64
import copy
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    CustomObjArgument,
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from trtgate.torch_trt import releases, stored_modules
from trtgate.torch_trt.patching import replaced

SERIALIZED = bytes(range(256)) * 4
LINEAR = torch.ops.quantized.linear_dynamic


class Compiled(torch.nn.Module):
    """A module with an engine, as torch_tensorrt has them."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantized tensors are deprecated
            weight = torch.quantize_per_tensor(torch.randn(4, 4), 0.1, 0, torch.qint8)
        self.engine = torch.ops.quantized.linear_prepack(weight, None)

    def _pack_engine_info(self) -> list[str | bytes]:
        return ["an engine", SERIALIZED]


def program_of(module: Any, inputs: tuple[torch.Tensor]) -> ExportedProgram:
    """Return the program that calls a copy of a module's engine."""
    (x,) = inputs
    fake, graph = FakeTensorMode(), torch.fx.Graph()
    engine = graph.placeholder("engine")
    engine.meta["val"] = CustomObjArgument(name="engine", class_fqn="")
    given = graph.placeholder("x")
    given.meta["val"] = fake.from_tensor(x)
    output = graph.call_function(LINEAR.default, (given, engine))
    output.meta["val"] = fake.from_tensor(x)
    graph.output((output,))
    specs = [
        InputSpec(InputKind.CUSTOM_OBJ, CustomObjArgument(name="engine", class_fqn=""), "engine"),
        InputSpec(InputKind.USER_INPUT, TensorArgument(name="x"), None),
    ]
    signature = ExportGraphSignature(specs, [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(output.name), None)])
    trees = [pytree.tree_flatten(value)[1] for value in (((x,), {}), x)]
    return ExportedProgram(
        torch.nn.Module(), graph, signature, {}, {}, [ModuleCallEntry("", ModuleCallSignature([], [], *trees))],
        constants={"engine": copy.deepcopy(module).engine},
    )  # fmt: skip


@pytest.fixture
def torch_tensorrt(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """As far as it is needed to store: what it exports is real, and goes through torch's archive."""
    module = types.ModuleType("torch_tensorrt")

    def save(compiled: Any, file: str, **_options: Any) -> None:
        torch.export.save(program_of(compiled, (torch.zeros(4, 4),)), file)

    module.save, module.load = save, torch.export.load  # type: ignore[attr-defined]
    monkeypatch.setattr(stored_modules, "_engine_pickling", lambda: None)  # another test may have imported the real one
    monkeypatch.setitem(sys.modules, "torch_tensorrt", module)
    return module


@pytest.mark.usefixtures("torch_tensorrt")
def test_a_stored_module_computes_the_same_with_engines_made_of_what_was_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiled, x, made = Compiled(), torch.randn(4, 4), []

    def engine(information: list[str | bytes]) -> Any:
        made.append(information)
        return compiled.engine

    monkeypatch.setattr(torch.classes, "tensorrt", types.SimpleNamespace(Engine=engine), raising=False)
    stored_modules.save(compiled, tmp_path / "compiled.pt2")
    loaded = stored_modules.load(tmp_path / "compiled.pt2")
    assert made == [["an engine", SERIALIZED]]
    assert torch.equal(loaded(x), LINEAR(x, compiled.engine))
    assert SERIALIZED not in (tmp_path / "compiled.pt2").read_bytes()
    assert (tmp_path / "compiled.0.engine").read_bytes() == SERIALIZED


def test_a_script_object_that_is_no_engine_is_stored_as_torch_does(
    torch_tensorrt: types.ModuleType, tmp_path: Path
) -> None:
    compiled, other, x = Compiled(), Compiled(), torch.randn(4, 4)
    torch_tensorrt.save = lambda _module, file, **_options: torch.export.save(program_of(other, (x,)), file)  # type: ignore[attr-defined]
    stored_modules.save(compiled, tmp_path / "compiled.pt2")
    loaded = stored_modules.load(tmp_path / "compiled.pt2")
    assert torch.equal(loaded(x), LINEAR(x, other.engine))


def test_a_copied_module_shares_its_engines_only_while_it_is_stored() -> None:
    compiled = Compiled()
    with stored_modules.sharing_engines():
        assert copy.deepcopy(compiled).engine is compiled.engine
    assert copy.deepcopy(compiled).engine is not compiled.engine
    assert "__reduce_ex__" not in vars(torch.ScriptObject)


INFORMATION: list[str | bytes] = [*(f"field {number}" for number in range(3)), SERIALIZED, *["more"] * 9]
"""What 2.14 packs: the engine is the fourth of 13 fields."""


class Accelerated(torch.nn.Module):
    """A part that TensorRT runs; its engine, of the Python runtime, was never made: that takes a GPU."""

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self.engine = engine

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x,)


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the real torch_tensorrt that pickles engines by Python; what makes an engine keeps what of."""
    torch_tensorrt = releases.imported()
    module = pytest.importorskip("torch_tensorrt.dynamo.runtime._TRTEngine")
    if not hasattr(module, "EngineSerializer"):
        pytest.skip("this torch_tensorrt lets torch pickle its engines")

    def made(engine: Any, information: list[str | bytes]) -> None:
        engine.serialized_info, engine.name = list(information), "engine"
        engine.serialized_device_info, engine.cudagraph = "", None  # what its repr and its end read

    monkeypatch.setattr(module.TRTEngine, "__init__", made)
    features = torch_tensorrt.ENABLED_FEATURES._replace(torch_tensorrt_runtime=False)
    monkeypatch.setattr(torch_tensorrt, "ENABLED_FEATURES", features)
    return module


def compiled_by(upstream: Any) -> torch.fx.GraphModule:
    """Return a module as torch_tensorrt makes it: one part, called with its input."""
    root, graph, x = torch.nn.Module(), torch.fx.Graph(), torch.zeros(4)
    root.add_module("_run_on_acc_0", Accelerated(upstream.TRTEngine(INFORMATION)))
    given, fake = graph.placeholder("x"), FakeTensorMode().from_tensor(x)
    given.meta["val"] = fake
    part = graph.call_module("_run_on_acc_0", (given,))
    part.meta["val"] = [fake]
    graph.output((part,))
    trees = [pytree.tree_flatten(value)[1] for value in (((x,), {}), x)]
    graph._codegen = _PyTreeCodeGen(_PyTreeInfo(["x"], *trees))
    return torch.fx.GraphModule(root, graph)


def engine_loaded(upstream: Any, file: Path) -> Any:
    """Load a module, and return the engine that it calls; what holds an engine's fields stands for it."""
    with replaced(upstream, "TRTEngine", upstream.EngineSerializer):
        loaded: Any = stored_modules.load(file)
    calls = [node for node in loaded.graph.nodes if node.target is torch.ops.tensorrt.execute_engine.default]
    return getattr(loaded, calls[0].args[1].target)


def test_an_engine_that_python_pickles_lies_beside_the_program_as_it_is(upstream: Any, tmp_path: Path) -> None:
    file = tmp_path / "compiled.pt2"
    stored_modules.save(compiled_by(upstream), file)
    assert engine_loaded(upstream, file).serialized_info == INFORMATION
    archive = file.read_bytes()
    assert not [one for one in (SERIALIZED, base64.b64encode(SERIALIZED)) if one in archive]
    assert (tmp_path / "compiled.0.engine").read_bytes() == SERIALIZED


def test_an_engine_that_an_earlier_trtgate_let_python_pickle_is_loaded_as_upstream_does(
    upstream: Any, tmp_path: Path
) -> None:
    file, compiled = tmp_path / "compiled.pt2", compiled_by(upstream)
    with stored_modules.sharing_engines():
        releases.imported().save(compiled, str(file), output_format="exported_program", retrace=False)
    assert base64.b64encode(SERIALIZED) in file.read_bytes()
    file.with_suffix(stored_modules.ENGINES).write_text("[]")
    stored_modules.save_classes(compiled, file)
    assert engine_loaded(upstream, file).serialized_info == INFORMATION
