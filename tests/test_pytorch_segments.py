"""Segments that stay in PyTorch, profiled operator by operator; on a CPU the operators' own time."""

from __future__ import annotations

import pytest
import torch

from trtgate.profiles import checks
from trtgate.profiles.pytorch_segments import busy_us, copies_us, profile_segment
from trtgate.profiles.record import PYTORCH, Operator, Part


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
    profile_segment(part, module, inputs, warm_up=2, blocks=6, calls=2)
    assert [layer.name for layer in part.layers] == nodes
    assert [layer.modules for layer in part.layers] == [[f"m.{name}"] for name in nodes]
    assert all(len(layer.blocks_us) == 6 and layer.median_us > 0 for layer in part.layers)
    assert part.layers[0].outputs[0].shape == [64, 64]
    assert checks._of_part(part) == []


def test_kernels_that_overlap_are_busy_once() -> None:
    spans = [("a", 0.0, 10.0), ("b", 5.0, 10.0), ("Memcpy DtoD", 20.0, 1.0), ("c", 20.5, 0.2)]
    assert busy_us(spans) == pytest.approx(16.0)
    assert copies_us(spans) == pytest.approx(1.0)
    assert busy_us([]) == 0.0
