"""Segments that stay in PyTorch, profiled operator by operator; on a CPU the operators' own time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.compiling.inference import Inference
from trtgate.frontends import CompiledModule
from trtgate.profiles import profile_checks, profile_recording
from trtgate.profiles.pytorch_segments import busy_us, copies_us, profile_segment
from trtgate.records.profile_record import PYTORCH, Operator, Part
from trtgate.suite.model_inputs import Inputs


class Net(torch.nn.Module):
    """Two products and what lies between."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.mm(torch.relu(torch.mm(x, y)), y)


def test_every_operator_is_a_layer_with_its_module() -> None:
    module = torch.fx.symbolic_trace(Net())
    nodes = [node.name for node in module.graph.nodes if node.op == "call_function"]
    operators = [
        Operator(node=name, operator=f"aten.{name}.default", module=f"m.{name}", shapes=[[64, 64]], dtypes=["float32"])
        for name in nodes
    ]
    part = Part(name="_run_on_gpu_1", kind=PYTORCH, layers=[], operators=operators)
    inputs = (torch.randn(64, 64), torch.randn(64, 64))
    profile_segment(part, module, inputs, on_gpu=False, warm_up=2, blocks=6, calls=2)
    assert [layer.name for layer in part.layers] == nodes
    assert [layer.modules for layer in part.layers] == [[f"m.{name}"] for name in nodes]
    assert all(len(layer.blocks_us) == 6 and layer.median_us > 0 for layer in part.layers)
    assert part.layers[0].outputs[0].shape == [64, 64]
    assert profile_checks._of_part(part) == []


def test_kernels_that_overlap_are_busy_once() -> None:
    spans = [("a", 0.0, 10.0), ("b", 5.0, 10.0), ("Memcpy DtoD", 20.0, 1.0), ("c", 20.5, 0.2)]
    assert busy_us(spans) == pytest.approx(16.0)
    assert copies_us(spans) == pytest.approx(1.0)
    assert busy_us([]) == 0.0


class Whole(torch.nn.Module):
    """A partitioned graph: two segments, of which the second is called with what the first returns."""

    def __init__(self) -> None:
        super().__init__()
        self._run_on_gpu_0 = torch.fx.symbolic_trace(Net())
        self._run_on_gpu_1 = torch.fx.symbolic_trace(Net())

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self._run_on_gpu_1(self._run_on_gpu_0(x, y), y)


def segment(name: str, kind: str = PYTORCH) -> Part:
    nodes = [node.name for node in torch.fx.symbolic_trace(Net()).graph.nodes if node.op == "call_function"]
    operators = [Operator(node=node, operator=f"aten.{node}.default") for node in nodes]
    return Part(name=name, kind=kind, layers=[], operators=operators)


def inference(*parts: tuple[Part, ...]) -> Inference:
    whole = Whole()
    compiled = CompiledModule(whole, 0.0, parts=parts, modules=tuple([whole] * len(parts)))
    return Inference(compiled, Inputs((torch.randn(32, 32), torch.randn(32, 32))))


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Record without the two steps that need a GPU; returns the function that records."""
    state: Any = SimpleNamespace(spin=None)
    monkeypatch.setattr(profile_recording, "_device_latency", lambda *_: (10.0, "cuda_graph"))
    monkeypatch.setattr(profile_recording, "_kernels", lambda *_: [])
    cpu = Accelerator(kind="cpu", name="test")
    plan = profile_recording.ProfilePlan(warm_up=1, blocks=6, calls=1)
    return lambda case: profile_recording.record("case", case, cpu, lambda _step: None, state, plan).profile


def test_segments_are_profiled_with_what_they_are_called_with(on_a_cpu: Any) -> None:
    profile = on_a_cpu(inference((segment("_run_on_gpu_0"), segment("_run_on_gpu_1"))))
    assert [(part.name, len(part.layers), part.problem) for part in profile.parts] == [
        ("_run_on_gpu_0", 3, ""), ("_run_on_gpu_1", 3, ""),
    ]  # fmt: skip
    assert (profile.device_us, profile.clock, profile.calls) == (10.0, "cuda_graph", 6)


def test_parts_of_several_graphs_have_names_of_their_own(on_a_cpu: Any) -> None:
    profile = on_a_cpu(inference((segment("_run_on_gpu_0"),), (segment("_run_on_gpu_0"),)))
    assert [part.name for part in profile.parts] == ["graph_0_run_on_gpu_0", "graph_1_run_on_gpu_0"]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((), "nothing is known of its parts"),
        (((segment("_run_on_acc_0", "tensorrt"),),), "has no _run_on_acc_0, which was built"),
        (((segment("_run_on_gpu_0", "tensorrt"),),), "1 engines were seen being built, and it has 0"),
    ],
)
def test_a_module_that_is_not_what_was_built_is_refused(on_a_cpu: Any, parts: Any, said: str) -> None:
    with pytest.raises(TrtgateError, match=said):
        on_a_cpu(inference(*parts))
