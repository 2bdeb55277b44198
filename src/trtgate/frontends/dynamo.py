"""torch.export and `torch_tensorrt.dynamo.compile`: engines ahead of time, stored as one exported program."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..common.steps import OnStep
from ..records.profile_record import Part
from ..suite.settings import Settings
from ..timing import run_state
from ..torch_trt import (
    compile_calls,
    dynamic_engines,
    engine_sizes,
    engines,
    partitioner,
    runtime_cache,
    stored_modules,
)
from .frontend import CompiledModule, Frontend
from .tensorrt_base import OfTensorRT

if TYPE_CHECKING:
    from ..suite.model_inputs import Inputs
    from ..torch_trt.dynamic_inputs import DynamicInputs

FILE = "compiled.pt2"
PARTS = "parts.json"
"""What the module was partitioned into, so that a loaded one can be profiled."""


class Dynamo(OfTensorRT):
    """The exported program through Torch-TensorRT's dynamo frontend."""

    stores_artifact = True
    stores = "the compiled module with its engines, in the artifact cache"

    def prepare(
        self, module: Any, inputs: Inputs, settings: Settings, step: OnStep, dynamic: DynamicInputs | None = None
    ) -> Any:
        """Export: with dimensions where shapes are dynamic, with Q and DQ where it is quantized."""
        from ..torch_trt import exporting

        step("torch.export")
        return exporting.export(module, inputs, settings, dynamic)

    def build(
        self, prepared: Any, inputs: Inputs, settings: Settings, step: OnStep, dynamic: DynamicInputs | None = None
    ) -> CompiledModule:
        """Compile, run once."""
        start = time.perf_counter()
        step("TensorRT build")
        with (
            runtime_cache.collecting() as kernels,
            partitioner.observing() as seen,
            engines.verbosity(settings.profiling_verbosity),
        ):
            compiled = compile_calls.compile_exported(prepared, inputs, settings, dynamic)
        dynamic_engines.prepare((compiled,), settings)
        with run_state.unchanged((compiled,), inputs):
            inputs.call(compiled)
        return CompiledModule(
            compiled,
            time.perf_counter() - start,
            tuple(engine_sizes.of(compiled)),
            seen.coverage(settings),
            seen.known_parts(),
            (compiled,),
            kernels,
        )

    def save(self, compiled: CompiledModule, inputs: Inputs, folder: Path) -> None:  # noqa: ARG002
        """Write the compiled module with its engines, and what is known of its parts."""
        stored_modules.save(compiled.run, folder / FILE)
        (folder / PARTS).write_bytes(msgspec.json.encode(compiled.parts))

    def load(self, folder: Path) -> CompiledModule:
        """Load the compiled module."""
        start = time.perf_counter()
        module = stored_modules.load(folder / FILE)
        return CompiledModule(module, time.perf_counter() - start)


def stored_parts(folder: Path) -> tuple[tuple[Part, ...], ...]:
    """Return what a stored module was partitioned into; nothing of what other frontends or earlier versions stored."""
    file = folder / PARTS
    return msgspec.json.decode(file.read_bytes(), type=tuple[tuple[Part, ...], ...]) if file.exists() else ()


FRONTEND: Frontend = Dynamo()
