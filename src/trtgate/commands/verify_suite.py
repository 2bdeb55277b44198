"""The suite of `trtgate verify`: convolutions for every frontend, and a block of a transformer that is cut in two.

Nothing is downloaded. At fp32 it suits a CPU; at fp16 it keeps a GPU busy enough for its clocks to be told apart.
"""

from __future__ import annotations

import torch

from ..suite.cases import Model
from ..suite.declaring import grid
from ..suite.settings import FRONTENDS, OWN, RUNTIMES

CONVOLUTIONS, BLOCK = "convolutions", "block"
IN_PYTORCH = "aten.sigmoid"
"""The operator of the block that stays in PyTorch: an engine before it, another behind it."""
SEED = 20240229


def convolutions(batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """Return convolutions, residual sums and a product: what every frontend takes, in one engine."""

    class Residual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(64, 64, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.relu(self.conv(x))

    torch.manual_seed(SEED)
    layers = [torch.nn.Conv2d(3, 64, 3, padding=1), *(Residual() for _ in range(4))]
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 64)]
    return torch.nn.Sequential(*layers, *head).eval(), torch.randn(batch, 3, 64, 64)


def block(batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """Return a block of a transformer: attention, then two products that a sigmoid gates."""

    class Block(torch.nn.Module):
        def __init__(self, width: int = 512, heads: int = 8) -> None:
            super().__init__()
            self.heads = heads
            self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(width) for _ in range(2))
            self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
            self.up, self.gate, self.down = (torch.nn.Linear(width, width) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (
                part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
                for part in self.qkv(self.norms[0](x)).chunk(3, dim=-1)
            )
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(mixed.transpose(1, 2).flatten(2))
            y = self.norms[1](x)
            return x + self.down(self.up(y) * torch.sigmoid(self.gate(y)))

    torch.manual_seed(SEED)
    return Block().eval(), torch.randn(batch, 64, 512)


BUILDING = [name for name in FRONTENDS if name != OWN]

MODELS = [
    Model(
        CONVOLUTIONS,
        convolutions,
        [
            *grid(BUILDING, ["fp32"], [1]),
            *grid(BUILDING, ["fp16"], [32]),
            *grid(["dynamo"], ["fp16"], [32], runtimes=RUNTIMES[1:]),
        ],
    ),
    Model(BLOCK, block, grid(["dynamo"], ["fp16"], [32], min_block_sizes=[1], torch_executed_ops=[IN_PYTORCH])),
]
