"""What the frontends share that lead to TensorRT."""

from __future__ import annotations

from .. import torch_trt


class OfTensorRT:
    """Needs torch_tensorrt."""

    def unavailable(self) -> str:
        """Return the reason when torch_tensorrt is not installed."""
        return torch_trt.unavailable()

    def import_libraries(self) -> None:
        """Import torch_tensorrt."""
        torch_trt.imported()
