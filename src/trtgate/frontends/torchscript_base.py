"""TorchScript through `torch_tensorrt.ts.compile`: what `ts_trace` and `ts_script` share. Deprecated upstream."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.steps import OnStep
from ..suite.settings import Settings
from ..timing import run_state
from ..torch_trt import compile_calls, engine_sizes
from .frontend import CompiledModule
from .tensorrt_base import OfTensorRT

if TYPE_CHECKING:
    from ..suite.model_inputs import Inputs
    from ..torch_trt.dynamic_inputs import DynamicInputs

FILE = "compiled.ts"


class TorchScript(OfTensorRT):
    """A module that `torch.jit` traced or scripted, its convertible blocks replaced by engines."""

    stores_artifact = True
    stores = "nothing: the launches of a run load what it built, the next run builds anew"

    def __init__(self, way: str) -> None:
        self._way = way

    def prepare(
        self, module: Any, inputs: Inputs, settings: Settings, step: OnStep,  # noqa: ARG002
        dynamic: DynamicInputs | None = None,
    ) -> Any:  # fmt: skip
        """Trace or script."""
        import torch

        inputs.check_plain(f"ts_{self._way}")
        step(f"torch.jit.{self._way}")
        example = inputs if dynamic is None else dynamic.example
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated since torch 2.9
            made = torch.jit.trace(module, example.args) if self._way == "trace" else torch.jit.script(module)
        return torch.jit.freeze(made.eval())

    def build(
        self, prepared: Any, inputs: Inputs, settings: Settings, step: OnStep, dynamic: DynamicInputs | None = None
    ) -> CompiledModule:
        """Compile, run once."""
        start = time.perf_counter()
        step("TensorRT build")
        compiled = compile_calls.compile_torchscript(prepared, inputs, settings, dynamic)
        with run_state.unchanged((compiled,), inputs):
            inputs.call(compiled)
        return CompiledModule(compiled, time.perf_counter() - start, tuple(engine_sizes.of(compiled)))

    def save(self, compiled: CompiledModule, inputs: Inputs, folder: Path) -> None:  # noqa: ARG002
        """Write the compiled module with its engines."""
        import torch

        torch.jit.save(compiled.run, str(folder / FILE))

    def load(self, folder: Path) -> CompiledModule:
        """Load the compiled module."""
        start = time.perf_counter()
        module = compile_calls.load_torchscript(folder / FILE)
        return CompiledModule(module, time.perf_counter() - start)
