"""`torch.jit.trace`, then `torch_tensorrt.ts.compile`."""

from __future__ import annotations

from .frontend import Frontend
from .torchscript_base import TorchScript

FRONTEND: Frontend = TorchScript("trace")
