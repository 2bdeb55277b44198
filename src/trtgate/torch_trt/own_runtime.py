"""An engine that is deserialized and run here, layer by layer, whoever runs it in the compiled module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..common.errors import TrtgateError
from . import engines
from .engines import BuiltEngine
from .layer_profiler import HeadStart, LayerTimes, new_profiler, split_calls

if TYPE_CHECKING:
    import torch


class OwnRuntime:
    """An engine deserialized with `tensorrt.Runtime` and run with given inputs, which is the same on every version.

    Raises TrtgateError when this TensorRT can't deserialize it.
    """

    def __init__(self, engine: BuiltEngine, inputs: Sequence[torch.Tensor]) -> None:
        trt = engines.tensorrt()
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine.serialized)
        if self._engine is None:
            raise TrtgateError(
                f"TensorRT {trt.__version__} can't deserialize the engine: build it again on this machine"
            )
        self._context = self._engine.create_execution_context()
        self._tensors = self._bind(engine.input_names, inputs)

    def _bind(self, input_names: Sequence[str], inputs: Sequence[torch.Tensor]) -> list[Any]:
        import torch

        if len(input_names) != len(inputs) or not all(isinstance(value, torch.Tensor) for value in inputs):
            raise TrtgateError(f"the engine takes {len(input_names)} tensors, and was called with something else")
        kept = [value.contiguous() for value in inputs]
        for name, value in zip(input_names, kept, strict=True):
            if self._engine.is_shape_inference_io(name) or not value.numel():
                raise TrtgateError(f"the engine's input {name!r} is a shape or empty: not run by our own runtime")
            wanted = _torch_dtype(self._engine.get_tensor_dtype(name))
            if value.dtype != wanted:
                raise TrtgateError(f"the engine's input {name!r} is {wanted}, and was called with {value.dtype}")
            self._checked(self._context.set_input_shape(name, tuple(value.shape)), name)
            self._checked(self._context.set_tensor_address(name, value.data_ptr()), name)
        for number in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(number)
            if name in input_names:
                continue
            shape = tuple(self._context.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise TrtgateError(
                    f"the size of the engine's output {name!r} depends on data: not run by our own runtime"
                )
            output = torch.empty(shape, dtype=_torch_dtype(self._engine.get_tensor_dtype(name)), device="cuda")
            self._checked(self._context.set_tensor_address(name, output.data_ptr()), name)
            kept.append(output)
        return kept

    @staticmethod
    def _checked(taken: bool, name: str) -> None:
        if not taken:
            raise TrtgateError(f"TensorRT refused the shape or address of {name!r}")

    def profile(self, *, warm_up: int, calls: int, head_start: HeadStart) -> LayerTimes:
        """Run and return the times of every warm call."""
        import torch

        profiler, times = new_profiler(), LayerTimes()
        self._context.profiler = profiler
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())

        def run() -> None:
            head_start()
            if not self._context.execute_async_v3(stream.cuda_stream):
                raise TrtgateError("TensorRT could not run the engine")
            stream.synchronize()

        with torch.cuda.stream(stream):
            for _ in range(warm_up):
                run()
            head_start.cover(run)
            profiler.times.clear()
            for _ in range(calls):
                run()
        times.calls = split_calls(profiler.times, calls)
        return times


def _torch_dtype(dtype: Any) -> Any:
    import torch
    from torch_tensorrt import dtype as torch_tensorrt_dtype

    return torch_tensorrt_dtype._from(dtype).to(torch.dtype)
