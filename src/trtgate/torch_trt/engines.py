"""The TensorRT engines inside a compiled module: what they are made of, and how long their layers take.

What differs between 2.11 and 2.14 and between the two runtimes is here, beside the package `torch_trt`. TensorRT is
reached as `tensorrt`, which is what torch_tensorrt makes of either flavour.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import TrtgateError, one_line
from ..suite.settings import VERBOSITIES
from .patching import replaced

if TYPE_CHECKING:
    import torch

    from ..timing.spin_kernel import Spin

CPP, PYTHON, OWN = "cpp", "python", "own"
"""Who runs an engine: Torch-TensorRT's C++ runtime, its Python runtime (2.11), or `tensorrt.Runtime`, driven here."""

RECORD = re.compile(r'"name":\s*"(.*?)",\s*"timeMs":\s*[-+0-9.e]+,\s*"averageMs":\s*([-+0-9.e]+)', re.DOTALL)
"""One layer of the C++ runtime's `trex` profile, whose names are not escaped."""

Times = list[tuple[str, float]]
"""Layer name and microseconds, in the order in which they ran."""


@contextlib.contextmanager
def verbosity(name: str) -> Iterator[None]:
    """Within: engines are built with a `ProfilingVerbosity`, one of `VERBOSITIES`.

    Torch-TensorRT sets `detailed` under its `Debugger` only, which replaces the root logger's handlers; so the
    function that fills the builder's configuration is wrapped (2.11 to 2.14).
    """
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter as module

    interpreter = module.TRTInterpreter
    before = interpreter._populate_trt_builder_config

    def populate(self: Any, *arguments: Any, **keywords: Any) -> Any:
        config = before(self, *arguments, **keywords)
        config.profiling_verbosity = getattr(_tensorrt().ProfilingVerbosity, name.upper())
        return config

    with replaced(interpreter, "_populate_trt_builder_config", populate):
        yield


class BuiltEngine:
    """One engine of a compiled module: the submodule that runs it, and its serialized form.

    `own` has it deserialized and run here, whoever runs it in the module.
    """

    def __init__(self, module: Any, *, own: bool = False) -> None:
        self._module = module
        self._own = own
        self.serialized: bytes = bytes(module.serialized_engine)

    @property
    def runtime(self) -> str:
        """Who runs it, CPP, PYTHON or OWN."""
        import torch

        if self._own:
            return OWN
        if type(self._module).__name__ == "PythonTorchTensorRTModule":  # 2.11
            return PYTHON
        return CPP if isinstance(getattr(self._module, "engine", None), torch.ScriptObject) else OWN

    @property
    def input_names(self) -> list[str]:
        """Names of its inputs, in the order of the submodule's arguments."""
        names = getattr(self._module, "input_binding_names", None) or getattr(self._module, "input_names", [])
        return list(names)

    def information(self) -> Any:
        """Return what TensorRT's inspector says, parsed. Raises TrtgateError when that is no JSON."""
        said = self._module.get_layer_info()
        if not said.strip():
            return {}
        try:
            return json.loads(said)
        except ValueError as error:
            raise TrtgateError(f"TensorRT's inspector gave no valid JSON ({one_line(error)})") from error


def verbosity_of(information: Any) -> str:
    """Return the verbosity that an engine was built with, as its inspector shows it."""
    layers = information.get("Layers") if isinstance(information, dict) else None
    if not layers or all(isinstance(layer, str) and layer.isdecimal() for layer in layers):
        return VERBOSITIES[0]  # then layers are numbered
    return VERBOSITIES[2] if isinstance(layers[0], dict) else VERBOSITIES[1]


class LayerTimes:
    """What one engine's layers took: one `Times` for every call, or for every block where a runtime adds calls up."""

    def __init__(self) -> None:
        self.calls: list[Times] = []
        self.problem = ""
        """Why a call could not be read."""

    def blocks_us(self, blocks: int) -> tuple[list[str], list[list[float]]]:
        """Return layer names in order, and for each the medians of `blocks` runs of consecutive calls.

        Raises TrtgateError when no layer was reported, or other layers at another call.
        """
        if self.problem:
            raise TrtgateError(self.problem)
        names = [name for name, _ in self.calls[0]] if self.calls else []
        if not names:
            raise TrtgateError("TensorRT's profiler reported no layer")
        if any([name for name, _ in times] != names for times in self.calls):
            raise TrtgateError("TensorRT's profiler reported other layers from one call to the next")
        size = max(1, len(self.calls) // blocks)
        parts = [self.calls[start : start + size] for start in range(0, size * min(blocks, len(self.calls)), size)]
        columns = [
            [statistics.median(times[layer][1] for times in part) for part in parts] for layer in range(len(names))
        ]
        return names, columns


class HeadStart:
    """Keeps the GPU waiting in front of an engine until the host has queued all its layers.

    Else the time between the events around a small layer is how long the host took to launch it.
    """

    def __init__(self, spin: Spin) -> None:
        self._spin = spin
        self.us = 0.0

    def cover(self, call: Callable[[], Any]) -> None:
        """Learn how long that takes at most: as long as a warm call without a head start."""
        import torch

        self.us = 0.0
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        self.us = (time.perf_counter() - start) * 1e6

    def __call__(self, *_: Any) -> None:
        """Queue it."""
        if self.us:
            self._spin.queue(self.us)


class Profiled:
    """Within `profiling`: calls of the compiled module are timed layer by layer."""

    def __init__(self) -> None:
        self.times: dict[str, LayerTimes] = {}
        self._begin: list[Callable[[], None]] = []
        self._end: list[Callable[[int], None]] = []

    def call(self, run: Callable[[], Any], calls: int) -> None:
        """Call the module; where a runtime adds calls up, `calls` of them are one entry of the times, else each is."""
        for begin in self._begin:
            begin()
        for _ in range(calls):
            run()
        for end in self._end:
            end(calls)


@contextlib.contextmanager
def profiling(engines: Mapping[str, BuiltEngine], head_start: HeadStart) -> Iterator[Profiled]:
    """Within: engines that Torch-TensorRT's own runtimes run report their layers; those of `OWN` do not take part."""
    found = Profiled()
    with contextlib.ExitStack() as stack:
        for name, engine in engines.items():
            if engine.runtime != OWN:
                stack.callback(engine._module.register_forward_pre_hook(head_start).remove)
            if engine.runtime == PYTHON:
                found.times[name] = stack.enter_context(_python_runtime(engine, found))
            elif engine.runtime == CPP:
                found.times[name] = stack.enter_context(_cpp_runtime(engine, found))
        yield found


@contextlib.contextmanager
def _python_runtime(engine: BuiltEngine, found: Profiled) -> Iterator[LayerTimes]:
    times, profiler = LayerTimes(), _profiler()
    engine._module.enable_profiling(profiler)
    found._begin.append(profiler.times.clear)

    def end(calls: int) -> None:
        import torch

        torch.cuda.synchronize()
        try:
            times.calls += _split(profiler.times, calls)
        except TrtgateError as error:
            times.problem = str(error)

    found._end.append(end)
    try:
        yield times
    finally:
        engine._module.disable_profiling()


@contextlib.contextmanager
def _cpp_runtime(engine: BuiltEngine, found: Profiled) -> Iterator[LayerTimes]:
    """Read the C++ runtime's profile: it adds up since it was enabled, and is written anew at every call."""
    times = LayerTimes()
    with tempfile.TemporaryDirectory(prefix="trtgate-profile-") as folder:

        def begin() -> None:
            engine._module.enable_profiling(folder, "trex")  # anew: its sums begin again

        def end(_calls: int) -> None:
            import torch

            torch.cuda.synchronize()
            files = sorted(Path(folder).rglob("*exec*_profile.trace"))  # execution; older ones: exectuion
            if not files:
                times.problem = "the C++ runtime wrote no profile"
                return
            times.calls.append(parse_cpp_profile(files[0].read_text(encoding="utf-8", errors="replace")))

        found._begin.append(begin)
        found._end.append(end)
        try:
            yield times
        finally:
            engine._module.disable_profiling()


def parse_cpp_profile(text: str) -> Times:
    """Return the averages of the C++ runtime's `trex` profile. Its names are not escaped, so it may be no JSON."""
    return [(name, float(average_ms) * 1e3) for name, average_ms in RECORD.findall(text)]


class OwnRuntime:
    """An engine deserialized with `tensorrt.Runtime` and run with given inputs, which is the same on every version.

    Raises TrtgateError when this TensorRT can't deserialize it.
    """

    def __init__(self, engine: BuiltEngine, inputs: Sequence[torch.Tensor]) -> None:
        trt = _tensorrt()
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

        profiler, times = _profiler(), LayerTimes()
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
        times.calls = _split(profiler.times, calls)
        return times


def _profiler() -> Any:
    """Return a `tensorrt.IProfiler` that keeps what it is told."""
    trt = _tensorrt()

    class Kept(trt.IProfiler):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: Times = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.append((layer_name, ms * 1e3))

    return Kept()


def _split(reported: Times, calls: int) -> list[Times]:
    """Split what a profiler was told into calls. Raises TrtgateError when they are not all of the same layers."""
    size, rest = divmod(len(reported), calls)
    found = [reported[start : start + size] for start in range(0, size * calls, size or 1)]
    names = [[name for name, _ in call] for call in found]
    if rest or not found or any(one != names[0] for one in names):
        raise TrtgateError(
            f"TensorRT's profiler reported {len(reported)} layers in {calls} calls: not the same ones each time"
        )
    return found


def _torch_dtype(dtype: Any) -> Any:
    import torch
    from torch_tensorrt import dtype as torch_tensorrt_dtype

    return torch_tensorrt_dtype._from(dtype).to(torch.dtype)


def _tensorrt() -> Any:
    import torch_tensorrt  # noqa: F401  - makes `tensorrt` mean the flavour that is installed

    return importlib.import_module("tensorrt")
