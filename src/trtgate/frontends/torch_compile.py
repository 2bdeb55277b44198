"""`torch.compile` with Torch-TensorRT's backend: engines made at the first call, and again in every process."""

from __future__ import annotations

import time
from typing import Any

from .. import trt_engines
from ..cases import Settings
from ..torch_trt import compiling, partition
from .protocol import CompiledModule, Frontend, Progress
from .tensorrt import OfTensorRT
from .unstored import Unstored


class TorchCompile(OfTensorRT, Unstored):
    """`torch.compile(backend="torch_tensorrt")`."""

    stores = "nothing: every launch builds its engines anew"

    def build(self, prepared: Any, inputs: tuple[Any, ...], settings: Settings, step: Progress) -> CompiledModule:
        """Compile at the first call, and call a second time, when guards are settled."""
        import torch

        from .. import exporting

        start = time.perf_counter()
        step("torch.compile, TensorRT build")
        torch.compiler.reset()
        made: list[Any] = []
        with partition.observing() as seen, trt_engines.verbosity(settings.profiling_verbosity):
            compiled = compiling.torch_compile(prepared, settings, made)
            compiled(*exporting.first(inputs, settings))
        compiled(*inputs)
        sizes = [size for part in made for size in compiling.engine_bytes(part)]
        return CompiledModule(
            compiled,
            time.perf_counter() - start,
            tuple(sizes),
            seen.coverage(),
            seen.known_parts(),
            tuple(made),
        )


FRONTEND: Frontend = TorchCompile()
