"""Models of which little or nothing reaches TensorRT, asked of the real torch_tensorrt: counts, reasons and lines."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torchvision
from torch import nn

import trtgate
from trtgate.commands import coverage_answers
from trtgate.common.errors import TrtgateError
from trtgate.coverage import dry_run
from trtgate.records import coverage_record
from trtgate.records.coverage_record import Coverage
from trtgate.suite.model_inputs import Inputs
from trtgate.suite.settings import Settings
from trtgate.torch_trt import disabled_converters, gpu_stand_in, partitioner, releases

pytestmark = pytest.mark.skipif(bool(releases.unavailable()), reason="torch_tensorrt is not installed")

ROW = torch.ones(1, 8)
FRONTENDS = pytest.mark.parametrize("frontend", ["dynamo", "torch_compile"])
NOTHING = "nothing reaches TensorRT: "


def asked(module: nn.Module, *inputs: torch.Tensor, frontend: str = "dynamo", **settings: Any) -> Coverage:
    wanted = Settings(frontend=frontend, **{"min_block_size": 1, **settings})
    return dry_run.ask_module(module.eval(), Inputs(inputs or (ROW,)), wanted, who="net")


def counted(found: Coverage) -> tuple[int, int, int]:
    return found.in_tensorrt, found.total, len(found.engines)


def reasons(found: Coverage) -> dict[str, str]:
    return {entry.operator: entry.reason for entry in found.left}


class Calls(nn.Module):
    """A module that calls a function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


# No graph at all


class Speech(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.front, self.rnn, self.head = nn.Linear(8, 8), kind(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(torch.relu(self.front(x)))[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_network_is_skipped_by_dynamo_and_exported_whole(kind: type[nn.RNNBase]) -> None:
    inputs = torch.ones(1, 3, 8)
    with pytest.raises(AssertionError) as caught:
        trtgate.assert_supported(Speech(kind), inputs, frontend="torch_compile", engines=1)
    said = "Dynamo skipped test_coverage_of_nothing.py:forward: Attempted to wrap RNN, GRU, or LSTM"
    assert f"{NOTHING}{said} ({kind.__name__}(8, 8, batch_first=True))" in str(caught.value)
    assert trtgate.assert_supported(Speech(kind), inputs, engines=1).total > 10


class Disabled(nn.Module):
    @torch.compiler.disable
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


def test_a_disabled_forward_is_nothing_and_named() -> None:
    with pytest.raises(AssertionError) as caught:
        trtgate.assert_supported(Disabled(), ROW, frontend="torch_compile", min_block_size=1)
    said = "Dynamo skipped the model: Skip inlining `torch.compiler.disable()`d function (<function Disabled.forward>)"
    assert f"{NOTHING}{said}" in str(caught.value)


class InTry(nn.Module):
    """A graph break where Dynamo can't go on in the middle of a function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            torch._dynamo.graph_break()
            return torch.relu(x)
        finally:
            self.seen = True


def test_a_frame_that_cannot_be_broken_is_skipped() -> None:
    found = asked(InTry(), frontend="torch_compile")
    assert counted(found) == (0, 0, 0)
    assert list(found.skipped) == ["test_coverage_of_nothing.py:forward: Call to `torch._dynamo.graph_break()`"]


def prints(x: torch.Tensor) -> torch.Tensor:
    print()
    return x


def test_a_forward_that_breaks_before_anything_is_nothing_with_the_breaks_reason() -> None:
    with pytest.raises(
        AssertionError, match=r"Failed to trace builtin operator .* at test_coverage_of_nothing\.py:pri"
    ):
        trtgate.assert_supported(Calls(prints), ROW, frontend="torch_compile")


def test_no_graph_remembers_the_size_that_was_asked_for() -> None:
    assert asked(Disabled(), frontend="torch_compile", min_block_size=7).min_block_size == 7


# Graphs without an operator


@FRONTENDS
@pytest.mark.parametrize(
    "function",
    [lambda x: x, lambda _x: 3, lambda x: 2.0 * x.shape[0] + 1, lambda _x: torch.ones(3)],
    ids=["identity", "a number", "numbers computed in Python", "a constant"],
)
def test_a_graph_without_operators_is_nothing(function: Any, frontend: str) -> None:
    assert counted(asked(Calls(function), frontend=frontend)) == (0, 0, 0)
    with pytest.raises(AssertionError, match=NOTHING):
        trtgate.assert_supported(Calls(function), ROW, frontend=frontend)


@FRONTENDS
def test_a_graph_of_one_operator_is_one_engine(frontend: str) -> None:
    assert counted(asked(Calls(torch.relu), frontend=frontend)) == (1, 1, 1)


# Dynamo's breaks and skipped frames beside graphs


class Parts(nn.Module):
    def __init__(self, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), second

    def forward(self, x: torch.Tensor) -> Any:
        x = torch.relu(self.first(x))
        torch._dynamo.graph_break()
        return self.second(x)


BREAK = {"Call to `torch._dynamo.graph_break()` at test_coverage_of_nothing.py:forward": 1}


def test_a_break_in_the_middle_leaves_two_graphs_and_the_break() -> None:
    found = asked(Parts(nn.Linear(8, 8)), frontend="torch_compile")
    assert (found.graphs, found.graph_breaks, found.skipped) == (2, BREAK, {})
    assert counted(found) == (5, 5, 2)


def test_what_dynamo_skips_behind_a_graph_is_in_the_record_and_fails_the_assertion() -> None:
    inputs = torch.ones(3, 1, 8)
    found = asked(Parts(nn.LSTM(8, 8)), inputs, frontend="torch_compile")
    assert (found.graphs, found.in_pytorch) == (1, 0)
    assert list(found.skipped) == [
        "test_coverage_of_nothing.py:forward: Attempted to wrap RNN, GRU, or LSTM (LSTM(8, 8))"
    ]
    with pytest.raises(AssertionError, match=r"Dynamo skipped .* in none of the counts"):
        trtgate.assert_supported(Parts(nn.LSTM(8, 8)), inputs, frontend="torch_compile", min_block_size=1)


class Rest(nn.Module):
    """Of which Dynamo compiles the first line, and skips what follows without a graph break to resume from."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rnn = nn.Linear(8, 8), nn.LSTM(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        return self.rnn(x)[0]


def test_the_rest_of_a_function_that_dynamo_skips_is_no_graph_break_and_has_its_reason() -> None:
    found = asked(Rest(), frontend="torch_compile")
    assert (counted(found), found.graph_breaks) == ((3, 3, 1), {})
    assert found.skipped == {
        "the rest of test_coverage_of_nothing.py:forward: Attempted to wrap RNN, GRU, or LSTM (LSTM(8, 8))": 1
    }


# Operators that stay in PyTorch


def boxes() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(5, 4), torch.rand(5)


class Suppressed(nn.Module):
    def forward(self, corners: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torchvision.ops.nms(corners, scores, 0.5)


def test_nms_is_no_engine_and_left_with_reason_and_line() -> None:
    found = asked(Suppressed(), *boxes())
    assert counted(found) == (0, 1, 0)
    (left,) = found.left
    assert (left.operator, left.reason) == ("torchvision.nms.default", coverage_record.NO_CONVERTER)
    assert left.sources == {f"{line_in(Suppressed)}: return torchvision.ops.nms(corners, scores, 0.5)": 1}


def line_in(module: type[nn.Module]) -> str:
    """Return the line after the `def` of a forward."""
    path = Path(__file__)
    shown = path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.name
    return f"{shown}:{module.forward.__code__.co_firstlineno + 1}"


def test_torch_compile_runs_nms_between_graphs_and_says_so() -> None:
    found = asked(Suppressed(), *boxes(), frontend="torch_compile")
    assert counted(found) == (0, 0, 0)
    assert list(found.graph_breaks) == ["Dynamic shape operator (torchvision.nms.default) at boxes.py:nms"]
    with pytest.raises(AssertionError, match=rf"{NOTHING}.*torchvision\.nms"):
        trtgate.assert_supported(Suppressed(), boxes(), frontend="torch_compile")


class Bessel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x) + torch.special.bessel_j0(x * 2)


@FRONTENDS
def test_the_line_of_an_operator_is_known_on_both_ways(frontend: str) -> None:
    with pytest.raises(AssertionError) as caught:
        trtgate.assert_supported(Bessel(), ROW, frontend=frontend, min_block_size=1)
    assert f"at {line_in(Bessel)}: return torch.special.bessel_j0(x) + torch.special.bessel_j0(x * 2)" in str(
        caught.value
    )


def test_lines_of_torch_compile_change_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_lines(found: Coverage) -> Coverage:
        left = [msgspec.structs.replace(entry, sources={}) for entry in found.left]
        return msgspec.structs.replace(found, left=left)

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), Bessel(), nn.Flatten(), nn.LazyLinear(5))
    image = torch.ones(1, 3, 8, 8)
    module(image)
    found = asked(module, image, frontend="torch_compile")
    assert found.left[0].sources
    monkeypatch.setattr(gpu_stand_in, "_interpreted", lambda trace: trace)
    plain = asked(module, image, frontend="torch_compile")
    assert not plain.left[0].sources
    assert without_lines(found) == plain


def test_an_operator_without_a_converter_alone_is_no_engine() -> None:
    found = asked(Calls(torch.special.bessel_j0))
    assert (counted(found), found.block_sizes, found.recommended) == ((0, 1, 0), [], [])


def test_what_goes_with_an_operator_has_its_reason() -> None:
    found = asked(Calls(torch.unique))
    assert reasons(found) == {
        "aten._unique2.default": coverage_record.NO_CONVERTER, "_operator.getitem": coverage_record.NO_CONVERTER,
    }  # fmt: skip


def test_scatter_is_taken() -> None:
    index = torch.zeros(1, 8, dtype=torch.int64)
    assert counted(asked(Calls(lambda x: torch.scatter(x, 0, index, x)))) == (1, 1, 1)


def test_all_operators_excluded_are_left_for_that_reason() -> None:
    found = asked(Calls(torch.relu), torch_executed_ops=("aten.relu",))
    assert (counted(found), reasons(found)) == ((0, 1, 0), {"aten.relu.default": coverage_record.EXCLUDED})


def test_a_min_block_size_above_the_graph_leaves_all_for_that_reason() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    assert set(reasons(asked(module, min_block_size=9)).values()) == {coverage_record.too_small(9)}
    with pytest.raises(AssertionError) as caught:
        trtgate.assert_supported(module, ROW, min_block_size=9)
    assert f"{NOTHING}2 of 2 operators stay in PyTorch at min_block_size=9" in str(caught.value)
    assert "min_block_size=2 puts 2 into 1 engine\n" in str(caught.value)


# Converters that the installed build disables


def nonzero(x: torch.Tensor) -> torch.Tensor:
    return torch.nonzero(torch.relu(x))


@pytest.mark.skipif(releases.flavour() != "rtx", reason="the converter of nonzero works on standard TensorRT")
def test_a_converter_that_rtx_disables_counts_as_none() -> None:
    found = asked(Calls(nonzero))
    assert counted(found) == (1, 2, 1)
    (left,) = found.left
    assert left.operator == "aten.nonzero.default"
    assert left.reason.startswith(f"{coverage_record.DISABLED} (This is only available in non TensorRT-RTX")
    with pytest.raises(AssertionError, match="a build fails at it: name it in torch_executed_ops"):
        trtgate.assert_supported(Calls(nonzero), ROW, min_block_size=1)


def test_where_data_dependent_operators_fall_back_that_is_the_reason() -> None:
    found = asked(Calls(nonzero), options={"fallback_data_dependent_ops": True})
    assert reasons(found) == {"aten.nonzero.default": coverage_record.DATA_DEPENDENT}


@pytest.fixture
def registry() -> Iterator[dict[Any, Any]]:
    """The registry of converters, which gets back what a test changes."""
    with gpu_stand_in.stand_in():
        from torch_tensorrt.dynamo.conversion._ConverterRegistry import DYNAMO_ATEN_CONVERTERS

        before = {target: list(entries) for target, entries in DYNAMO_ATEN_CONVERTERS.items()}
    yield DYNAMO_ATEN_CONVERTERS
    DYNAMO_ATEN_CONVERTERS.clear()
    DYNAMO_ATEN_CONVERTERS.update(before)


def test_a_guard_is_found_behind_other_decorators_and_only_where_it_refuses(
    registry: dict[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_tensorrt import _features
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import ConverterSupport
    from torch_tensorrt.dynamo.conversion.converter_utils import enforce_tensor_types

    def converter(ctx: Any, target: Any, args: Any, kwargs: Any, name: str) -> Any:
        raise AssertionError("called without a network")

    enabled = _features.ENABLED_FEATURES
    guarded = enforce_tensor_types({})(_features.needs_qdp_plugin(converter))
    registry[torch.ops.aten.relu.default] = [ConverterSupport(guarded)]
    monkeypatch.setattr(_features, "ENABLED_FEATURES", enabled._replace(qdp_plugin=False))
    assert "QDP" in disabled_converters.why_disabled(guarded)
    assert asked(Calls(torch.relu)).left[0].reason.startswith(coverage_record.DISABLED)
    monkeypatch.setattr(_features, "ENABLED_FEATURES", enabled._replace(qdp_plugin=True))
    assert disabled_converters.why_disabled(guarded) == disabled_converters.why_disabled(converter) == ""
    assert asked(Calls(torch.relu)).left == []


def test_another_converter_of_the_same_operator_still_takes_it(registry: dict[Any, Any]) -> None:
    from torch_tensorrt._features import needs_not_tensorrt_rtx, needs_tensorrt_rtx
    from torch_tensorrt.dynamo.conversion._ConverterRegistry import ConverterSupport

    relu = torch.ops.aten.relu.default
    refuses = needs_not_tensorrt_rtx if releases.flavour() == "rtx" else needs_tensorrt_rtx
    registry[relu] = [ConverterSupport(refuses(registry[relu][0].converter_implementation)), *registry[relu]]
    assert counted(asked(Calls(torch.relu))) == (1, 1, 1)


# The partitioner's own errors


def test_an_error_of_the_partitioner_is_told_apart_from_another_release(monkeypatch: pytest.MonkeyPatch) -> None:
    with gpu_stand_in.stand_in():
        from torch_tensorrt.dynamo.partitioning._adjacency_partitioner import TRTPartitioner

    def failing(_self: Any) -> Any:
        raise RuntimeError("a cycle")

    monkeypatch.setattr(TRTPartitioner, "put_nodes_into_subgraphs", failing)
    with pytest.raises(
        TrtgateError, match=r"coverage of net: the partitioner of torch_tensorrt \S+ fails at this grap"
    ):
        asked(Calls(torch.relu))


def test_an_error_in_the_backend_of_torch_compile_is_said_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    with gpu_stand_in.stand_in():
        from torch_tensorrt.dynamo.backend import backends

    def failing(*_arguments: Any, **_keywords: Any) -> Any:
        raise ValueError("can't view a tensor")

    monkeypatch.setattr(backends, "torch_tensorrt_backend", failing)
    with pytest.raises(TrtgateError, match=r"^coverage of net: ValueError: can't view a tensor$"):
        asked(Calls(torch.relu), frontend="torch_compile")


def test_where_the_fast_partitioner_gives_up_the_global_one_is_asked_as_upstream_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch.fx.passes.splitter_base import FxNetSplitterInternalError

    with gpu_stand_in.stand_in():
        from torch_tensorrt.dynamo.partitioning._adjacency_partitioner import TRTPartitioner

    def failing(_self: Any) -> Any:
        raise FxNetSplitterInternalError("Couldn't create subgraphs")

    monkeypatch.setattr(TRTPartitioner, "put_nodes_into_subgraphs", failing)
    found = asked(Calls(lambda x: torch.tanh(torch.relu(x))))
    assert counted(found) == (2, 2, 1)
    assert found.recommended == [2]


def test_noting_tells_both_apart() -> None:
    seen = partitioner.Observed()
    with seen.noting():
        raise partitioner.PartitionerError("the partitioner fails")
    assert seen.problem == "the partitioner fails"
    with seen.noting():
        raise AttributeError("no such name")
    assert f"in another way than {releases.SUPPORTED}" in seen.problem


# `trtgate coverage`


def speech() -> tuple[nn.Module, Any]:
    return Speech(nn.LSTM).eval(), torch.ones(1, 3, 8)


def bessel() -> tuple[nn.Module, Any]:
    return Bessel().eval(), ROW


def test_the_command_fails_for_nothing_and_shows_lines() -> None:
    wanted = coverage_answers.cases(
        [f"{__name__}:speech", f"{__name__}:bessel"], whole_zoo=False, frontend="torch_compile", precisions=["fp32"]
    )
    answers = coverage_answers.ask(wanted, lambda _step: None)
    lines = "\n".join(map(str, coverage_answers.shown(answers, "rtx-2.14.0"))).splitlines()
    code = "return torch.special.bessel_j0(x) + torch.special.bessel_j0(x * 2) (2 times)"
    assert f"{line_in(Bessel)}: {code}" in [line.strip() for line in lines]
    assert any(row.split()[1:4] == ["0", "of", "0"] for row in lines)
    assert lines[-1].startswith(
        "FAILED: coverage of speech-torch_compile-fp32-mbs5: nothing reaches TensorRT: Dynamo skipped test_coverage_of"
    )
    assert [bool(answer.problem) for answer in answers] == [True, False]


# Modules and settings of all kinds


class Locked(nn.Module):
    """What can't be copied, with a buffer that running changes."""

    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.linear = threading.Lock(), nn.Linear(8, 8)
        self.parent = weakref.ref(self)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return self.linear(x) + self.count


def test_a_module_that_cannot_be_copied_is_asked_itself_and_stays_as_it_is() -> None:
    module = Locked().train()
    found = trtgate.assert_supported(module, ROW, min_block_size=1)
    assert found.total > 1
    assert module.training
    assert module.linear.weight.requires_grad
    assert module.count.item() == 0


def test_one_that_would_have_to_be_cast_is_refused_in_a_line() -> None:
    module = Locked()
    with pytest.raises(
        TrtgateError, match=r"^Locked can't be copied \(.*lock.*\), and fp16 would change it: give a fac"
    ):
        trtgate.assert_supported(module, ROW, precision="fp16")
    assert module.linear.weight.dtype == torch.float32


@pytest.mark.parametrize("frontend", ["dynamo", "torch_compile"])
def test_lazy_modules_and_those_made_in_inference_mode_are_asked_like_others(frontend: str) -> None:
    def layers() -> nn.Module:
        return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU())

    with torch.inference_mode():
        within = layers()
    for module in (layers(), within):
        assert trtgate.assert_supported(module, ROW, frontend=frontend, min_block_size=1).total > 1
        assert isinstance(module[0], nn.LazyLinear)


def test_a_scripted_module_is_refused_with_what_to_do() -> None:
    with pytest.raises(TrtgateError, match="RecursiveScriptModule, which dynamo can't compile: return the module that"):
        trtgate.assert_supported(torch.jit.script(nn.Linear(8, 8)), ROW, min_block_size=1)


def test_options_reach_the_compiler_and_unknown_ones_are_refused() -> None:
    module = Calls(nonzero)
    options = {"fallback_data_dependent_ops": True}
    trtgate.assert_supported(module, ROW, min_block_size=1, options=options, left=["aten.nonzero.default"])
    with pytest.raises(TrtgateError, match="unknown compile option 'use_fast_partitoner'; did you mean"):
        trtgate.assert_supported(module, ROW, options={"use_fast_partitoner": False})


@FRONTENDS
def test_a_dynamic_batch_reaches_the_engines(frontend: str) -> None:
    asked_for = {"min_block_size": 1, "frontend": frontend, "dynamic": {"batch": (1, 4, 16)}}
    found = trtgate.assert_supported(nn.Linear(8, 8), torch.ones(2, 8), **asked_for)  # type: ignore[arg-type]
    assert any(not name.endswith("[2,8]") for name in found.engines[0].outputs)
    with pytest.raises(TrtgateError, match="example inputs have one seq: give inputs as a function of it"):
        trtgate.assert_supported(nn.Linear(8, 8), ROW, dynamic={"seq": (1, 4, 16)})


def test_a_factory_is_called_with_the_batch() -> None:
    def net(batch: int) -> tuple[nn.Module, Any]:
        return nn.Linear(8, 8), torch.ones(batch, 8)

    assert trtgate.assert_supported(net, min_block_size=1, batch=3).engines[0].inputs == ["float32[3,8]"]
    assert trtgate.assert_supported(net, min_block_size=1).engines[0].inputs == ["float32[1,8]"]
    with pytest.raises(TrtgateError, match="the factory takes no `batch`"):
        trtgate.assert_supported(speech, batch=2)
