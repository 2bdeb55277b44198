"""What decides the latency of a case on a given machine: each class of it, changed, is another program part.

The table of docs/affected.md has a test here for each of its rows, and for what decides nothing.
"""

from __future__ import annotations

import functools
import importlib
import os
import random
import re
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from trtgate import Case, Model, Settings
from trtgate.common import library_files
from trtgate.common.errors import TrtgateError
from trtgate.compiling import artifact_cache, process_flags, program_fingerprint, program_part
from trtgate.compiling.fingerprinting import Fingerprinter
from trtgate.gate import program_changes
from trtgate.records.program_part import Fingerprint, ProgramPart
from trtgate.torch_trt import custom_operators, native_files, operator_files


class Net(nn.Module):
    """Two layers, a buffer that is saved and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("kept", torch.ones(4))
        self.register_buffer("dropped", torch.ones(4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.relu(self.one(x))) + self.kept + self.dropped


class Renamed(nn.Module):
    """The same under other names, written in another order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        first, second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("temporary", torch.ones(4), persistent=False)
        self.register_buffer("saved", torch.ones(4))
        self.last = second
        self.stem = first

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.stem(images)
        hidden = torch.relu(hidden)
        return self.last(hidden) + self.saved + self.temporary


def row() -> torch.Tensor:
    return torch.arange(8.0).view(2, 4)


def case_of(module: Callable[[], nn.Module] = Net, inputs: Callable[[], Any] = row, **settings: Any) -> Case:
    return Case(Model("net", lambda: (module().eval(), inputs()), ()), Settings(frontend="dynamo", **settings))


def of(module: Callable[[], nn.Module] = Net, inputs: Callable[[], Any] = row, **settings: Any) -> Fingerprint:
    found = Fingerprinter().of(case_of(module, inputs, **settings))
    assert not found.problem
    return found


def changed(change: Callable[[Net], object]) -> Callable[[], nn.Module]:
    """Return what makes the net and changes it."""

    def make() -> nn.Module:
        made = Net()
        with torch.no_grad():
            change(made)
        return made

    return make


@pytest.fixture(scope="module")
def before() -> Fingerprint:
    return of()


def parts(before: Fingerprint, now: Fingerprint) -> set[str]:
    """Return the names of the parts in which two programs differ."""
    assert before.program is not None
    assert now.program is not None
    names = set(ProgramPart.__struct_fields__) - {"modules"}
    found = {name for name in names if getattr(before.program, name) != getattr(now.program, name)}
    assert program_changes.same(before.program, now.program) == (not found)
    assert bool(program_changes.changes(before, now)) == bool(found)
    return found


# What decides nothing


def test_the_same_is_the_same_again(before: Fingerprint) -> None:
    assert parts(before, of()) == set()


def test_names_of_modules_and_arguments_and_the_order_in_which_they_are_written_decide_nothing(
    before: Fingerprint,
) -> None:
    assert parts(before, of(Renamed)) == set()


FACTORY = """
import torch
{comment}
def factory():
    {comment}
    torch.manual_seed(0)
    return torch.nn.Linear(4, 4).eval(), torch.ones(2, 4)
"""


def test_a_comment_in_the_factory_and_the_place_of_a_line_decide_nothing(tmp_path: Path) -> None:
    found = []
    for comment in ("", "# another\n" * 3):
        namespace: dict[str, Any] = {}
        file = tmp_path / f"suite{len(found)}.py"
        file.write_text(FACTORY.replace("    {comment}\n", "").format(comment=comment))
        exec(compile(file.read_text(), str(file), "exec"), namespace)
        found.append(Fingerprinter().of(Case(Model("net", namespace["factory"], ()), Settings(frontend="dynamo"))))
    assert parts(*found) == set()


def test_a_parameter_of_another_name_that_nothing_reads_is_a_weight_all_the_same(before: Fingerprint) -> None:
    unread = changed(lambda net: net.register_parameter("unread", nn.Parameter(torch.ones(3))))
    assert parts(before, of(unread)) == {"weights"}


def test_how_a_case_is_judged_decides_nothing(before: Fingerprint) -> None:
    assert parts(before, of(limits={"device": 0.5}, tolerances={"output": 0.1}, needs_gpu=True)) == set()


# The graph


class Times(Net):
    """Multiplies by a number that the forward closes over."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.times = lambda x: x * factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.times(super().forward(x))


class Branching(Net):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def larger(y: torch.Tensor) -> torch.Tensor:
            return y * self.factor

        return torch.cond(x.sum() > 0, larger, torch.sin, (super().forward(x),))


GRAPHS: dict[str, Callable[[], nn.Module]] = {
    "another operator": changed(lambda net: net.register_module("one", nn.Sequential(net.one, nn.GELU()))),
    "a hook": changed(lambda net: net.two.register_forward_hook(lambda _module, _inputs, output: output * 2)),
    "a hook before": changed(lambda net: net.one.register_forward_pre_hook(lambda _module, inputs: inputs[0] + 1)),
    "another activation": changed(lambda net: setattr(net, "one", nn.Sequential(net.one, nn.Dropout(), nn.Hardtanh()))),
    "another width": changed(lambda net: (setattr(net, "one", nn.Linear(4, 8)), setattr(net, "two", nn.Linear(8, 4)))),
    "no bias": changed(lambda net: setattr(net, "one", nn.Linear(4, 4, bias=False))),
    "another epsilon": changed(lambda net: setattr(net, "two", nn.Sequential(net.two, nn.LayerNorm(4, eps=1e-3)))),
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph(before: Fingerprint, kind: str) -> None:
    assert "graph" in parts(before, of(GRAPHS[kind]))


@pytest.mark.parametrize("made", [Times, Branching])
def test_a_number_that_a_function_closes_over_also_in_a_branch(made: Any) -> None:
    first = of(functools.partial(made, 2.0))
    assert parts(first, of(functools.partial(made, 2.0))) == set()
    assert parts(first, of(functools.partial(made, 3.0))) == {"graph"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_whether_a_forward_has_autocast_for_cuda_also_without_a_gpu(dtype: torch.dtype) -> None:
    class Cast(nn.Linear):
        asked = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cuda", dtype=dtype, enabled=self.asked):
                return super().forward(x)

    class NotCast(Cast):
        asked = False

    one, other = (of(lambda kind=kind: filled(kind(4, 4))) for kind in (Cast, NotCast))
    assert parts(one, other) == {"graph"}


def filled(module: nn.Module) -> nn.Module:
    """Return a module with ones for its parameters."""
    for each in module.parameters():
        nn.init.ones_(each)
    return module


def test_where_a_graph_differs_is_told_by_its_modules(before: Fingerprint) -> None:
    deeper = of(GRAPHS["another operator"])
    assert [one for one in program_changes.changes(before, deeper) if one.startswith("operators of one")]
    stored = Fingerprint(program=before.program)
    assert [one for one in program_changes.changes(stored, deeper) if one.startswith("operators of one")]


def test_operators_that_read_something_else(before: Fingerprint) -> None:
    class Crossed(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(torch.relu(self.one(x))) + self.dropped + self.kept + 0 * self.one(x).sum()

    class Straight(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(torch.relu(self.one(x))) + self.dropped + self.kept + 0 * self.one(x.flip(0)).sum()

    assert "graph" in parts(of(Crossed), of(Straight))


def test_of_many_modules_those_that_hold_them_are_stored() -> None:
    modules = {f"stage{stage}.block{block}.conv": f"{stage}{block}" for stage in range(4) for block in range(10)}
    stored = program_part.few(modules)
    assert list(stored) == [f"stage{stage}" for stage in range(4)]
    other = program_part.few(modules | {"stage2.block7.conv": "another"})
    assert [name for name in stored if stored[name] != other[name]] == ["stage2"]
    assert set(program_part.few({f"layer{number}": "" for number in range(100)}, most=3)) == {
        "layer0",
        "layer1",
        "layer2",
    }


def test_a_program_on_another_device_has_the_same_graph() -> None:
    """As where there is a GPU, which may lay out what it computes otherwise; another device stays another."""

    class Makes(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.ones(4, device=x.device)

    program = torch.export.export(Makes().eval().requires_grad_(False), (row(),))
    here = program_fingerprint.of_program(program, "cpu").graph
    for node in program.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": torch.device("cuda", 0)}
        if isinstance(value := node.meta.get("val"), torch.Tensor):
            strides = value.stride() if node.op == "placeholder" else [one + 1 for one in value.stride()]
            with FakeTensorMode():  # needs no GPU
                node.meta["val"] = torch.empty_strided(value.shape, strides, dtype=value.dtype, device="cuda")
    assert program_fingerprint.of_program(program, "cuda").graph == here
    assert program_fingerprint.of_program(program, "cpu").graph != here


# Weights and constants


WEIGHTS: dict[str, Callable[[Net], object]] = {
    "a parameter": lambda net: net.two.weight[0, 0].add_(1e-6),
    "a buffer that is saved": lambda net: net.kept[1].add_(1),
    "two weights that are tied": lambda net: setattr(net.two, "weight", net.one.weight),
    "another seed": lambda net: (torch.manual_seed(1), net.one.reset_parameters()),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights(before: Fingerprint, kind: str) -> None:
    assert "weights" in parts(before, of(changed(WEIGHTS[kind]))) - {"constants", "inputs"}


def test_a_weight_that_was_tied_is_none_of_its_own_though_it_has_the_same_values() -> None:
    def tied(net: Net) -> None:
        net.two.weight = net.one.weight

    def apart(net: Net) -> None:
        net.two.weight = nn.Parameter(net.one.weight.clone())

    one, two = of(changed(tied)), of(changed(apart))
    assert parts(one, of(changed(tied))) == set()
    assert parts(one, two)
    assert program_changes.changes(one, two)


def test_a_buffer_that_is_not_saved_is_a_constant(before: Fingerprint) -> None:
    assert parts(before, of(changed(lambda net: net.dropped[0].add_(1)))) == {"constants"}
    assert parts(before, of(changed(lambda net: net.register_buffer("kept", net.kept, persistent=False)))) == {
        "constants", "weights",
    }  # fmt: skip


def test_a_tensor_that_is_an_attribute_or_is_made_in_forward_is_a_constant() -> None:
    class Holds(Net):
        def __init__(self, value: float, inner: float) -> None:
            super().__init__()
            self.value, self.inner = torch.full((4,), value), inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + self.value + torch.tensor([self.inner] * 4)

    first = of(functools.partial(Holds, 1.0, 1.0))
    assert parts(first, of(functools.partial(Holds, 2.0, 1.0))) == {"constants"}
    assert parts(first, of(functools.partial(Holds, 1.0, 2.0))) == {"constants"}


def test_weights_that_differ_are_named(before: Fingerprint) -> None:
    assert program_changes.changes(before, of(changed(WEIGHTS["a parameter"]))) == ["weights two.weight"]
    assert program_changes.changes(before, of(changed(lambda net: net.dropped[0].add_(1)))) == ["constants dropped"]
    stored = Fingerprint(program=before.program)
    assert program_changes.changes(stored, of(changed(WEIGHTS["a parameter"]))) == ["weights"]


def test_weights_that_can_not_be_read_are_no_program() -> None:
    class Sparse(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("sparse", torch.eye(4).to_sparse())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    found = Fingerprinter().of(case_of(Sparse))
    assert found.program is None
    assert found.problem


# Inputs


INPUTS: dict[str, Callable[[], Any]] = {
    "a shape": lambda: torch.arange(12.0).view(3, 4),
    "values": lambda: row() + 1,
    "strides": lambda: row().t().contiguous().t(),
    "how they are nested": lambda: {"x": row()},
}


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs(before: Fingerprint, kind: str) -> None:
    assert "inputs" in parts(before, of(inputs=INPUTS[kind]))


def test_an_input_that_is_a_constant() -> None:
    class Steps(nn.Module):
        def forward(self, x: torch.Tensor, steps: int) -> torch.Tensor:
            for _ in range(steps):
                x = torch.sin(x)
            return x

    assert parts(of(Steps, lambda: (row(), 2)), of(Steps, lambda: (row(), 3))) == {"graph", "inputs"}


def test_what_a_model_brings_along_is_a_weight_whatever_it_is_called() -> None:
    """A codebook in a module named a quantizer; the scales of a model that its factory quantized."""

    def quantizing(name: str, value: float) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            made = Net()
            made.vector_quantizer = nn.Module()
            made.vector_quantizer.register_buffer(name, torch.full((4,), value))
            return made

        return make

    for name in ("codebook", "_amax"):
        assert parts(of(quantizing(name, 1.0)), of(quantizing(name, 2.0))) == {"weights"}
    program = torch.export.export(quantizing("_amax", 1.0)(), (row(),))
    other = torch.export.export(quantizing("_amax", 2.0)(), (row(),))
    one, two = (program_fingerprint.of_program(each, "cpu", calibrated_here=True) for each in (program, other))
    assert (one.weights == two.weights, one.calibrated == two.calibrated) == (True, False)


def test_what_a_quantized_module_is_calibrated_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from trtgate.torch_trt import quantization

    monkeypatch.setattr(quantization, "CALIBRATION_BATCHES", 2)

    def calibrated(value: float) -> str:
        samples = lambda count, seed: (torch.full((1, 4), value) for _ in range(count))  # noqa: E731
        model = Model("net", lambda batch: (Net(), torch.ones(batch, 4)), (), samples=samples)
        case = Case(model, Settings(frontend="dynamo", precision="int8", batch=1))
        return program_part._calibration(case, program_inputs(case), None, "cpu")

    assert calibrated(1.0) == calibrated(1.0) != calibrated(2.0)


def program_inputs(case: Case) -> Any:
    from trtgate.compiling import factory_calls

    return factory_calls.made(case)[1]


# Settings, flags, environment


SETTINGS: dict[str, dict[str, Any]] = {
    "precision": {"precision": "fp16"}, "min_block_size": {"min_block_size": 1},
    "torch_executed_ops": {"torch_executed_ops": ("aten.relu",)}, "options": {"options": {"optimization_level": 3}},
    "runtime": {"runtime": "python"}, "cudagraphs": {"cudagraphs": True},
    "profiling_verbosity": {"profiling_verbosity": "none"},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(before: Fingerprint, name: str) -> None:
    now = of(**SETTINGS[name])
    assert "settings" in parts(before, now)
    assert [one for one in program_changes.changes(before, now) if one.startswith(f"setting {name} ")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"options": {"optimization_level": 3, "hardware_compatible": True}},
         {"options": {"hardware_compatible": True, "optimization_level": 3}}),
        ({"torch_executed_ops": ("aten.relu", "aten.add")}, {"torch_executed_ops": ("aten.add", "aten.relu")}),
    ],
    ids=["options", "operators"],
)  # fmt: skip
def test_the_order_in_which_settings_are_written_decides_nothing(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert parts(of(**one), of(**other)) == set()


@pytest.mark.parametrize("absolute", [False, True])
def test_a_file_that_an_option_names_in_the_suites_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absolute: bool
) -> None:
    """As a timing cache that lies in the repository: each side of a comparison has its own."""
    monkeypatch.chdir(tmp_path)
    named = str(tmp_path / "timing.bin") if absolute else "timing.bin"

    def found(content: str) -> tuple[Fingerprint, str]:
        (tmp_path / "timing.bin").write_text(content)
        wanted = case_of(options={"timing_cache_path": named})
        program = torch.export.export(Net().eval(), (row(),))
        identified = program_part.of_program(wanted, program, program_inputs(wanted), None, "cpu")
        return of(options={"timing_cache_path": named}), artifact_cache.key_of(identified.made_from)

    (first, key), (now, other) = found("1"), found("2")
    assert parts(first, now) == {"settings"}
    assert key != other
    assert found("1")[1] == key


def test_a_range_of_a_dynamic_dimension_and_the_size_that_is_measured() -> None:
    def sized(batch: int, largest: int) -> Fingerprint:
        model = Model("net", lambda batch: (Net().eval(), torch.ones(batch, 4)), ())
        settings = Settings(frontend="dynamo", batch=batch, dynamic={"batch": (1, 4, largest)})
        return Fingerprinter().of(Case(model, settings))

    first = sized(2, 8)
    assert parts(first, sized(2, 8)) == set()
    assert {"settings", "inputs"} <= parts(first, sized(3, 8))
    assert {"settings", "graph"} <= parts(first, sized(2, 16))


FLAGS: dict[str, tuple[Any, str, Any]] = {
    "cudnn.benchmark": (torch.backends.cudnn, "benchmark", True),
    "cudnn.enabled": (torch.backends.cudnn, "enabled", False),
    "cudnn.deterministic": (torch.backends.cudnn, "deterministic", True),
    "cuda.matmul.allow_tf32": (torch.backends.cuda.matmul, "allow_tf32", True),
    "cudnn.allow_tf32": (torch.backends.cudnn, "allow_tf32", not torch.backends.cudnn.allow_tf32),
    "cuda.matmul.allow_fp16_reduced_precision_reduction": (
        torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAGS)
def test_flags_of_torchs_backends(before: Fingerprint, name: str) -> None:
    owner, attribute, value = FLAGS[name]
    was = getattr(owner, attribute)
    setattr(owner, attribute, value)
    try:
        now = of()
    finally:
        setattr(owner, attribute, was)
    assert parts(before, now) == {"flags"}
    assert any(name in one for one in program_changes.changes(before, now))
    assert parts(before, of()) == set()


SWITCHES: dict[str, tuple[Callable[[Any], object], Any, Any]] = {
    "cuda.sdp_priority": (torch._C._set_sdp_priority_order, [2, 1, 0, 3, 4], torch._C._get_sdp_priority_order()),
    "cuda.fp16_bf16_reduction_math_sdp": (torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp, True, False),
    "cuda.flash_sdp": (torch.backends.cuda.enable_flash_sdp, False, True),
    "cuda.math_sdp": (torch.backends.cuda.enable_math_sdp, False, True),
    "deterministic_algorithms": (torch.use_deterministic_algorithms, True, False),
    "cuda.matmul.allow_tf32": (torch.set_float32_matmul_precision, "high", "highest"),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_flags_that_functions_of_torch_set(before: Fingerprint, name: str) -> None:
    switch, on, off = SWITCHES[name]
    switch(on)
    try:
        now = of()
    finally:
        switch(off)
    assert "flags" in parts(before, now)


def test_the_order_of_attentions_kernels_that_torch_sets_itself_is_no_flag(before: Fingerprint) -> None:
    """It does so on a card for which it prefers cuDNN's, when the first attention runs: with another case, perhaps."""
    order = torch._C._get_sdp_priority_order()
    torch._C._set_sdp_priority_order([3, 1, 2, 0, 4])
    try:
        assert parts(before, of()) == set()
    finally:
        torch._C._set_sdp_priority_order(order)


def test_a_default_dtype_that_a_factory_sets_is_a_flag_of_its_case_alone(before: Fingerprint) -> None:
    def make() -> nn.Module:
        made = Net()
        torch.set_default_dtype(torch.bfloat16)
        return made

    assert parts(before, of(make)) == {"flags"}
    assert parts(before, of()) == set()


@pytest.mark.parametrize(
    "name",
    ["__LUNOWUD",
     "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "NVIDIA_TF32_OVERRIDE", "PYTORCH_CUDA_ALLOC_CONF", "CUBLAS_WORKSPACE_CONFIG",
     "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "TRITON_PTXAS_PATH", "TRTLLM_PLUGINS_PATH", "TRITON_OVERRIDE_DIR",
     "TORCHTRT_ENABLE_BUILDER_MALLOC_TRIM", "CUDA_DEVICE_MAX_CONNECTIONS", "TORCHINDUCTOR_MAX_AUTOTUNE",
     "DISABLE_ADDMM_CUDA_LT", "DISABLE_PTXAS_OPT", "PTXAS_OPTIONS", "DISABLE_LLVM_OPT", "DISABLE_MMA_V5",
     "ALLOW_LHS_TMEM_LAYOUT_CONVERSION", "LLVM_PASS_PLUGIN_PATH"],
)  # fmt: skip
def test_an_environment_variable(before: Fingerprint, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    now = of()
    assert parts(before, now) == {"environment"}
    assert program_changes.changes(before, now) == [f"variable {name} unset → 1"]


@pytest.mark.parametrize("name", process_flags.SET_BY_TORCH)
def test_a_variable_that_torch_sets_itself_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling with Inductor does so: a key would follow from whether its process had such a case before."""
    monkeypatch.delenv(name, raising=False)
    without = of()
    monkeypatch.setenv(name, process_flags.SET_BY_TORCH[name])
    assert parts(without, of()) == set()
    monkeypatch.setenv(name, "/opt/of-a-user")
    assert parts(without, of()) == {"environment"}


def test_variables_that_say_where_something_lies_or_what_an_image_holds_decide_nothing() -> None:
    others = (
        "TORCH_HOME",
        "TRITON_CACHE_DIR",
        "PYTORCH_VERSION",
        "TORCH_LOGS",
        "CUDA_VISIBLE_DEVICES",
        "HOME",
        "PATH",
        "CUDA_HOME",
        "CUDA_PATH",
        "CUDA_VERSION",
        "CUDA_DEVICE_ORDER",
        "CUDA_CACHE_PATH",
        "CUDA_MPS_PIPE_DIRECTORY",
        "CUDA_MPS_LOG_DIRECTORY",
        "CUDA_TOOLKIT_ROOT_DIR",
        "CUDA_CACHE_MAXSIZE",
        "CUDA_INC_PATH",
    )
    assert process_flags.environment(dict.fromkeys(others, "1")) == {}


def test_a_variable_that_a_factory_sets_is_its_cases_alone(before: Fingerprint) -> None:
    def make() -> nn.Module:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        return Net()

    fingerprinter = Fingerprinter()
    assert parts(before, fingerprinter.of(case_of(make))) == {"environment"}
    assert parts(
        before, fingerprinter.of(Case(Model("other", lambda: (Net().eval(), row()), ()), case_of().settings))
    ) == (set())


# Libraries


VERSIONS = ("torch", "torch-tensorrt-rtx", "tensorrt-rtx")


@pytest.mark.parametrize("name", VERSIONS)
def test_a_version_of_a_library(before: Fingerprint, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda asked: "9.9" if asked == name else real(asked))
    now = of()
    assert parts(before, now) == {"versions"}
    assert [one for one in program_changes.changes(before, now) if one.startswith(name) and one.endswith(" → 9.9")]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, str]]]:
    """An installed distribution that compiles, of one module and one binary; what its files are."""
    import base64
    import hashlib

    folder = tmp_path / "site"
    information = folder / "torch_tensorrt_test-1.0.dist-info"
    (folder / "torch_tensorrt_test").mkdir(parents=True)
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-tensorrt-test\nVersion: 1.0\n")
    lines = []
    for name, content in (("__init__.py", b"LEVEL = 3\n"), ("library.so", b"\x7fELF code")):
        file = folder / "torch_tensorrt_test" / name
        file.write_bytes(content)
        os.utime(file, (1_000_000_000, 1_000_000_000))
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"torch_tensorrt_test/{name},sha256={digest},{len(content)}")
    (information / "RECORD").write_text("\n".join([*lines, f"{information.name}/RECORD,,"]) + "\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(library_files, "COMPILING", re.compile("torch-tensorrt-test"))
    monkeypatch.setattr(library_files, "PACKAGES", ())

    def files() -> dict[str, str]:
        library_files.digests.cache_clear()
        return {name: digest for name, digest in library_files.digests().items() if name == "torch-tensorrt-test"}

    yield files
    library_files.digests.cache_clear()


def test_a_librarys_file_that_is_edited_in_place(installed: Callable[[], dict[str, str]], tmp_path: Path) -> None:
    first = installed()
    assert first == installed()
    edited = {}
    for name in ("__init__.py", "library.so"):
        file = tmp_path / "site" / "torch_tensorrt_test" / name
        content = file.read_bytes()
        file.write_bytes(content[::-1])  # as long as before
        edited[name] = installed()["torch-tensorrt-test"]
        file.write_bytes(content)
        assert installed() == first  # though it is younger now
    assert len({first["torch-tensorrt-test"], *edited.values()}) == 3
    file.unlink()
    assert installed() != first


def test_a_large_file_is_read_only_where_it_has_another_size(
    installed: Callable[[], dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_files, "LARGE_BYTES", 8)
    first, file = installed(), tmp_path / "site" / "torch_tensorrt_test" / "library.so"
    list_of_files = tmp_path / "site" / "torch_tensorrt_test-1.0.dist-info" / "RECORD"
    copied_s = list_of_files.stat().st_mtime + library_files.COPYING_S
    os.utime(file, (copied_s, copied_s))  # as copying an installation does
    with monkeypatch.context() as patch:
        patch.setattr(library_files, "_sha256", lambda path: pytest.fail(f"{path.name} was read"))
        assert installed() == first
    file.write_bytes(file.read_bytes()[::-1])  # as building a library again may leave it: of the same size
    os.utime(file, (copied_s + 1, copied_s + 1))
    edited = installed()["torch-tensorrt-test"]
    assert edited != first["torch-tensorrt-test"]
    file.write_bytes(file.read_bytes() + b" and more")
    assert installed()["torch-tensorrt-test"] not in (edited, first["torch-tensorrt-test"])


def test_a_library_that_does_not_list_its_files_is_no_program(
    installed: Callable[[], dict[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "site" / "torch_tensorrt_test-1.0.dist-info" / "RECORD").unlink()
    with pytest.raises(library_files.Unlisted, match="torch-tensorrt-test has no list of its files"):
        installed()


def test_a_library_that_is_imported_from_a_folder_of_sources_is_no_program(
    installed: Callable[[], dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an editable install is: its list of files does not have the sources."""
    monkeypatch.setattr(library_files, "PACKAGES", ("torch_tensorrt_test",))
    assert installed()
    (tmp_path / "sources" / "torch_tensorrt_test").mkdir(parents=True)
    (tmp_path / "sources" / "torch_tensorrt_test" / "__init__.py").write_text("LEVEL = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path / "sources"))
    with pytest.raises(library_files.Unlisted, match=r"torch_tensorrt_test is imported from .*sources"):
        installed()


def test_files_of_libraries_are_a_part(before: Fingerprint, monkeypatch: pytest.MonkeyPatch) -> None:
    known = dict(program_part._libraries("fp32"))
    monkeypatch.setattr(program_part, "_libraries", lambda _precision: known | {"torch": "edited"})
    now = of()
    assert parts(before, now) == {"libraries"}
    assert program_changes.changes(before, now) == ["files of the libraries that compile: torch"]


# Code that a graph only names


@pytest.fixture
def operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Write and import a module of custom operators of a namespace of their own, and a helper; let it be edited."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"operators_{random.Random(str(tmp_path)).getrandbits(48)}"
    (tmp_path / f"helping_{name}.py").write_text("FACTOR = 2\n")
    (tmp_path / f"{name}.py").write_text(OPERATORS.replace("NAME", name))

    def made(append: str = "", to: str = "") -> ModuleType:
        file = tmp_path / f"{to}{name}.py"
        file.write_text(file.read_text() + append)
        return importlib.import_module(name)

    yield made
    for each in (name, f"helping_{name}"):
        sys.modules.pop(each, None)


OPERATORS = """
import torch
import helping_NAME

@torch.library.custom_op("NAME::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * helping_NAME.FACTOR

@twice.register_fake
def _(x):
    return torch.empty_like(x)

library = torch.library.Library("NAME", "FRAGMENT")
library.define("thrice(Tensor x) -> Tensor")
library.impl("thrice", lambda x: x * 3, "CompositeExplicitAutograd")

class Decorated(torch.nn.Module):
    def __init__(self, which):
        super().__init__()
        self.which = which

    def forward(self, x):
        return getattr(torch.ops.NAME, self.which)(x)
"""


@pytest.mark.parametrize("which", ["twice", "thrice"])
def test_the_code_of_a_custom_operator(operators: Any, which: str) -> None:
    def fingerprint() -> Fingerprint:
        return of(lambda: module.Decorated(which))

    module = operators()
    first = fingerprint()
    assert first.program is not None
    assert first.program.operators
    operators("\n# a comment\n")
    assert parts(first, fingerprint()) == set()
    operators("\nCHANGED = 1\n")
    edited = fingerprint()
    assert parts(first, edited) == {"operators"}
    assert program_changes.changes(first, edited) == ["code of custom operators or Triton kernels"]
    operators("\nFACTOR = 3\n", to="helping_")
    assert parts(edited, fingerprint()) == {"operators"}


def test_the_code_of_a_custom_operator_that_changes_its_input_also_where_another_operator_calls_it(
    operators: Any,
) -> None:
    """A program whose operators change nothing has it as an argument of `auto_functionalized`."""
    bump = '@torch.library.custom_op(f"{__name__}::bump", mutates_args=("x",))\n'
    bump += "def bump(x: torch.Tensor) -> None:\n    x += 1\n"
    name = operators(f"\n{bump}").__name__

    class Bumps(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            getattr(torch.ops, name).bump(y)
            return y

    program = torch.export.export(Bumps(), (row(),))
    functional = program.run_decompositions({})
    first = custom_operators.fingerprint(functional)
    assert first == custom_operators.fingerprint(program) != ""
    operators("\nCHANGED = 1\n")
    assert custom_operators.fingerprint(functional) != first


CALLING = """
@torch.library.custom_op("NAME::calls", mutates_args=())
def calls(x: torch.Tensor) -> torch.Tensor:
    return torch.ops.{called}(x)

calls.register_fake(torch.empty_like)
"""
CALLED = """
import torch

@torch.library.custom_op("other_NAME::inner", mutates_args=())
def inner(x: torch.Tensor) -> torch.Tensor:
    return x * {factor}

library = torch.library.Library("other_NAME", "FRAGMENT")
library.define("defined(Tensor x) -> Tensor")
library.impl("defined", lambda x: x * {factor}, "CompositeExplicitAutograd")
"""


def module_that_calls(
    operator: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], nn.Module]:
    """Return the class of a module with an operator in a file of its own, whose code calls another one by name."""
    file = tmp_path / f"calling_{name}.py"
    file.write_text(f"import torch\n{CALLING.format(called=operator)}".replace("NAME", name))
    module = importlib.import_module(file.stem)
    monkeypatch.delitem(sys.modules, file.stem)

    class Calls(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            called: torch.Tensor = module.calls(x)
            return called

    return Calls


@pytest.mark.parametrize("inner", ["inner", "inner.default", "defined"])
def test_an_operator_that_the_code_of_another_calls_by_name(
    operators: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str
) -> None:
    """It is registered in a file that the calling one does not import."""
    name = operators().__name__
    other = tmp_path / f"other_{name}.py"
    other.write_text(CALLED.format(factor=2).replace("NAME", name))
    monkeypatch.delitem(sys.modules, name)
    importlib.import_module(other.stem)
    monkeypatch.delitem(sys.modules, other.stem)
    calls = module_that_calls(f"other_NAME.{inner}", name, tmp_path, monkeypatch)
    first = of(calls)
    other.write_text(CALLED.format(factor=2).replace("NAME", name) + "# a comment\n")
    assert parts(first, of(calls)) == set()
    other.write_text(CALLED.format(factor=300).replace("NAME", name))
    assert parts(first, of(calls)) == {"operators"}


@pytest.mark.parametrize(
    "registers",
    ["library.impl('shared', FUNCTION, KEY)", "register(FUNCTION)",
     "@torch.library.impl(library, 'shared', KEY)\ndef _(x): return FUNCTION(x)"],
)  # fmt: skip
def test_an_operator_that_another_file_registers_than_the_one_with_its_library(
    operators: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registers: str
) -> None:
    """torch notes where the library was made; the file with the kernel imports that one, and not the other way."""
    defines = "library.define('shared(Tensor x) -> Tensor')\n"
    by_function = f"def register(function):\n    library.impl('shared', function, {KEY!r})\n"
    module = operators(defines + by_function)
    other = tmp_path / f"kernels_of_{module.__name__}.py"
    text = f"import torch\nfrom {module.__name__} import library, register\n{registers.replace('KEY', repr(KEY))}\n"
    other.write_text(text.replace("FUNCTION", "(lambda x: x * 2)"))
    importlib.import_module(other.stem)
    first = of(lambda: module.Decorated("shared"))
    other.write_text(text.replace("FUNCTION", "(lambda x: x * 300)"))
    now = of(lambda: module.Decorated("shared"))
    monkeypatch.delitem(sys.modules, other.stem)
    assert parts(first, now) == {"operators"}


KEY = "CompositeExplicitAutograd"


def test_a_cpp_operator_that_an_operator_of_python_calls_is_its_library(
    operators: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a package gives each of its kernels a function of Python with `custom_op`."""
    pytest.importorskip("torchvision")
    built = tmp_path / "kernels.so"
    built.write_text("1")
    monkeypatch.setattr(native_files, "loaded", lambda: [built])
    calls = module_that_calls("torchvision.nms", operators().__name__, tmp_path, monkeypatch)
    first = of(calls)
    built.write_text("2")
    assert parts(first, of(calls)) == {"operators"}


def test_a_cpp_kernel_that_was_built_elsewhere_for_an_operator_of_a_python_file(
    operators: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Library.define` is in the suite, and `TORCH_LIBRARY_IMPL` in a library whose source is not there."""
    built = tmp_path / "kernels.so"
    built.write_text("1")
    monkeypatch.setattr(native_files, "loaded", lambda: [built])
    dump = operator_files._dump
    there = "CUDA: registered at /build/kernels.cu:7 :: (none) [ boxed ]"
    monkeypatch.setattr(
        operator_files, "_dump", lambda schema: f"{dump(schema)}\n{there if 'thrice' in schema.name else ''}"
    )
    module = operators()
    first = of(lambda: module.Decorated("thrice"))
    built.write_text("2")
    assert parts(first, of(lambda: module.Decorated("thrice"))) == {"operators"}


@pytest.mark.parametrize("how", ["impl", "register_kernel"])
def test_a_kernel_for_an_operator_of_torch_that_does_not_say_where_it_is_from_is_no_program(how: str) -> None:
    class Bessel(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_y1(x)

    assert not Fingerprinter().of(case_of(Bessel)).problem
    kept = torch.library._keep_alive
    before = len(kept)
    if how == "impl":
        torch.library.impl("aten::special_bessel_y1", "CUDA", torch.clone)
    else:
        torch.library.register_kernel("aten::special_bessel_y1", "cuda", torch.clone)
    try:
        found = Fingerprinter().of(case_of(Bessel))
    finally:
        for library in kept[before:]:
            library._destroy()
        del kept[before:]
    assert found.program is None
    assert "the code of its operator aten.special_bessel_y1.default is not to be found" in found.problem


OVERRIDDEN = """
library = torch.library.Library("aten", "IMPL")
library.impl("special_bessel_j1", lambda x: x * 3, "CUDA")
own = torch.library.Library("NAME", "DEF")
own.define("of.overload(Tensor x) -> Tensor")
own.impl("of.overload", lambda x: x * 3, "CompositeExplicitAutograd")
torch.library.define("NAME::nowhere", "(Tensor x) -> Tensor")
torch.library.impl("NAME::nowhere", "CompositeExplicitAutograd", lambda x: x * 3)
"""


def test_an_operator_that_upstream_defines_in_python_has_upstreams_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """modelopt's `tensorrt::quantize_op` is one: no quantized case could be fingerprinted, and none was cached."""
    torch.library.define("quantizer_of_upstream::twice", "(Tensor x) -> Tensor")
    torch.library.impl("quantizer_of_upstream::twice", ["cpu", "cuda"], torch.clone)
    torch.library.register_fake("quantizer_of_upstream::twice", torch.empty_like)

    class Calls(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.quantizer_of_upstream.twice(x)

    assert "is not to be found" in Fingerprinter().of(case_of(Calls)).problem
    monkeypatch.setattr(operator_files, "UPSTREAM", {*operator_files.UPSTREAM, "quantizer_of_upstream"})
    assert of(Calls).program


def test_a_kernel_of_ones_own_for_an_operator_of_torch_and_an_overload(operators: Any) -> None:
    def fingerprint(call: Callable[[torch.Tensor], torch.Tensor]) -> Fingerprint:
        class Calls(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return call(x)

        return Fingerprinter().of(case_of(Calls))

    assert fingerprint(torch.special.bessel_j1).program.operators == ""  # type: ignore[union-attr]
    module = operators(OVERRIDDEN.replace("NAME", "trtgate_test_overload"))
    calls = (torch.special.bessel_j1, torch.ops.trtgate_test_overload.of.overload)
    try:
        before = [fingerprint(call) for call in calls]
        operators("\nCHANGED = 1\n")
        assert [parts(first, fingerprint(call)) for first, call in zip(before, calls, strict=True)] == [
            {"operators"}
        ] * 2
        found = fingerprint(torch.ops.trtgate_test_overload.nowhere.default)
        assert "nowhere.default is not to be found: write torch.library.custom_op" in found.problem
    finally:
        module.library._destroy()


def test_libraries_of_nvidias_that_are_loaded_when_they_are_needed_are_not_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever TensorRT lies: a process that built a module has more of them than one that loaded it."""
    names = (
        "mine.so", "libnvinfer_plugin.so.10", "libnvinfer_builder_resource.so.10.13", "libcudnn_ops.so.9",
        "tensorrt_rtx_bindings/tensorrt_rtx.so",
    )  # fmt: skip
    lines = []
    for number, name in enumerate(names):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(name)
        lines.append(f"7f{number}-7f{number}1 r-xp 00000000 08:01 {file.stat().st_ino} {file}")
    (tmp_path / "maps").write_text("\n".join(lines))
    bindings = ModuleType("tensorrt_rtx_bindings")
    bindings.__file__ = str(tmp_path / "tensorrt_rtx_bindings" / "__init__.py")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", bindings)
    monkeypatch.setattr(native_files, "MAPPED", tmp_path / "maps")
    monkeypatch.setattr(torch.ops, "loaded_libraries", set())
    assert native_files.loaded() == [tmp_path / "mine.so", tmp_path / "libnvinfer_plugin.so.10"]


@pytest.mark.parametrize(
    "name",
    [
        "libtensorrt_plugins.so", "libtensorrt_llm.so", "libcublas_epilogues.so.1", "libcudnn_frontend_ops.so",
        "libcufft_conv.so", "libcuda.ops.so", "libnccl_moe.so", "libcudart_shim.so",
    ],
)  # fmt: skip
def test_a_library_of_the_users_may_begin_with_a_name_of_nvidias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Plugins of TensorRT, for instance: what loads them tells torch nothing."""
    (tmp_path / name).write_text(name)
    (tmp_path / "maps").write_text(f"7f-8f r-xp 0 08:01 {(tmp_path / name).stat().st_ino} {tmp_path / name}")
    monkeypatch.setattr(native_files, "MAPPED", tmp_path / "maps")
    monkeypatch.setattr(torch.ops, "loaded_libraries", set())
    assert native_files.loaded() == [tmp_path / name]


@pytest.mark.parametrize(
    "name",
    [
        "libnvinfer_builder_resource_sm90.so.10.13.3", "libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1",
        "libcudart.so.13", "libcudart.3eda8113.so.13", "libcudart-d0da41ae.so.11.0", "libcublasLt.so.13",
        "libcudnn.so.9", "libcudnn_ops_infer.so.8", "libcudnn_engines_runtime_compiled.so.9", "libcudnn_adv.so.9",
        "libcufftw.so.12", "libcurand.so.10", "libcusolverMg.so.12", "libcusparseLt.so.0", "libnvrtc.alt.so.13",
        "libnvrtc-builtins.alt.so.13.0", "libnvJitLink.so.13", "libnccl.so.2", "libcupti.so.2026.2.0", "libcuda.so.1",
        "libcuda.so.580.65.06", "libnvidia-ptxjitcompiler.so.1",
    ],
)  # fmt: skip
def test_libraries_that_cuda_loads_by_itself_are_known_by_their_names(name: str) -> None:
    assert native_files.OF_NVIDIA.match(name)


def test_a_cpp_operator_is_its_library_whichever_file_changed_and_however_it_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operators: Any
) -> None:
    """Its registration says one file alone: neither the others, nor the flags of the compiler."""
    import _ctypes
    import ctypes
    import shutil
    import subprocess

    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "op.cpp").write_text("the file that registers it")
    module = operators()
    operator = module.torch.ops.__getattr__(module.__name__).thrice.default
    dumped = f"CUDA: registered at {tmp_path / 'op.cpp'}:3 :: (Tensor _0) -> Tensor _0 [ boxed unboxed ]"
    monkeypatch.setattr(torch._C, "_dispatch_dump", lambda _name: dumped)

    def built(folder: str, times: int, *flags: str) -> str:
        source, library = tmp_path / "times.c", tmp_path / folder / "_C.so"
        source.write_text(f"int times(int x) {{ return {times} * x; }}\n")
        library.parent.mkdir()
        command = [compiler, "-shared", "-fPIC", *flags, str(source), "-o", str(library)]
        subprocess.run(command, check=True)
        found = loaded.append(library) or custom_operators._code("thrice", operator)  # type: ignore[func-returns-value]
        del loaded[:]
        return found

    loaded: list[Path] = []
    monkeypatch.setattr(native_files, "loaded", lambda: list(loaded))
    first = built("a", 2)
    assert first == built("b", 2)
    assert len({first, built("c", 3), built("d", 2, "-O2")}) == 3
    monkeypatch.undo()
    own = tmp_path / "a" / "_C.so"
    library = ctypes.CDLL(str(own))  # as importing an extension module does, of which torch is not told
    assert own in native_files.loaded()
    installed = Path(torch.__file__).parents[1].resolve()  # also where the environment lies behind a link
    found = [one.resolve() for one in native_files.loaded()]
    assert not [
        one for one in found if installed in one.parents and one.relative_to(installed).parts[0] != "torchvision"
    ]
    kernels = tmp_path / "aotinductor_x" / "model.so"  # a package's, which is unpacked, loaded and removed
    kernels.parent.mkdir()
    shutil.copy(own, kernels)
    of_inductor = ctypes.CDLL(str(kernels))
    kernels.unlink()
    assert kernels not in native_files.loaded()
    _ctypes.dlclose(of_inductor._handle)
    shutil.copy(own, own.with_suffix(".copy")).replace(own)
    try:
        with pytest.raises(TrtgateError, match="was built again after it was loaded"):
            native_files.loaded()
    finally:
        _ctypes.dlclose(library._handle)


KERNELS = """
import triton

@triton.jit
def kernel(x, size):
    pass

tuned = triton.autotune([triton.Config({}, num_warps=4)], key=[])(kernel)
"""


def test_the_code_of_a_triton_kernel_and_its_constants(operators: Any, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table, triton_kernel_wrapper_functional

    def program(constants: dict[str, Any]) -> Any:
        """Return a program that calls the kernel, as an export has it, at the next places of the process's tables."""
        found = torch.export.export(nn.Identity(), (row(),))
        places = {
            "kernel_idx": kernel_side_table.add_kernel(module.tuned if len(constants) > 1 else module.kernel),
            "constant_args_idx": kernel_side_table.add_constant_args(constants),
        }  # fmt: skip
        (output,) = (node for node in found.graph.nodes if node.op == "output")
        with found.graph.inserting_before(output):
            found.graph.call_function(triton_kernel_wrapper_functional, kwargs={**places, "grid": [(1,)], "kwargs": {}})
        return found

    def of_kernel(**constants: Any) -> tuple[str, str]:
        made = program(constants)
        return program_fingerprint.of_program(made, "cpu").graph, custom_operators.fingerprint(made)

    operators(KERNELS)
    module = operators()
    graph, code = of_kernel(size=1)
    assert code
    assert of_kernel(size=1) == (graph, code)  # at other places of the tables
    assert of_kernel(size=2)[0] != graph
    tuned = of_kernel(size=1, other=2)
    assert tuned[1] != code
    assert of_kernel(size=1, other=2) == tuned
    module.tuned.configs[0].num_warps = 8  # as where they were read from a file
    assert of_kernel(size=1, other=2)[1] != tuned[1]
    operators("\n# a comment\n")
    assert of_kernel(size=1) == (graph, code)
    operators("\nCHANGED = 1\n")
    assert of_kernel(size=1)[1] != code


def test_an_operator_of_a_module_that_no_list_of_modules_has(operators: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where pytest imports a suite with --import-mode=importlib."""
    module = operators()
    monkeypatch.delitem(sys.modules, module.__name__)
    first = of(lambda: module.Decorated("twice"))
    file = Path(module.__file__)
    file.write_text(file.read_text() + "\nCHANGED = 1\n")
    assert parts(first, of(lambda: module.Decorated("twice"))) == {"operators"}


def test_an_operator_whose_code_can_not_be_found_is_no_program(operators: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = operators()
    monkeypatch.setattr(operator_files, "REGISTERED", re.compile("(nowhere)"))
    monkeypatch.setattr(native_files, "loaded", list)
    found = Fingerprinter().of(case_of(lambda: module.Decorated("thrice")))
    assert found.program is None
    assert "the code of its operator" in found.problem
    assert "thrice" in found.problem


def test_own_converters_and_passes(before: Fingerprint, monkeypatch: pytest.MonkeyPatch) -> None:
    """`test_own_converters.py` has what they are."""
    monkeypatch.setattr(program_part.own_conversions, "fingerprint", lambda **_: "another")
    assert parts(before, of()) == {"conversions"}


# What has no program part


@pytest.mark.parametrize("frontend", ["torch_compile", "eager", "inductor"])
def test_other_frontends_have_none(frontend: str) -> None:
    model = Model("net", lambda: (Net().eval(), row()), ())
    found = Fingerprinter().of(Case(model, Settings(frontend=frontend)))
    assert found.problem == f"the frontend {frontend} compiles no exported program"
    assert program_changes.changes(found, found) == [f"can't be fingerprinted: {found.problem}"]


def test_a_factory_that_raises_has_none_and_the_next_case_has() -> None:
    def broken() -> nn.Module:
        raise ValueError("no such file")

    fingerprinter = Fingerprinter()
    assert "no such file" in fingerprinter.of(case_of(broken)).problem
    assert fingerprinter.of(case_of()).program is not None


def test_cases_of_one_factory_call_share_it_and_are_as_if_each_had_its_own() -> None:
    calls = []

    def factory() -> tuple[nn.Module, torch.Tensor]:
        calls.append(1)
        return Net().eval(), row()

    model, fingerprinter = Model("net", factory, ()), Fingerprinter()
    cases = [Case(model, Settings(frontend="dynamo", precision=name)) for name in ("fp16", "fp32", "bf16", "fp32")]
    together = [fingerprinter.of(case) for case in cases]
    assert len(calls) == 1
    assert together == [Fingerprinter().of(case) for case in cases]
    assert together[1] == together[3] != together[0]
    fingerprinter.of(cases[0], fresh=True)
    assert fingerprinter.of(cases[1], last=True) == together[1]  # which takes no copy,
    assert len(calls) == 1 + len(cases) + 1
    assert fingerprinter.of(cases[0]) == together[0]  # so that the next one makes its own
    assert len(calls) == 1 + len(cases) + 2


def test_a_program_part_is_plain_data(before: Fingerprint) -> None:
    assert msgspec.json.decode(msgspec.json.encode(before), type=Fingerprint) == before
