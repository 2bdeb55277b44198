"""Which device this machine measures on, and under which key its baselines are kept. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from .errors import TrtgateError

GIB = 1 << 30
NEEDS_GPU = "needs a GPU, and there is none (NVML)"
LIBRARIES = ("torch", "torch-tensorrt", "torch-tensorrt-rtx", "tensorrt", "tensorrt-rtx", "pytest-benchmark")


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """A device and the software that drives it; only `key` decides which baseline it is compared with.

    `memory_bytes`, `uuid`, `mig_profile`, `driver`, `cuda` and the clock and power fields are empty or 0 for a CPU.
    """

    kind: str
    """"gpu" or "cpu"."""
    name: str
    memory_bytes: int = 0
    uuid: str = ""
    mig_profile: str = ""
    driver: str = ""
    cuda: str = ""
    max_sm_clock_mhz: int = 0
    power_limit_w: float = 0.0
    cpus: int = 0
    libraries: dict[str, str] = {}

    @property
    def key(self) -> str:
        """What the device is: name, memory, MIG profile; a CPU: its model and the CPUs at hand."""
        if self.kind == "cpu":
            return slug(f"cpu {self.name} {self.cpus} cpus")
        mig = f" mig {self.mig_profile}" if self.mig_profile else ""
        return slug(f"{self.name} {round(self.memory_bytes / GIB)}gib{mig}")

    @property
    def lock_name(self) -> str:
        """The name under which one process at a time measures on it."""
        return self.uuid or "cpu"


def slug(text: str) -> str:
    """Return `text` as a folder name: lower case, digits and single dashes."""
    text = re.sub(r"\((r|tm)\)", "", text.lower())
    return re.sub(r"[^a-z0-9.]+", "-", text).strip("-")


def installed(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Return the versions of installed distributions; by default of those that decide what is measured."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def detect() -> Accelerator:
    """Return the GPU that CUDA would number 0 for this process, or the CPU when NVML sees none.

    Raises TrtgateError when CUDA_VISIBLE_DEVICES names a GPU that NVML does not know, NVML is broken, or the GPU is
    divided and no instance is chosen.
    """
    return _gpu() or _cpu()


def _gpu() -> Accelerator | None:
    try:
        import pynvml as nvml
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return None
    except nvml.NVMLError as error:  # a GPU may be there: calling this a CPU would skip its cases
        raise TrtgateError(f"NVML does not work, so a GPU would go unseen: {error}") from error
    try:
        handle = _first_visible(nvml)
        return None if handle is None else _describe(nvml, handle)
    finally:
        nvml.nvmlShutdown()


def _first_visible(nvml: Any) -> Any:
    if nvml.nvmlDeviceGetCount() == 0:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return nvml.nvmlDeviceGetHandleByIndex(0)
    first = visible.split(",")[0].strip()
    if first in ("", "-1"):
        return None
    try:
        if first.isdigit():
            return nvml.nvmlDeviceGetHandleByIndex(int(first))
        return nvml.nvmlDeviceGetHandleByUUID(first)
    except nvml.NVMLError as error:
        raise TrtgateError(f"CUDA_VISIBLE_DEVICES={visible!r} names no GPU that NVML knows: {error}") from error


def _describe(nvml: Any, handle: Any) -> Accelerator:
    def ask(function: str, *args: Any, default: Any = 0) -> Any:
        try:
            return getattr(nvml, function)(*args)
        except (nvml.NVMLError, AttributeError):
            return default

    def text(value: Any) -> str:
        return value.decode() if isinstance(value, bytes) else str(value)

    divided = ask("nvmlDeviceGetMigMode", handle, default=(0, 0))[0] == nvml.NVML_DEVICE_MIG_ENABLE
    if divided and not ask("nvmlDeviceIsMigDeviceHandle", handle):
        raise TrtgateError("the GPU is divided (MIG) and no instance is chosen: set CUDA_VISIBLE_DEVICES=MIG-…")
    name = text(ask("nvmlDeviceGetName", handle, default="unknown GPU"))
    mig = re.search(r"MIG (\S+)", name)
    cuda = ask("nvmlSystemGetCudaDriverVersion_v2")
    return Accelerator(
        kind="gpu",
        name=name.split(" MIG ")[0],
        memory_bytes=int(getattr(ask("nvmlDeviceGetMemoryInfo", handle), "total", 0)),
        uuid=text(ask("nvmlDeviceGetUUID", handle, default="")),
        mig_profile=mig.group(1) if mig else "",
        driver=text(ask("nvmlSystemGetDriverVersion", default="")),
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        max_sm_clock_mhz=int(ask("nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_SM)),
        power_limit_w=ask("nvmlDeviceGetEnforcedPowerLimit", handle) / 1e3,
        libraries=installed(),
    )


def _cpu() -> Accelerator:
    return Accelerator(kind="cpu", name=_cpu_model(), cpus=len(os.sched_getaffinity(0)), libraries=installed())


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return os.uname().machine


def differences(before: Accelerator, now: Accelerator) -> list[str]:
    """Return what changed beside the key, each as 'what before → now'; upgrades are shown, never refused."""
    pairs = [
        ("driver", before.driver, now.driver),
        ("CUDA", before.cuda, now.cuda),
        ("power limit W", before.power_limit_w, now.power_limit_w),
        ("card", before.uuid, now.uuid),
    ]
    names = sorted({*before.libraries, *now.libraries})
    pairs += [(name, before.libraries.get(name, "none"), now.libraries.get(name, "none")) for name in names]
    return [f"{what} {old} → {new}" for what, old, new in pairs if old != new]
