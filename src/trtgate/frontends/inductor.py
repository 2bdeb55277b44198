"""torch.compile with its own backends. Inductor's artifact is its own cache on disk, which later launches hit."""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Any

from ..common import machine
from ..common.steps import OnStep
from ..suite.settings import Settings
from .frontend import CompiledModule, Frontend
from .unstored_base import Unstored

if TYPE_CHECKING:
    from ..suite.model_inputs import Inputs
    from ..torch_trt.dynamic_inputs import DynamicInputs


class TorchBackend(Unstored):
    """`torch.compile` with a backend that leads to no TensorRT."""

    def __init__(self, backend: str, stores: str) -> None:
        self.stores = stores
        self._backend = backend

    def unavailable(self) -> str:
        """Return the reason when there is no C++ compiler, which Inductor calls for every kernel or wrapper."""
        needs_one = self._backend == "inductor" and not machine.cpp_compiler()
        return "inductor needs a C++ compiler: install g++ or set CXX" if needs_one else ""

    def import_libraries(self) -> None:
        """Import what torch.compile does at its first call."""
        importlib.import_module("torch._inductor.compile_fx" if self._backend == "inductor" else "torch._dynamo")

    def build(
        self, prepared: Any, inputs: Inputs, settings: Settings, step: OnStep, dynamic: DynamicInputs | None = None
    ) -> CompiledModule:
        """Compile at the first call, and call a second time, when guards and caches are settled.

        Modes that record CUDA graphs do so at the second or third.
        """
        import torch

        step(f"{self._backend} compile")
        start = time.perf_counter()
        torch.compiler.reset()
        compiled = torch.compile(prepared, backend=self._backend, mode=_mode(settings))
        calls = 2 if _mode(settings) is None else 4
        if dynamic is not None:
            from ..torch_trt import dynamic_tracing

            dynamic_tracing.first_call(compiled, dynamic, inputs)
        for _ in range(calls):
            inputs.call(compiled)
        return CompiledModule(compiled, time.perf_counter() - start)


def _mode(settings: Settings) -> str | None:
    return None if settings.mode == "default" else settings.mode


FRONTEND: Frontend = TorchBackend(
    "inductor", "Inductor's own cache (TORCHINDUCTOR_CACHE_DIR), which later launches hit"
)
