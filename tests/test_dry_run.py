"""What the real torch_tensorrt says without a GPU: figures that are known, and nothing left patched."""

from __future__ import annotations

import contextlib
import gc
import io
import re
import sys
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import trtgate
from trtgate import frontends
from trtgate.common.errors import TrtgateError
from trtgate.compiling import building
from trtgate.coverage import dry_run
from trtgate.records import coverage_record
from trtgate.records.coverage_record import Coverage
from trtgate.suite.cases import Case, Model
from trtgate.suite.settings import Settings
from trtgate.torch_trt import compile_calls, gpu_stand_in, partitioner, patching, releases
from trtgate.torch_trt import compile_options as trt_options

pytestmark = pytest.mark.skipif(bool(releases.unavailable()), reason="torch_tensorrt is not installed")


def case(factory: Any, frontend: str = "dynamo", precision: str = "fp16", **settings: Any) -> Case:
    if isinstance(factory, str):
        name, factory = factory, partial(of_torchvision, factory)
    else:
        name = factory.__name__
    made = Settings(frontend=frontend, precision=precision, **settings)
    return Case(Model(name, factory, [made]), made)


def of_torchvision(name: str) -> tuple[nn.Module, Any]:
    return torchvision.models.get_model(name, weights=None).eval(), torch.zeros(1, 3, 224, 224)


def residual() -> tuple[nn.Module, Any]:
    """A block of resnet18 between a first and a last layer: each kind of its operators but the pooling."""
    block = torchvision.models.resnet.BasicBlock(4, 4)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    return made.eval(), torch.zeros(1, 3, 16, 16)


@pytest.fixture(scope="module")
def whole() -> Coverage:
    """What `residual` is at the default block size."""
    return dry_run.ask(case(residual))


def test_resnet18_is_89_operators_in_one_engine() -> None:
    found = dry_run.ask(case("resnet18"))
    assert (found.total, found.supported, [engine.size for engine in found.engines]) == (89, 89, [89])
    assert found.recommended == [89]
    assert found.engines[0].inputs == ["float16[1,3,224,224]"]
    assert found.engines[0].outputs == ["float16[1,1000]"]


def test_an_engine_is_as_large_as_the_graph_and_a_larger_one_is_none(whole: Coverage) -> None:
    total = whole.total
    for size, engines in ((1, [total]), (total, [total]), (total + 1, [])):
        found = dry_run.ask(case(residual, min_block_size=size))
        assert (found.total, found.supported, [engine.size for engine in found.engines]) == (total, total, engines)
        assert found.recommended == [total]
    assert {entry.reason for entry in found.left} == {coverage_record.too_small(total + 1)}


def test_excluded_operators_split_it_and_every_size_is_as_predicted() -> None:
    excluded = {"torch_executed_ops": ("aten.relu",)}
    finest = dry_run.ask(case(residual, min_block_size=1, **excluded))
    reasons = {entry.reason for entry in finest.left}
    assert reasons == {coverage_record.EXCLUDED}
    assert len(finest.block_sizes) > 2
    for row in finest.block_sizes:
        found = dry_run.ask(case(residual, min_block_size=row.min_block_size, **excluded))
        assert (len(found.engines), found.in_tensorrt) == (row.engines, row.operators)
        assert found.block_sizes == finest.block_sizes


def test_both_partitioners_agree_where_all_is_supported(whole: Coverage) -> None:
    other = dry_run.ask(case(residual, options={"use_fast_partitioner": False}))
    assert [engine.operators for engine in other.engines] == [engine.operators for engine in whole.engines]


class Odd(nn.Module):
    """An operator without a converter, one that its validator refuses, and an impure one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.relu(x) + 1
        x = torch.special.bessel_j0(x)
        x = nn.functional.max_pool2d(x.sigmoid() * 2, 3, stride=2, ceil_mode=True)
        return x + torch.rand_like(x)


def odd() -> tuple[nn.Module, Any]:
    return Odd().eval(), torch.zeros(1, 3, 17, 17)


def test_every_operator_left_has_its_reason_impure_ones_too() -> None:
    found = dry_run.ask(case(odd, precision="fp32", min_block_size=2))
    reasons = {entry.operator: entry.reason for entry in found.left}
    assert reasons["aten.special_bessel_j0.default"] == coverage_record.NO_CONVERTER
    assert reasons["aten.max_pool2d.default"] == coverage_record.REFUSED
    assert any("rand" in name for name in reasons), "upstream's list omits impure operators"
    assert sum(entry.count for entry in found.left) == found.in_pytorch == found.total - found.in_tensorrt


def printed(wanted: Case) -> str:
    """Return the report that upstream prints for a case."""
    from torch_tensorrt.dynamo import _compiler
    from torch_tensorrt.dynamo._DryRunTracker import dryrun_stats_display

    module, inputs = building.make(wanted, "cpu")
    said = io.StringIO()
    with (
        gpu_stand_in.stand_in(),
        patching.replaced(_compiler, "dryrun_stats_display", dryrun_stats_display),
        contextlib.redirect_stdout(said),
        torch.no_grad(),
    ):
        compile_calls.compile_exported(torch.export.export(module, inputs.args), inputs, wanted.settings, dryrun=True)
    return said.getvalue()


@pytest.mark.parametrize(
    "wanted",
    [
        case(residual),
        case(residual, torch_executed_ops=("aten.relu",)),
        case(odd, precision="fp32", min_block_size=1),
    ],
    ids=["whole", "split", "odd"],
)
def test_it_agrees_with_the_printed_report(wanted: Case) -> None:
    report, found = printed(wanted), dry_run.ask(wanted)
    total, supported = map(int, re.search(r"consists of (\d+) Total Operators, of which (\d+)", report).groups())  # type: ignore[union-attr]
    sizes = [int(size) for size in re.findall(r"Number of Operators in Engine: (\d+)", report)]
    assert (found.total, found.supported) == (total, supported)
    assert [engine.size for engine in found.engines] == sizes


# Weights that nobody looks at


def small_swin() -> tuple[nn.Module, Any]:
    """Each kind of layer that swin_t has: windows, shifted ones and merged patches; a quarter of its operators."""
    made = torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=24, depths=[2, 1], num_heads=[2, 4], window_size=[7, 7], num_classes=10
    )
    return made.eval(), torch.zeros(1, 3, 56, 56)


def test_unfilled_weights_give_the_same_coverage_and_cost_no_random_numbers() -> None:
    module, inputs = building.make(case(small_swin), "cpu")
    ordinary = dry_run.ask_module(module, inputs, case(small_swin).settings, who="small_swin")
    before = torch.random.get_rng_state()
    assert dry_run.ask(case(small_swin)) == ordinary
    assert torch.equal(torch.random.get_rng_state(), before)
    assert ordinary.total == 129 or releases.version() != "2.14.0"


def test_nothing_stays_patched() -> None:
    dry_run.ask(case(odd, precision="fp32"))
    from torch_tensorrt.dynamo import _compiler, partitioning
    from torch_tensorrt.dynamo.backend import backends
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_CONVERTERS, ConverterRegistry

    def watched() -> list[Any]:
        names = ("current_device", "get_device_capability", "get_device_properties", "mem_get_info")
        ours = [getattr(torch.cuda, name) for name in names]
        ours += [getattr(torch.nn.init, name) for name in dry_run.RANDOM]
        ours += [_compiler.to_torch_device, _compiler.get_decompositions, backends.get_decompositions]
        ours += [backends.aot_export_joint_simple, list(DYNAMO_CONVERTERS.keys())]
        ours += [getattr(partitioning, name) for name in ("get_graph_converter_support", "fast_partition")]
        ours += [torch.fx.GraphModule.recompile, ConverterRegistry.validate_invariants, gc.isenabled()]
        return [*ours, partitioning.global_partition, sys.argv, sys.stdout, sys.stderr]

    before = watched()
    dry_run.ask(case(odd, precision="fp32"))
    with pytest.raises(TrtgateError):
        dry_run.ask(case(undecidable))
    assert watched() == before
    assert {function.__module__ for function in before[:4]} == {"torch.cuda", "torch.cuda.memory"}


def test_options_of_the_running_command_do_not_reach_torchs_splitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest", "--min-acc-module-size", "100000", "--skip"])
    assert len(dry_run.ask(case(residual)).engines) == 1


@pytest.mark.parametrize("frontend", ["dynamo", "torch_compile"])
def test_a_build_notes_the_coverage_that_was_asked_for(frontend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frontend's own build, up to where TensorRT would need a GPU: its partitions run in PyTorch here."""
    wanted = case(broken, frontend=frontend, precision="fp32", min_block_size=1)
    module, inputs = building.make(wanted, "cpu")
    options_of = trt_options.options_of
    with gpu_stand_in.stand_in(), torch.no_grad():
        monkeypatch.setattr(compile_calls, "options_of", lambda settings: {**options_of(settings), "dryrun": True})
        way = frontends.get(frontend)
        prepared = way.prepare(module, inputs, wanted.settings, lambda _step: None)
        compiled = way.build(prepared, inputs, wanted.settings, lambda _step: None)
        monkeypatch.undo()
        torch.testing.assert_close(inputs.call(compiled.run), inputs.call(module))
    if frontend == "dynamo":
        assert compiled.coverage == dry_run.ask(wanted)
    else:
        assert compiled.coverage is not None
        assert [engine.operators for engine in compiled.coverage.engines] == [
            engine.operators for engine in dry_run.ask(wanted).engines
        ]


def test_a_torch_tensorrt_that_works_in_another_way_is_named_and_breaks_no_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = case(residual)
    module, inputs = building.make(wanted, "cpu")
    monkeypatch.setattr(partitioner, "_counted", lambda nodes: {}[0])
    with gpu_stand_in.stand_in(), partitioner.observing() as seen, torch.no_grad():
        compile_calls.compile_exported(
            torch.export.export(module, inputs.args), inputs, Settings(frontend="dynamo"), dryrun=True
        )
    assert seen.coverage(wanted.settings) is None
    with pytest.raises(
        TrtgateError, match=r"torch_tensorrt \S+ partitions in another way than 2\.11 to 2\.14: KeyError"
    ):
        dry_run.ask(wanted)


# torch.compile


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        torch._dynamo.graph_break()
        return self.second(x)


def broken() -> tuple[nn.Module, Any]:
    return Broken().eval(), torch.ones(2, 8)


def test_torch_compile_is_asked_graph_by_graph_and_breaks_are_named() -> None:
    found = dry_run.ask(case(broken, frontend="torch_compile", precision="fp32", min_block_size=1))
    assert (found.graphs, len(found.engines), found.in_pytorch) == (2, 2, 0)
    assert list(found.graph_breaks.values()) == [1]
    assert "test_dry_run.py:forward" in next(iter(found.graph_breaks))


def small_vit() -> tuple[nn.Module, Any]:
    """One layer, and a narrow one: the graphs are run, by PyTorch on the CPU."""
    made = torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=1, num_heads=4, hidden_dim=64, mlp_dim=128
    )
    return made.eval(), torch.zeros(1, 3, 64, 64)


def test_attention_is_a_gpus_not_the_cpus() -> None:
    for precision in ("fp16", "fp32"):
        found = dry_run.ask(case(small_vit, frontend="torch_compile", precision=precision))
        assert found.in_pytorch == 0
        assert found.engines[0].operators["aten._scaled_dot_product_*_attention.default"] == 1


# Bad input


class Undecidable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1


def undecidable() -> tuple[nn.Module, Any]:
    return Undecidable().eval(), torch.zeros(4)


def test_a_model_that_cannot_be_exported_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        TrtgateError, match=r"^coverage of undecidable-dynamo-fp16-mbs5: torch\.export can't export it: "
    ) as caught:
        dry_run.ask(case(undecidable))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "hint"), [("aten.rellu", "aten.relu"), ("relu", "aten.relu"), ("aten.relu.nope", "aten.relu")]
)
def test_an_unknown_operator_is_named_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(TrtgateError, match=f"torch has no operator '{name}'; did you mean '{hint}'"):
        dry_run.ask(case("resnet18", torch_executed_ops=(name,)))


def test_without_torch_tensorrt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrtgateError, match="torch_tensorrt is not installed: pip install"):
        dry_run.ask(case("resnet18"))


# The assertion in a test of the user's own


def test_assert_supported_passes_and_returns_the_coverage(whole: Coverage) -> None:
    found = trtgate.assert_supported(*residual(), min_block_size=whole.total)
    assert isinstance(found, Coverage)
    assert found.in_tensorrt == whole.total


def test_assert_supported_says_what_to_do_and_leaves_the_module_alone(whole: Coverage) -> None:
    module, inputs = residual()
    module.train()
    with pytest.raises(AssertionError) as caught:
        trtgate.assert_supported(module, inputs, min_block_size=100, precision="fp16")
    total = whole.total
    assert f"{total} of {total} operators stay in PyTorch at min_block_size=100" in str(caught.value)
    assert f"min_block_size={total} puts {total} into 1 engine\n" in str(caught.value)
    assert module.training
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Linear(4, 4), "Linear: give its example inputs, as assert_supported(module, x), "),
        (
            nn.Linear,
            "assert_supported takes a module with its example inputs, or a factory, not the class Linear: make",
        ),
        (3, "assert_supported takes a module with its example inputs, or a factory, not int"),
    ],
)
def test_assert_supported_says_what_to_give(module: Any, said: str) -> None:
    with pytest.raises(TrtgateError) as failed:
        trtgate.assert_supported(module)
    assert str(failed.value).startswith(said)


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("row", torch.ones(4))

    def forward(self, scale: Any = None) -> Any:
        return torch.relu(self.row) if scale is None else self.row * scale


def test_assert_supported_takes_a_module_that_needs_no_inputs_and_a_program_with_its_own() -> None:
    program = torch.export.export(nn.Linear(4, 4).eval(), (torch.ones(2, 4),))
    assert trtgate.assert_supported(program, min_block_size=1).total == 1
    with pytest.raises(AssertionError, match="nothing reaches TensorRT: its graph has no operator"):
        trtgate.assert_supported(Constant(), min_block_size=1)


def test_assert_supported_takes_a_model_and_what_may_stay() -> None:
    model = trtgate.model(odd)
    left = ["aten.special_bessel_j0.default", "aten.max_pool2d.default"]
    with pytest.raises(AssertionError, match="rand"):
        trtgate.assert_supported(model, min_block_size=1, left=left)


@pytest.mark.parametrize("frontend", ["dynamo", "torch_compile"])
def test_the_parts_of_a_graph_are_kept_with_the_modules_of_their_operators(frontend: str) -> None:
    wanted = case(split, frontend, min_block_size=1, torch_executed_ops=("aten.sigmoid.default",))
    with gpu_stand_in.stand_in(), partitioner.observing() as seen, torch.no_grad():
        module, inputs = building.make(wanted, "cpu")
        dry_run._ask(module, inputs, wanted.settings, lambda _text: None)
    (parts,) = seen.known_parts()
    assert [part.kind for part in parts] == ["tensorrt", "pytorch", "tensorrt"]
    assert [[op.operator for op in part.operators] for part in parts] == [
        ["aten.convolution.default", "aten.relu.default"],
        ["aten.sigmoid.default"],
        ["aten.convolution.default", "aten.relu.default"],
    ]
    assert [[op.module for op in part.operators] for part in parts] == [["0", "1"], ["2"], ["3", "4"]]
    first = parts[0].operators[0]
    assert (first.shapes, first.dtypes) == ([[1, 8, 16, 16]], ["float16"])
    assert parts[0].inputs[0] in first.inputs
    assert parts[1].inputs == parts[0].outputs == ["relu"]


def split() -> tuple[nn.Module, Any]:
    """Two engines around a sigmoid, where that stays in PyTorch."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Sigmoid(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers).eval(), torch.randn(1, 3, 16, 16)


def without_weights() -> tuple[nn.Module, Any]:
    raise KeyError("weights")


def test_a_factory_that_raises_is_an_unusable_model_here_too() -> None:
    with pytest.raises(TrtgateError, match=r"its factory raised KeyError: .*\(docs: model-unusable\)$"):
        dry_run.ask(case(without_weights))
