"""How long the layers of engines take, as Torch-TensorRT's own runtimes report it to a profiler.

What differs between the C++ runtime and the Python runtime (2.11) is here.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import TrtgateError
from . import engines as trt_engines
from .engines import CPP, OWN, PYTHON, BuiltEngine

if TYPE_CHECKING:
    from ..timing.spin_kernel import Spin

RECORD = re.compile(r'"name":\s*"(.*?)",\s*"timeMs":\s*([-+0-9.e]+),\s*"averageMs":', re.DOTALL)
"""One layer of the C++ runtime's `trex` profile, whose names are not escaped."""

COVERED_CALLS, COVERED_TIMES = 5, 4.0
"""The longest of so many calls, so many times, is how long the host may take to queue an engine's layers."""
Times = list[tuple[str, float]]
"""Layer name and microseconds, in the order in which they ran."""


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
        """Learn how long that takes at most: several times the longest of some warm calls without a head start.

        A profiler of layers makes queueing longer; what the C++ runtime writes after a call needs no cover.
        """
        import torch

        self.us = 0.0
        longest_s = 0.0
        for _ in range(COVERED_CALLS):
            torch.cuda.synchronize()
            start = time.perf_counter()
            call()
            torch.cuda.synchronize()
            longest_s = max(longest_s, time.perf_counter() - start)
        self.us = COVERED_TIMES * longest_s * 1e6

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
    """Within: engines that Torch-TensorRT's own runtimes run report their layers; those of `OWN` do not take part.

    They report afterwards too, to nobody, so the module is good for nothing else: to end profiling a runtime makes a
    new execution context, for which TensorRT-RTX compiles all kernels anew.
    """
    found = Profiled()
    with contextlib.ExitStack() as stack:
        for name, engine in engines.items():
            if engine.runtime != OWN:
                stack.callback(engine._module.register_forward_pre_hook(head_start).remove)
            if engine.runtime == PYTHON:
                found.times[name] = _python_runtime(engine, found)
            elif engine.runtime == CPP:
                found.times[name] = stack.enter_context(_cpp_runtime(engine, found))
        yield found


def _python_runtime(engine: BuiltEngine, found: Profiled) -> LayerTimes:
    times, profiler = LayerTimes(), new_profiler()
    engine._module.enable_profiling(profiler)
    found._begin.append(profiler.times.clear)

    def end(calls: int) -> None:
        import torch

        torch.cuda.synchronize()
        try:
            times.calls += split_calls(profiler.times, calls)
        except TrtgateError as error:
            times.problem = str(error)

    found._end.append(end)
    return times


@contextlib.contextmanager
def _cpp_runtime(engine: BuiltEngine, found: Profiled) -> Iterator[LayerTimes]:
    """Read the C++ runtime's profile: it adds up since it was enabled, and is written anew at every call.

    It is enabled once, and a block is what its sums grew by: TensorRT may prepare its kernels anew for a new profiler.
    """
    times = LayerTimes()
    with tempfile.TemporaryDirectory(prefix="trtgate-profile-") as folder:
        engine._module.enable_profiling(folder, "trex")
        before = dict[str, float]()

        def sums() -> Times:
            import torch

            torch.cuda.synchronize()
            files = sorted(Path(folder).rglob("*exec*_profile.trace"))  # execution; older ones: exectuion
            return parse_cpp_profile(files[0].read_text(encoding="utf-8", errors="replace")) if files else []

        def begin() -> None:
            before.update(sums())

        def end(calls: int) -> None:
            now = sums()
            if not now:
                times.problem = "the C++ runtime wrote no profile"
            times.calls.append([(name, (us - before.get(name, 0.0)) / calls) for name, us in now])

        found._begin.append(begin)
        found._end.append(end)
        yield times


def parse_cpp_profile(text: str) -> Times:
    """Return the sums of the C++ runtime's `trex` profile. Its names are not escaped, so it may be no JSON."""
    return [(name, float(sum_ms) * 1e3) for name, sum_ms in RECORD.findall(text)]


def new_profiler() -> Any:
    """Return a `tensorrt.IProfiler` that keeps what it is told."""
    trt = trt_engines.tensorrt()

    class Kept(trt.IProfiler):  # type: ignore[name-defined]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: Times = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.append((layer_name, ms * 1e3))

    return Kept()


def split_calls(reported: Times, calls: int) -> list[Times]:
    """Split what a profiler was told into calls. Raises TrtgateError when they are not all of the same layers."""
    size, rest = divmod(len(reported), calls)
    found = [reported[start : start + size] for start in range(0, size * calls, size or 1)]
    names = [[name for name, _ in call] for call in found]
    if rest or not found or any(one != names[0] for one in names):
        raise TrtgateError(
            f"TensorRT's profiler reported {len(reported)} layers in {calls} calls: not the same ones each time"
        )
    return found
