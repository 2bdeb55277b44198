"""What `trtgate doctor` finds out about a machine, as data; nothing in it is judged."""

from __future__ import annotations

import msgspec

from ..common import accelerator


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU as NVML describes it."""

    name: str
    uuid: str
    memory_bytes: int
    mig: bool = False
    """Whether it is divided into instances."""


class Nvml(msgspec.Struct, frozen=True, kw_only=True):
    """What NVML says of the machine; `absent` is why it has no GPU, `error` what keeps NVML from saying."""

    driver: str = ""
    cuda: str = ""
    """The newest CUDA that the driver runs."""
    cards: list[Card] = []
    absent: str = ""
    error: str = ""


class Torch(msgspec.Struct, frozen=True, kw_only=True):
    """What torch says in a process of its own; `device_error` is why it can't use a GPU."""

    version: str = ""
    cuda: str = ""
    """The CUDA that it is built for; empty for a build without."""
    device: str = ""
    capability: str = ""
    device_error: str = ""
    torchvision_error: str = ""
    error: str = ""


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """`ENABLED_FEATURES` of torch_tensorrt; `guessed` ones are read off its files, as it was not imported."""

    enabled: dict[str, bool] = {}
    guessed: bool = False
    error: str = ""


class Bytecode(msgspec.Struct, frozen=True, kw_only=True):
    """Source files of a package, and how many are compiled for this Python; `unwritten` is why imports compile none."""

    folder: str
    files: int
    compiled: int
    unwritten: str = ""


class StoredBaseline(msgspec.Struct, frozen=True, kw_only=True):
    """A baseline in the repository."""

    key: str
    cases: int = 0
    error: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; nothing in it is judged."""

    python: str
    system: str
    packages: dict[str, str]
    mismatches: list[str]
    """Packages whose own requirements are not met."""
    visible_devices: str | None
    device: accelerator.Accelerator | None
    device_error: str
    nvml: Nvml
    torch: Torch
    features: Features
    runtime_cache: str
    """Where TensorRT-RTX has kernels from that a process need not compile, as `Loaded.runtime_cache` has it."""
    compiler: str
    bytecode: list[Bytecode]
    free_disk_bytes: int
    baselines_folder: str
    baselines: list[StoredBaseline]
