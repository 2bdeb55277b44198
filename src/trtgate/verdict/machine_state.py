"""Is the machine in the state in which the baseline was recorded? Else a stored comparison says nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

CANARY_TOLERANCE = {"sm_clock": 0.08, "memory_copy": 0.15, "hash": 0.25}
"""Relative difference beyond which the machine counts as another: the SM clock seen by a kernel, a copy in device
memory, one core's hashing. Over 6 sessions of 24 cases on H100s the spin kernel took 481 to 510 µs, in the steps of
15 MHz that the clock has, by what the GPU did before; NVML said 1980 MHz all the time, and latencies did not follow (of
one case 483 µs and 510 µs, its latency within 0.5 %). So a clock that is held lower is noticed where NVML shows it,
else only beyond 8 %. Hashing moved by 4 % on a shared CPU."""
CLOCK_TOLERANCE = 0.005


def another_state(
    now: Mapping[str, float],
    baseline: Mapping[str, float],
    now_mhz: float,
    baseline_mhz: float,
    new_throttle: str,
) -> str:
    """Return why this machine's state can't be compared with the baseline's; empty when it can.

    `now` and `baseline` map canaries to microseconds; clocks are median SM clocks in MHz, 0 when unknown;
    `new_throttle` names a throttle reason that the baseline did not have.
    """
    for name, before in baseline.items():
        if name in now and before > 0 and abs(now[name] / before - 1) > CANARY_TOLERANCE.get(name, math.inf):
            return f"the canary {name!r} took {now[name]:.0f} µs, in the baseline {before:.0f} µs"
    if now_mhz and baseline_mhz and abs(now_mhz / baseline_mhz - 1) > CLOCK_TOLERANCE:
        return f"the SM clock was {now_mhz:.0f} MHz, in the baseline {baseline_mhz:.0f} MHz"
    if new_throttle:
        return f"the GPU was held back by its {new_throttle}, and was not in the baseline"
    return ""
