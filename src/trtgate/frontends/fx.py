"""The FX frontend, which is legacy: RTX builds leave it out, and it calls what TensorRT 10 removed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .. import torch_trt
from ..cases import Settings
from .protocol import CompiledModule, Frontend, Progress


class Fx:
    """`torch_tensorrt.fx.compile`."""

    stores_artifact = False
    stores = "nothing: every launch builds its engines anew"

    def unavailable(self) -> str:
        """Return the reason when torch_tensorrt is not installed."""
        return torch_trt.unavailable()

    def prepare(self, module: Any, inputs: tuple[Any, ...], settings: Settings, step: Progress) -> Any:  # noqa: ARG002
        """Return the module."""
        return module

    def build(self, prepared: Any, inputs: tuple[Any, ...], settings: Settings, step: Progress) -> CompiledModule:
        """Compile, run once."""
        start = time.perf_counter()
        step("TensorRT build")
        compiled = torch_trt.compile_fx(prepared, inputs, settings)
        compiled(*inputs)
        return CompiledModule(compiled, time.perf_counter() - start, tuple(torch_trt.engine_bytes(compiled)))

    def save(self, compiled: CompiledModule, inputs: tuple[Any, ...], folder: Path) -> None:
        """Nothing is stored."""

    def load(self, folder: Path) -> CompiledModule:
        """Not used, as nothing is stored."""
        raise NotImplementedError(f"fx stores nothing in {folder}")


FRONTEND: Frontend = Fx()
