"""Device latency: blocks of CUDA-graph replays, queued behind a spin kernel, between one pair of events."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import pairwise

import torch

from ..common.errors import one_line
from .clock import Call, CaptureError
from .spin_kernel import Spin

MIB = 1 << 20


class CudaGraphClock:
    """Replays of a CUDA graph of one inference; `arm` records a fresh one at a random place in memory.

    Where the memory of a capture and of its inputs lies moves its latency: 0.1 % for resnet18, 3 % for
    mobilenet_v3_large at batch 8, and the same way whenever placement repeats itself. Padding of random size, and
    inputs copied behind it, make that a random effect that averages out over captures.
    """

    name = "cuda_graph"
    steady_tolerance = 0.0005

    def __init__(self, call: Call, spin: Spin, rng: random.Random, place_inputs: Callable[[], None]) -> None:
        self._call = call
        self._place_inputs = place_inputs
        self._spin = spin
        self._rng = rng
        self._graph: torch.cuda.CUDAGraph | None = None
        self._enqueue_us = 10.0
        self._warm_calls = 2
        """The first call lets libraries make what they make once, the second finds all memory that it needs."""

    def arm(self) -> None:
        """Record a new capture. Raises CaptureError when the module does something a graph can't hold."""
        self.close()
        padding = [
            torch.empty(self._rng.randrange(1, 33) * 2 * MIB, dtype=torch.uint8, device="cuda")
            for _ in range(self._rng.randrange(1, 5))
        ]
        padding.append(torch.empty(self._rng.randrange(1, 1024) * 512, dtype=torch.uint8, device="cuda"))
        try:
            self._place_inputs()
            self._warm_on_side_stream()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._call()
        except RuntimeError as error:
            torch.cuda.synchronize()
            padding.clear()
            torch.cuda.empty_cache()  # else it would be taken for the case's memory
            raise CaptureError(one_line(error)) from error
        finally:
            del padding
        self._graph = graph
        graph.replay()
        torch.cuda.synchronize()
        start = time.perf_counter()
        graph.replay()
        self._enqueue_us = (time.perf_counter() - start) * 1e6
        torch.cuda.synchronize()

    def block(self, calls: int, meanwhile: Callable[[], None]) -> float:
        """Return the mean device latency of `calls` replays in microseconds."""
        graph = self._graph
        assert graph is not None, "arm the clock first"
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
        """Time single replays with an event between all of them: wider by 1-2 µs each, for percentiles only."""
        assert self._graph is not None, "arm the clock first"
        events = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
        self._spin.queue(2 * calls * self._enqueue_us)
        events[0].record()
        for event in events[1:]:
            self._graph.replay()
            event.record()
        torch.cuda.synchronize()
        return [a.elapsed_time(b) * 1e3 for a, b in pairwise(events)]

    def close(self) -> None:
        """Free the capture and give its memory back, so that the next one lies elsewhere."""
        if self._graph is not None:
            self._graph.reset()
            self._graph = None
            torch.cuda.empty_cache()

    def _warm_on_side_stream(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self._warm_calls):
                self._call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        self._warm_calls = 1
