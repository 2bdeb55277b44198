"""One turn of a launch with its case: canary, blocks, percentiles and, on a GPU, what the host sees."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..records.measurement import HOST_ALONE, Turn
from . import canary, cpu_state, measuring_loop
from .host_clock import HostClock, host_latency
from .plans import Plan

if TYPE_CHECKING:
    from .device_latency import DeviceTimer
    from .spin_kernel import Spin

GROWS = 0.1
"""From how much longer the later calls of a block must take for a line to say so."""


def on_cpu(inference: Any, plan: Plan) -> Turn:
    """Measure on a CPU."""
    canary_us = canary.cpu_canary() if plan.canary else {}
    clock, monitor = HostClock(inference), cpu_state.CpuMonitor()
    watch = measuring_loop.contended(monitor.void_reason, plan.contended_retries)
    with cpu_state.kept_on(plan.cpu):
        found = measuring_loop.measure(clock, plan, watch, lambda _capture: inference.restore(), clock.keep)
    return Turn(
        clock=clock.name, captures=found.captures, host_us=[], tail_us=clock.tail(plan.tail_calls), steady=found.steady,
        canary_us=canary_us, note=_about_state(inference, clock.growth()),
        starts_threads=plan.threads_s > 0 and _starts_threads(inference, lambda: None, plan),
    )  # fmt: skip


def _starts_threads(inference: Any, synchronize: Callable[[], None], plan: Plan) -> bool:
    inference.restore()
    return cpu_state.starts_threads(lambda: host_latency(inference, synchronize, plan.threads_s, fewest=1))


def _about_state(inference: Any, growth: float) -> str:
    """Return what calls change, where a block's later calls take longer than its first: which latency is it?"""
    if not inference.changes or growth < GROWS:
        return ""
    from .run_state import described

    return (
        f"it changes {described(list(inference.changes))} with every call, and later calls take {growth:.0%} longer "
        "than a block's first"
    )


def on_gpu(inference: Any, timer: DeviceTimer, spin: Spin, plan: Plan, rng: random.Random) -> Turn:
    """Measure on a GPU. Host latencies are of plain calls on the default stream, as a server makes them."""
    import torch

    canary_us = canary.gpu_canary(spin) if plan.canary else {}
    if not plan.captures:
        wait, fewest = torch.cuda.synchronize, plan.host_calls
        with cpu_state.kept_on(plan.cpu):
            host_latency(inference, wait, plan.warmup_s, fewest=fewest)  # as blocks warm up what follows them
            inference.restore()
            host_us, enqueue_us = host_latency(inference, wait, plan.host_s, fewest=fewest)
        return Turn(clock=HOST_ALONE, captures=[], host_us=host_us, enqueue_us=enqueue_us, canary_us=canary_us)
    found, tail_us = timer.measure(rng, plan)
    inference.restore()
    host_us, enqueue_us = host_latency(inference, torch.cuda.synchronize, plan.host_s) if plan.host_s else ([], [])
    return Turn(
        clock=timer.name, captures=found.captures, host_us=host_us, enqueue_us=enqueue_us, tail_us=tail_us,
        states=found.states, steady=found.steady, canary_us=canary_us, note=timer.note,
        probe_us=_median([one.probe_us for one in found.readings]),
        spin_mhz=_median([one.sm_mhz for one in found.readings]),
        starts_threads=plan.threads_s > 0 and _starts_threads(inference, torch.cuda.synchronize, plan),
    )  # fmt: skip


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 1) if values else 0.0
