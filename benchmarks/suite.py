"""What this repository measures: models by settings. Add a row, and `make bench` measures it.

Nothing is imported or built until a case runs, so collecting stays fast.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from digits import digits, samples

import trtgate
from trtgate.suite.random_weights import condition

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


TORCHSCRIPT = trtgate.grid(["ts_trace", "ts_script"], ["fp16"], [1])
"""Deprecated upstream; of one model, to see whether it works."""

FP8_CONVOLUTIONS = trtgate.expected_failure("fp8 convolutions return NaN", flavour="rtx", versions="2.11")

QUANTIZED = (
    *trtgate.grid(["eager"], ["fp32"], [8]),
    *trtgate.grid(["dynamo"], ["fp16", "int8", "int8_weights"], [8]),
    *trtgate.grid(["dynamo"], ["fp8"], [8], expected_failure=FP8_CONVOLUTIONS),
)

MODELS = [
    *(
        trtgate.Model(name, partial(torchvision_model, name), (*MATRIX, *(TORCHSCRIPT if name == "resnet18" else ())))
        for name in TORCHVISION
    ),
    trtgate.Model(
        "digits", digits, QUANTIZED, samples=samples, weights_said="trained on three quarters of scikit-learn's digits"
    ),
]
