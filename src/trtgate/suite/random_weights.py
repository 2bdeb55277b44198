"""Random weights that compute something: networks as they are initialised often can't be compared at half precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

RESIDUAL_SCALE = 0.2


def condition(module: Any, images: Any) -> None:
    """Give a network with random weights the activations of a trained one, so that outputs can be compared.

    As they are, mobilenet_v3_large's output is 1e-10, lost in fp16; vit_b_16's head is zero; and resnet50's residual
    branches, as loud as what they are added to, amplify fp16's rounding to 2 % of the output. So batch norms learn
    their statistics from some random images, empty heads are filled, and residual branches are turned down. By one
    thread: how many there are decides how sums are rounded, and the weights are not to depend on it.
    """
    import torch
    from torchvision.models.resnet import BasicBlock, Bottleneck

    module.eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
                layer.train()
            if isinstance(layer, BasicBlock | Bottleneck):
                last = layer.bn3 if isinstance(layer, Bottleneck) else layer.bn2
                last.weight.fill_(RESIDUAL_SCALE)
            if isinstance(layer, torch.nn.Linear) and not layer.weight.any():
                torch.nn.init.trunc_normal_(layer.weight, std=0.02)
        if any(isinstance(layer, torch.nn.BatchNorm2d) for layer in module.modules()):
            with threads(1):
                module(images)
    module.eval()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Within: PyTorch computes by so many threads on the CPU."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
