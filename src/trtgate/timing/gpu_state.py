"""What NVML says of the GPU while it is timed: clocks, temperature, power, and why the clock is held back."""

from __future__ import annotations

from typing import Any

from ..records.measurement import GpuState

# nvml.h, nvmlClocksEventReason*
IDLE, APPLICATION_CLOCKS, SW_POWER_CAP, HW_SLOWDOWN, SYNC_BOOST = 0x1, 0x2, 0x4, 0x8, 0x10
SW_THERMAL, HW_THERMAL, HW_POWER_BRAKE, DISPLAY_CLOCKS = 0x20, 0x40, 0x80, 0x100
NAMES = {
    IDLE: "idle",
    APPLICATION_CLOCKS: "application clocks",
    SW_POWER_CAP: "software power cap",
    HW_SLOWDOWN: "hardware slowdown",
    SYNC_BOOST: "sync boost",
    SW_THERMAL: "software thermal slowdown",
    HW_THERMAL: "hardware thermal slowdown",
    HW_POWER_BRAKE: "hardware power brake",
    DISPLAY_CLOCKS: "display clocks",
}
VOIDING = HW_SLOWDOWN | SW_THERMAL | HW_THERMAL | HW_POWER_BRAKE
"""Reasons that void a block: the GPU ran slower than the software asked for."""


def names(mask: int) -> list[str]:
    """Return the readable names of the reasons in a mask."""
    return [name for bit, name in NAMES.items() if mask & bit]


def void_reason(state: GpuState) -> str:
    """Return why a block under this state does not count; empty when it does."""
    return ", ".join(names(state.throttle & VOIDING))


class GpuMonitor:
    """Reads one GPU's state through NVML; values that the driver does not give are 0."""

    def __init__(self, uuid: str) -> None:
        import pynvml

        self._nvml: Any = pynvml
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def watch(self) -> tuple[GpuState, str]:
        """Return the state now, and why a block under it does not count."""
        state = self.read()
        return state, void_reason(state)

    def read(self) -> GpuState:
        """Return the state now; takes a fraction of a millisecond."""
        nvml, handle = self._nvml, self._handle
        return GpuState(
            sm_clock_mhz=self._value(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            temperature_c=self._value(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            power_w=self._value(nvml.nvmlDeviceGetPowerUsage, handle) / 1e3,
            throttle=self._value(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle),
        )

    def _value(self, function: Any, *args: Any) -> int:
        try:
            return int(function(*args))
        except self._nvml.NVMLError:
            return 0
