"""The FX frontend, which is legacy: RTX builds leave it out, and it calls what TensorRT 10 removed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..common.steps import OnStep
from ..suite.settings import Settings
from ..torch_trt import compile_calls, engine_sizes
from .frontend import CompiledModule, Frontend
from .tensorrt_base import OfTensorRT
from .unstored_base import Unstored

if TYPE_CHECKING:
    from ..suite.model_inputs import Inputs
    from ..torch_trt.dynamic_inputs import DynamicInputs


class Fx(OfTensorRT, Unstored):
    """`torch_tensorrt.fx.compile`."""

    stores = "nothing: every launch builds its engines anew"

    def build(
        self, prepared: Any, inputs: Inputs, settings: Settings, step: OnStep,
        dynamic: DynamicInputs | None = None,  # noqa: ARG002
    ) -> CompiledModule:  # fmt: skip
        """Compile, run once."""
        start = time.perf_counter()
        inputs.check_plain("fx")
        step("TensorRT build")
        compiled = compile_calls.compile_fx(prepared, inputs, settings)
        inputs.call(compiled)
        return CompiledModule(compiled, time.perf_counter() - start, tuple(engine_sizes.of(compiled)))


FRONTEND: Frontend = Fx()
