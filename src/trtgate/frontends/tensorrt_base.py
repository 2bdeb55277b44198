"""What the frontends share that lead to TensorRT."""

from __future__ import annotations

from ..torch_trt import releases, runtime_cache


class OfTensorRT:
    """Needs torch_tensorrt."""

    def unavailable(self) -> str:
        """Return the reason when torch_tensorrt is not installed."""
        return releases.unavailable()

    def import_libraries(self) -> None:
        """Import torch_tensorrt, and ask what kernels depend on."""
        releases.imported()
        runtime_cache.prepare()
