"""A known slowdown, put on purpose into a module: what a gate must find."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..errors import TrtgateError

if TYPE_CHECKING:
    from .spin import Spin

CALIBRATION_CALLS = 100
ROUNDS = 5


class Delayed:
    """An inference followed by a spin kernel (on a CPU by a busy wait); everything else is the inference's own."""

    def __init__(self, inference: Any) -> None:
        self.inference = inference
        self.cycles = 0
        self.wait_s = 0.0

    def place_inputs(self) -> None:
        """Copy the inputs to newly allocated memory."""
        self.inference.place_inputs()

    def __call__(self) -> Any:
        """Run once, and then a little longer."""
        output = self.inference()
        if self.cycles:
            import torch

            torch.cuda._sleep(self.cycles)
        if self.wait_s:
            end = time.perf_counter() + self.wait_s
            while time.perf_counter() < end:
                pass
        return output


def delayed(inference: Any, share: float, spin: Spin | None) -> tuple[Delayed, float]:
    """Return the inference made longer by about `share` of its latency, and the share that was measured.

    On a GPU the spin's own launch is part of the delay: one that would have to be shorter than that is refused with
    TrtgateError. The share is measured as the gate measures, by graph replays, with and without the spin in turns.
    """
    slower = Delayed(inference)
    if spin is None:
        start = time.perf_counter()
        inference()
        inference()
        latency_s = (time.perf_counter() - start) / 2
        slower.wait_s = share * latency_s
        return slower, share
    return slower, _calibrate(slower, inference, share, spin)


def _calibrate(slower: Delayed, inference: Any, share: float, spin: Spin) -> float:
    """Find the cycles whose delay is `share`: two lengths give the line, a third measurement says what came of it."""
    short = 200
    plain_us, short_us = _latencies_us(inference, slower, short, spin)
    wanted_us = share * plain_us
    least_us = short_us - plain_us
    if least_us > wanted_us:
        raise TrtgateError(
            f"a delay of {share:.2%} is {wanted_us:.2f} µs here, and the shortest spin kernel takes {least_us:.2f} µs: "
            "take a longer case, or a larger delay"
        )
    cycles = short + int((wanted_us - least_us) * spin.cycles_per_us)
    plain_us, long_us = _latencies_us(inference, slower, cycles, spin)
    slower.cycles = cycles
    return long_us / plain_us - 1


def _latencies_us(inference: Any, slower: Delayed, cycles: int, spin: Spin) -> tuple[float, float]:
    """Return device latencies without and with a spin of `cycles`, medians of several captures each."""
    import random
    import statistics

    from .cuda_graph import CudaGraphClock

    slower.cycles = cycles
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for call, values in ((inference, found[0]), (slower, found[1])):
            clock = CudaGraphClock(call, spin, random.Random(0), call.place_inputs)
            clock.arm()
            clock.block(CALIBRATION_CALLS, lambda: None)
            values.append(clock.block(CALIBRATION_CALLS, lambda: None))
            clock.close()
    return statistics.median(found[0]), statistics.median(found[1])
