"""`torch.jit.script`, then `torch_tensorrt.ts.compile`."""

from __future__ import annotations

from .protocol import Frontend
from .torchscript import TorchScript

FRONTEND: Frontend = TorchScript("script")
