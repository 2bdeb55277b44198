"""What this repository measures: models by settings. Add a row, and `make bench` measures it.

Nothing is imported or built until a case runs, so collecting stays fast.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import trtgate
from trtgate.conditioning import condition

SEED = 20240229

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
    condition(module, torch.randn(2, 3, 224, 224))
    return module.eval(), torch.randn(batch, 3, 224, 224)


MODELS = [trtgate.Model(name, partial(torchvision_model, name), MATRIX) for name in TORCHVISION]
