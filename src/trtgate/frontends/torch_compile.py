"""`torch.compile` with Torch-TensorRT's backend: engines made at the first call, and again in every process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..common.steps import OnStep
from ..suite.settings import Settings
from ..torch_trt import compile_calls, dynamic_engines, dynamo_frames, engine_sizes, engines, partitioner
from .frontend import CompiledModule, Frontend
from .tensorrt_base import OfTensorRT
from .unstored_base import Unstored

if TYPE_CHECKING:
    from ..suite.model_inputs import Inputs
    from ..torch_trt.dynamic_inputs import DynamicInputs


class TorchCompile(OfTensorRT, Unstored):
    """`torch.compile(backend="torch_tensorrt")`."""

    stores = "nothing: every launch builds its engines anew"

    def build(
        self, prepared: Any, inputs: Inputs, settings: Settings, step: OnStep, dynamic: DynamicInputs | None = None
    ) -> CompiledModule:
        """Compile at the first call, and call a second time, when guards are settled."""
        import torch

        from ..torch_trt import dynamic_tracing

        start = time.perf_counter()
        step("torch.compile, TensorRT build")
        torch.compiler.reset()
        made: list[Any] = []
        with (
            partitioner.observing() as seen,
            dynamo_frames.observing() as left_out,
            engines.verbosity(settings.profiling_verbosity),
        ):
            compiled = compile_calls.torch_compile(prepared, settings, made)
            if dynamic is None:
                inputs.call(compiled)
            else:
                dynamic_tracing.first_call(compiled, dynamic, inputs)
        dynamic_engines.prepare(made, settings)
        inputs.call(compiled)
        sizes = [size for part in made for size in engine_sizes.of(part)]
        return CompiledModule(
            compiled,
            time.perf_counter() - start,
            tuple(sizes),
            seen.coverage(settings, left_out),
            seen.known_parts(),
            tuple(made),
        )


FRONTEND: Frontend = TorchCompile()
