"""What is measured: models under settings. Replace the model by your own, or add more beside it.

A model under one of its settings is a case; `pytest --collect-only -q` and the path of this file lists them.
"""

from __future__ import annotations

from typing import Any

import trtgate

SEED = 0


@trtgate.model(
    frontends=("eager", "dynamo"),  # and "inductor"
    precisions=("fp32", "fp16"),  # fp16 and dynamo are measured on a GPU only, and skipped elsewhere
    batches=(1,),
)
def small_convnet(batch: int) -> tuple[Any, Any]:
    """Return a module in eval mode and its example inputs, the same at every call: each launch makes its own."""
    import torch  # here, not at the top: collecting and choosing tests then need not wait seconds for it

    torch.manual_seed(SEED)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, kernel_size=3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 10),
    )
    return module.eval(), torch.randn(batch, 3, 64, 64)
