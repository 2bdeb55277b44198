"""Is the output right? Compared with eager before anything is timed."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import torch
from torch.utils._pytree import tree_leaves

TOLERANCES = {
    "fp32": (1e-3, 0.9999), "tf32": (3e-2, 0.999), "fp16": (3e-2, 0.999), "bf16": (2e-1, 0.98),
    "int8": (3e-1, 0.95), "int8_weights": (1e-1, 0.99), "fp8": (3e-1, 0.95),
}  # fmt: skip
"""Arithmetic → (largest relative L2 error, smallest cosine) against eager at the same dtype. fp16 and TF32 round at
2^-11 = 5e-4 an operation, in another order than eager, through some hundred layers: measured on an H200 4e-3 for
resnet18, 6e-3 for vit_b_16 and 8e-3 for mobilenet_v3_large. bf16 rounds eight times as coarsely. What quantizing costs
depends on the network; beyond these it is broken: resnet18, fake-quantized, is off by 1.7e-2 in int8, 1.4e-2 with int8
weights, 5.7e-2 in fp8."""


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """Relative L2 error ‖out - eager‖ / ‖eager‖ and cosine similarity, over all outputs together."""

    relative_l2: float
    cosine: float
    finite: bool = True

    def problem(self, arithmetic: str) -> str:
        """Return what is wrong at the tolerance of this arithmetic, with the figures; empty when it is right."""
        largest, smallest = TOLERANCES[arithmetic]
        if not self.finite:
            return "the output has NaN or infinite values"
        if self.relative_l2 <= largest and self.cosine >= smallest:
            return ""
        return (
            f"the output differs from eager: relative L2 {self.relative_l2:.2e} (at most {largest:.0e}), "
            f"cosine {self.cosine:.6f} (at least {smallest})"
        )


def tensors(output: Any) -> list[torch.Tensor]:
    """Return all tensors of a nested output in order."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def all_finite(output: Any) -> bool:
    """Whether every value of every floating-point tensor of the output is finite."""
    return all(bool(torch.isfinite(t).all()) for t in tensors(output) if t.is_floating_point())


def compare(eager: Any, output: Any) -> Accuracy:
    """Compare two outputs of the same structure.

    Differing numbers or shapes of tensors count as infinitely wrong.
    """
    wanted, got = tensors(eager), tensors(output)
    if [t.shape for t in wanted] != [t.shape for t in got]:
        return Accuracy(relative_l2=math.inf, cosine=0.0)
    if not all_finite(output):
        return Accuracy(relative_l2=math.nan, cosine=math.nan, finite=False)
    a = torch.cat([t.detach().flatten().double() for t in wanted])
    b = torch.cat([t.detach().flatten().double() for t in got])
    norm_a, norm_b = float(a.norm()), float(b.norm())
    error = float((a - b).norm())
    if norm_a == 0.0:
        return Accuracy(relative_l2=0.0 if error == 0.0 else math.inf, cosine=1.0 if error == 0.0 else 0.0)
    cosine = float(torch.dot(a, b)) / (norm_a * norm_b) if norm_b else 0.0
    return Accuracy(relative_l2=error / norm_a, cosine=cosine)
