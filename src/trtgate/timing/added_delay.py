"""A known slowdown, put on purpose into a module: what a gate must find."""

from __future__ import annotations

import random
import statistics
import time
from typing import TYPE_CHECKING, Any

from ..common.errors import TrtgateError

if TYPE_CHECKING:
    from .spin_kernel import Spin
    from .stream_state import StreamState

CALLS = 30
CAPTURES = 3
NODES = 20


class TooShortError(TrtgateError):
    """An inference is too short for a delay of the asked share."""


class Delayed:
    """An inference followed by a spin kernel (on a CPU by a busy wait); everything else is the inference's own."""

    def __init__(self, inference: Any, *, cycles: int = 0, wait_s: float = 0.0) -> None:
        self.inference = inference
        self._cycles = cycles
        self._wait_s = wait_s

    def place_inputs(self) -> object:
        """Copy the inputs to newly allocated memory."""
        return self.inference.place_inputs()

    def restore(self, placed: Any = None) -> None:
        """Put back what calls changed."""
        self.inference.restore(placed)

    @property
    def changes(self) -> tuple[str, ...]:
        """What a call changes, as the inference says it."""
        return tuple(self.inference.changes)

    @property
    def not_capturable(self) -> str:
        """Why a CUDA graph of it would not be what it runs later, as the inference says it."""
        return str(self.inference.not_capturable)

    def __call__(self) -> Any:
        """Run once, and then a little longer."""
        output = self.inference()
        if self._cycles:
            import torch

            torch.cuda._sleep(self._cycles)
        if self._wait_s:
            end = time.perf_counter() + self._wait_s
            while time.perf_counter() < end:
                pass
        return output


def delayed(inference: Any, share: float, state: StreamState | None) -> tuple[Delayed, float]:
    """Return the inference made longer by `share` of its latency, and the share as calibrated.

    On a GPU what a further kernel in a graph costs by itself is part of the delay; a delay that would have to be
    shorter than that is refused with TooShortError.
    """
    if state is None:
        return Delayed(inference, wait_s=share * _host_latency_s(inference)), share
    spin = state.spin
    with state.on_stream():
        latency_us, least_us = _graph_latency_us(inference, spin), node_us(spin)
    if share * latency_us < least_us:
        raise TooShortError(
            f"a delay of {share:.2%} is {share * latency_us:.2f} µs here, and a further kernel takes at least "
            f"{least_us:.2f} µs: take a longer case, or a larger delay"
        )
    cycles = max(1, round((share * latency_us - least_us) * spin.cycles_per_us))
    return Delayed(inference, cycles=cycles), (least_us + cycles / spin.cycles_per_us) / latency_us


def _host_latency_s(inference: Any) -> float:
    times = []
    for _ in range(CAPTURES + 1):
        start = time.perf_counter()
        inference()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _graph_latency_us(inference: Any, spin: Spin) -> float:
    from .cuda_graph_clock import CudaGraphClock

    clock = CudaGraphClock(inference, spin, random.Random(), inference.place_inputs)
    captures = range(clock.arm(CAPTURES))
    for capture in captures:
        clock.block(CALLS, lambda: None, capture)
    values = [clock.block(CALLS, lambda: None, capture) for capture in captures]
    clock.close()
    return statistics.median(values)


def node_us(spin: Spin) -> float:
    """Return what a further, empty kernel adds to a graph: the slope of graphs of spins over their number."""
    import torch

    from .cuda_graph_clock import CudaGraphClock

    cycles = 1000
    found = []
    for nodes in (1, 1 + NODES):

        def spins(nodes: int = nodes) -> None:
            for _ in range(nodes):
                torch.cuda._sleep(cycles)

        clock = CudaGraphClock(spins, spin, random.Random(), lambda: None)
        clock.arm(1)
        clock.block(CALLS, lambda: None)
        found.append(clock.block(CALLS, lambda: None))
        clock.close()
    return (found[1] - found[0]) / NODES - cycles / spin.cycles_per_us
