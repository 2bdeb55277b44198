"""The FX frontend, which is legacy: RTX builds leave it out, and it calls what TensorRT 10 removed."""

from __future__ import annotations

import time
from typing import Any

from ..cases import Settings
from ..torch_trt import compiling
from .protocol import CompiledModule, Frontend, Progress
from .tensorrt import OfTensorRT
from .unstored import Unstored


class Fx(OfTensorRT, Unstored):
    """`torch_tensorrt.fx.compile`."""

    stores = "nothing: every launch builds its engines anew"

    def build(self, prepared: Any, inputs: tuple[Any, ...], settings: Settings, step: Progress) -> CompiledModule:
        """Compile, run once."""
        start = time.perf_counter()
        step("TensorRT build")
        compiled = compiling.compile_fx(prepared, inputs, settings)
        compiled(*inputs)
        return CompiledModule(compiled, time.perf_counter() - start, tuple(compiling.engine_bytes(compiled)))


FRONTEND: Frontend = Fx()
