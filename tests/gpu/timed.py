"""The device latency of a compiled module, as a launch measures it."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from trtgate.common.accelerator import detect
from trtgate.compiling.inference import Inference
from trtgate.timing import plans, stream_state
from trtgate.timing.device_latency import DeviceTimer
from trtgate.timing.device_state import ONE
from trtgate.timing.gpu_state import GpuMonitor


class Timed(NamedTuple):
    """What was measured; `us` is a mean over captures."""

    us: float
    clock: str
    note: str


def timed(inference: Inference, streams: str = ONE) -> Timed:
    """Measure one turn with the state of `streams` streams."""
    uuid = detect().uuid
    with stream_state.alone(uuid, streams) as state:
        timer = DeviceTimer(inference, state, GpuMonitor(uuid).watch)
        found, _ = timer.measure(random.Random(0), plans.ON_GPU)
    means = [sum(one.blocks_us) / len(one.blocks_us) for one in found.captures if one.blocks_us]
    return Timed(math.exp(sum(map(math.log, means)) / len(means)), timer.name, timer.note)
