"""Which device this machine measures on, and under which key its baselines are kept. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from . import machine
from .errors import TrtgateError, explaining
from .explanations import Explanation

GIB = 1 << 30
NEEDS_GPU = "needs a GPU, and there is none (NVML)"
LIBRARIES = ("torch", "torch-tensorrt", "torch-tensorrt-rtx", "tensorrt", "tensorrt-rtx", "pytest-benchmark")
AROUND_IT = frozenset({"pytest-benchmark"})
"""Libraries that no compiled module is made or run by."""


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
    capability: tuple[int, int] | None = None
    """Compute capability."""
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
    def versions(self) -> dict[str, str]:
        """What makes and runs a compiled module: library, CUDA or driver → its version, as far as it is known."""
        drivers = {"cuda": self.cuda, "driver": self.driver}
        libraries = {name: version for name, version in self.libraries.items() if name not in AROUND_IT}
        return libraries | {name: version for name, version in drivers.items() if version}

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


@explaining(Explanation.GPU_MISMATCH)
def detect() -> Accelerator:
    """Return the GPU that CUDA would number 0 for this process, or the CPU when NVML sees none.

    Raises TrtgateError when CUDA_VISIBLE_DEVICES names a GPU that NVML does not know, NVML is broken, or the GPU is
    divided and no instance is chosen.
    """
    found = _gpus(first_only=True)
    return found[0] if found else _cpu()


@explaining(Explanation.GPU_MISMATCH)
def detect_each() -> list[Accelerator]:
    """Return all devices of this machine, of whichever kinds: its GPUs, or the CPU when NVML sees none.

    Raises TrtgateError as `detect`.
    """
    return _gpus() or [_cpu()]


@explaining(Explanation.GPU_MISMATCH)
def detect_all(wanted: str) -> list[Accelerator]:
    """Return the GPUs that `wanted` names: "all", or numbers such as "0,1", as nvidia-smi counts those visible here.

    Raises TrtgateError for what is no number of one, for none at all, and for GPUs of different keys, besides what
    `detect` raises it for.
    """
    found = _gpus()
    if not found:
        raise TrtgateError("there is no GPU (NVML sees none)")
    if wanted.strip() != "all":
        numbers = [part.strip() for part in wanted.split(",")]
        for number in numbers:
            if not number.isdigit() or int(number) >= len(found):
                raise TrtgateError(f"no GPU {number!r}: there are {len(found)}, from 0 to {len(found) - 1}")
        found = [found[number] for number in dict.fromkeys(map(int, numbers))]
    keys = list(dict.fromkeys(one.key for one in found))
    if len(keys) > 1:
        raise TrtgateError(f"GPUs of different kinds ({', '.join(keys)}) have baselines of their own: name one kind")
    return found


def processes_on(uuid: str) -> list[str]:
    """Return the processes that compute on a GPU, as NVML sees them from here: "1234", or "1234 python"."""
    found: list[str] = []
    with contextlib.suppress(Exception):  # it is worth a line, and no more
        import pynvml as nvml

        nvml.nvmlInit()
        try:
            for one in nvml.nvmlDeviceGetComputeRunningProcesses(nvml.nvmlDeviceGetHandleByUUID(uuid)):
                name = ""
                with contextlib.suppress(OSError):
                    name = Path(f"/proc/{one.pid}/comm").read_text().strip()
                found.append(f"{one.pid} {name}".strip())
        finally:
            nvml.nvmlShutdown()
    return found


def _gpus(*, first_only: bool = False) -> list[Accelerator]:
    try:
        import pynvml as nvml
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        return []
    except nvml.NVMLError as error:  # a GPU may be there: calling this a CPU would skip its cases
        raise TrtgateError(f"NVML does not work, so a GPU would go unseen: {error}") from error
    try:
        return [_describe(nvml, handle) for handle in _visible(nvml)[: 1 if first_only else None]]
    finally:
        nvml.nvmlShutdown()


def _visible(nvml: Any) -> list[Any]:
    """Return the handles of what CUDA would see, in its order; it stops at the first that is no device."""
    count = nvml.nvmlDeviceGetCount()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if count == 0 or visible is None:
        return [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
    found: list[Any] = []
    for name in map(str.strip, visible.split(",")):
        if name in ("", "-1"):
            break
        try:
            found.append(_named(nvml, name, count))
        except nvml.NVMLError as error:
            if found:
                break
            raise TrtgateError(f"CUDA_VISIBLE_DEVICES={visible!r} names no GPU that NVML knows: {error}") from error
    return found


def _named(nvml: Any, name: str, count: int) -> Any:
    """Return the handle of what CUDA takes for a name: a number, a UUID, or the beginning of one GPU's UUID.

    Raises nvml.NVMLError for what is none, or not of one.
    """
    if name.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    try:
        return nvml.nvmlDeviceGetHandleByUUID(name)
    except nvml.NVMLError:
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
        found = [handle for handle in handles if _text(nvml.nvmlDeviceGetUUID(handle)).startswith(name)]
        if len(found) != 1 or not name.startswith("GPU-"):
            raise
        return found[0]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _describe(nvml: Any, handle: Any) -> Accelerator:
    def ask(function: str, *args: Any, default: Any = 0) -> Any:
        try:
            return getattr(nvml, function)(*args)
        except (nvml.NVMLError, AttributeError):
            return default

    divided = ask("nvmlDeviceGetMigMode", handle, default=(0, 0))[0] == nvml.NVML_DEVICE_MIG_ENABLE
    if divided and not ask("nvmlDeviceIsMigDeviceHandle", handle):
        raise TrtgateError("the GPU is divided (MIG) and no instance is chosen: set CUDA_VISIBLE_DEVICES=MIG-…")
    card = ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle, default=None)

    def ask_card(function: str, *args: Any, default: Any = 0) -> Any:
        """Ask the handle, or, where that is an instance that does not know, the card that it is a part of."""
        found = ask(function, handle, *args, default=default)
        return found if card is None or found != default else ask(function, card, *args, default=default)

    name = _text(ask("nvmlDeviceGetName", handle, default="unknown GPU"))
    mig = re.search(r"MIG (\S+)", name)
    cuda = ask("nvmlSystemGetCudaDriverVersion_v2")
    return Accelerator(
        kind="gpu",
        name=name.split(" MIG ")[0],
        memory_bytes=int(getattr(ask("nvmlDeviceGetMemoryInfo", handle), "total", 0)),
        uuid=_text(ask("nvmlDeviceGetUUID", handle, default="")),
        mig_profile=mig.group(1) if mig else "",
        capability=ask_card("nvmlDeviceGetCudaComputeCapability", default=None),
        driver=_text(ask("nvmlSystemGetDriverVersion", default="")),
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        max_sm_clock_mhz=int(ask_card("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM)),
        power_limit_w=ask_card("nvmlDeviceGetEnforcedPowerLimit") / 1e3,
        libraries=installed(),
    )


def _cpu() -> Accelerator:
    return Accelerator(kind="cpu", name=_cpu_model(), cpus=machine.cpus(), libraries=installed())


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


@explaining(Explanation.WRONG_ACCELERATOR)
def check_kind(path: Path, recorded: Accelerator, here: Accelerator, whose: str) -> None:
    """Check that what a file says it was recorded on is of the kind of a device; `whose` names that.

    A key is a name and a memory, which a file may claim; a device of that kind has one compute capability. Raises
    TrtgateError where one of the two is another.
    """
    if recorded.key != here.key:
        raise TrtgateError(
            f"{path} was recorded on {recorded.key}, and {whose} is {here.key}: latencies of different accelerators "
            "can't be compared"
        )
    if recorded.capability and here.capability and tuple(recorded.capability) != tuple(here.capability):
        was, now = (".".join(map(str, one.capability or ())) for one in (recorded, here))
        raise TrtgateError(
            f"{path} claims to be of {here.key}, and was recorded on compute capability {was}, where {whose} has "
            f"{now}: one of the two is another kind of card"
        )


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
