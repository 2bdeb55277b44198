"""Device latency: blocks of CUDA-graph replays, queued behind a spin kernel, between one pair of events."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import pairwise

import torch

from ..common import garbage
from ..common.errors import one_line
from .clock import Call, CaptureError
from .spin_kernel import Spin

MIB = 1 << 20
SPARE = 2
"""A further capture is made where so many times the memory of the last one is free."""


class CudaGraphClock:
    """Replays of CUDA graphs of one inference; `arm` records them at random places in memory.

    Where the memory of a capture and of its inputs lies moves its latency: 0.1 % for resnet18, 3 % for
    mobilenet_v3_large at batch 8, and the same way whenever placement repeats itself. Padding of random size, and
    inputs copied behind it, make that a random effect that averages out over captures. All of them are made before any
    is timed: making one leaves the GPU in another state (docs/gpu-states.md).

    Everything runs on the current stream, which must not be the default one.
    """

    steady_tolerance = 0.0005
    overhead_us = 0.0

    def __init__(
        self, call: Call, spin: Spin, rng: random.Random, place_inputs: Callable[[], object], name: str = "cuda_graph"
    ) -> None:
        self.name = name
        self._call = call
        self._place_inputs = place_inputs
        self._spin = spin
        self._rng = rng
        self._graphs: list[torch.cuda.CUDAGraph] = []
        self.placed: list[object] = []
        """The inputs that each capture reads."""
        self._enqueue_us = 10.0
        self._warm_calls = 2
        """The first call lets libraries make what they make once, the second finds all memory that it needs."""

    def arm(self, captures: int) -> int:
        """Record captures. Raises CaptureError when the module does something a graph can't hold."""
        self.close()
        taken = 0
        with garbage.not_collected():  # an engine that is freed while a graph is captured breaks it
            while len(self._graphs) < captures:
                before = _free_bytes()
                if self._graphs and before < SPARE * taken:
                    break
                try:
                    self._record()
                except CaptureError:
                    if not self._graphs:
                        raise
                    break  # out of memory, then: the same was recorded before
                taken = before - _free_bytes()
        return len(self._graphs)

    def _record(self) -> None:
        torch.cuda.empty_cache()
        padding = [
            torch.empty(self._rng.randrange(1, 33) * 2 * MIB, dtype=torch.uint8, device="cuda")
            for _ in range(self._rng.randrange(1, 5))
        ]
        padding.append(torch.empty(self._rng.randrange(1, 1024) * 512, dtype=torch.uint8, device="cuda"))
        try:
            placed = self._place_inputs()
            for _ in range(self._warm_calls):
                self._call()
            torch.cuda.synchronize()
            self._warm_calls = 1
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
                self._call()
        except RuntimeError as error:
            torch.cuda.synchronize()
            padding.clear()
            torch.cuda.empty_cache()  # else it would be taken for the case's memory
            raise CaptureError(one_line(error)) from error
        finally:
            del padding
        self._graphs.append(graph)
        self.placed.append(placed)
        graph.replay()
        torch.cuda.synchronize()
        start = time.perf_counter()
        graph.replay()
        self._enqueue_us = (time.perf_counter() - start) * 1e6
        torch.cuda.synchronize()

    def block(self, calls: int, meanwhile: Callable[[], None], capture: int = 0) -> float:
        """Return the mean device latency of `calls` replays in microseconds."""
        assert self._graphs, "arm the clock first"
        graph = self._graphs[capture]
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self._spin.queue(1.5 * calls * self._enqueue_us)
        start.record()
        began = time.perf_counter()
        for _ in range(calls):
            graph.replay()
        self._enqueue_us = (time.perf_counter() - began) / calls * 1e6
        end.record()
        meanwhile()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e3 / calls

    def tail(self, calls: int) -> list[float]:
        """Time single replays with an event between all of them: wider by 1-2 µs each, for percentiles only.

        The captures take turns.
        """
        assert self._graphs, "arm the clock first"
        events = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
        self._spin.queue(2 * calls * self._enqueue_us)
        events[0].record()
        for number, event in enumerate(events[1:]):
            self._graphs[number % len(self._graphs)].replay()
            event.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) * 1e3 for a, b in pairwise(events)]

    def close(self) -> None:
        """Free the captures and give their memory back, so that the next ones lie elsewhere."""
        if self._graphs:
            for graph in self._graphs:
                graph.reset()
            self._graphs, self.placed = [], []
            torch.cuda.empty_cache()


def _free_bytes() -> int:
    return int(torch.cuda.mem_get_info()[0])
