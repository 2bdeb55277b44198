"""What this repository measures: models by settings. Add a row, and `make bench` measures it.

Nothing is imported or built until a case runs, so collecting stays fast.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import trtgate

SEED = 20240229
RESIDUAL_SCALE = 0.2

MATRIX = (
    # On any machine
    *trtgate.grid(frontends=["eager", "inductor"], precisions=["fp32"], batches=[1]),
    # On a GPU
    *trtgate.grid(frontends=["eager", "inductor"], precisions=["fp32"], batches=[8], needs_gpu=True),
    *trtgate.grid(frontends=["eager", "inductor"], precisions=["fp16"], batches=[1, 8]),
    *trtgate.grid(frontends=["dynamo"], precisions=["fp32", "fp16"], batches=[1, 8], min_block_sizes=[5]),
)

TORCHVISION = ("resnet18", "resnet50", "mobilenet_v3_large", "vit_b_16")


def torchvision_model(name: str, batch: int) -> tuple[Any, Any]:
    """Return a torchvision classifier with seeded random weights and a seeded image batch."""
    import torch
    import torchvision

    torch.manual_seed(SEED)
    module = getattr(torchvision.models, name)(weights=None)
    condition(module)
    return module.eval(), torch.randn(batch, 3, 224, 224)


def condition(module: Any) -> None:
    """Give random weights the activations of a trained network, so that outputs can be compared.

    As they are, mobilenet_v3_large's output is 1e-10, lost in fp16; vit_b_16's head is zero; and resnet50's residual
    branches, as loud as what they are added to, amplify fp16's rounding to 2 % of the output. So batch norms learn
    their statistics from two random images, an empty head is filled, and residual branches are turned down.
    """
    import torch
    from torchvision.models.resnet import BasicBlock, Bottleneck

    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
            if isinstance(layer, BasicBlock | Bottleneck):
                last = layer.bn3 if isinstance(layer, Bottleneck) else layer.bn2
                last.weight.fill_(RESIDUAL_SCALE)
            if isinstance(layer, torch.nn.Linear) and not layer.weight.any():
                torch.nn.init.trunc_normal_(layer.weight, std=0.02)
        if any(isinstance(layer, torch.nn.BatchNorm2d) for layer in module.modules()):
            module.train()(torch.randn(2, 3, 224, 224))


MODELS = [trtgate.Model(name, partial(torchvision_model, name), MATRIX) for name in TORCHVISION]
