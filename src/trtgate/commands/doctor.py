"""What `trtgate doctor` finds out: what is installed, what the GPU is, what can run here, and what is broken.

Probing and judging are apart: `probe` asks the machine and returns facts, everything else is a function of facts.
torch and torch_tensorrt are imported in processes of their own (`python -m trtgate.commands.doctor torch`), which may
crash or hang.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .. import torch_trt
from ..common import accelerator
from ..common.errors import TrtgateError, one_line
from ..frontends.inductor import compiler
from ..suite.settings import FRONTENDS, TENSORRT_FRONTENDS

PROBE_TIMEOUT_S = 180.0
"""An import of torch_tensorrt takes 8 s; on a cold network disk a minute."""
PACKAGES = (*accelerator.LIBRARIES, "torchvision", "pytest")
MIN_DRIVER = {12: 525, 13: 580}
"""CUDA's major version → oldest branch of the NVIDIA driver that runs it.

https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, table 1.
"""


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
    compiler: str
    uncompiled: list[str]
    """Packages that every process compiles from source, since their bytecode is not kept."""
    free_disk_bytes: int
    baselines_folder: str
    baselines: list[StoredBaseline]


class FrontendState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a frontend can be measured here: with what, or why not."""

    name: str
    runs: bool
    said: str


class DoctorReport(msgspec.Struct, frozen=True, kw_only=True):
    """Facts, and what follows from them."""

    facts: Facts
    key: str
    needs: str
    frontends: list[FrontendState]
    problems: list[str]


def examine(folder: Path, step: Callable[[str], None]) -> DoctorReport:
    """Probe this machine and judge what was found. `folder` is that of the baselines; `step` is told what begins."""
    facts = probe(folder, step)
    return DoctorReport(
        facts=facts,
        key=facts.device.key if facts.device else "",
        needs=needs(facts),
        frontends=[frontend_state(name, facts) for name in FRONTENDS],
        problems=problems(facts),
    )


# Judging


def on_gpu(facts: Facts) -> bool:
    """Whether there is a GPU that is to be used."""
    return facts.device is not None and facts.device.kind == "gpu"


def needs(facts: Facts) -> str:
    """Return what a machine needs so that this torch can use its GPU."""
    oldest = _min_driver(facts)
    if not oldest:
        return ""
    return f"an NVIDIA driver of {oldest} or newer, for CUDA {facts.torch.cuda} of torch {facts.torch.version}"


def frontend_state(name: str, facts: Facts) -> FrontendState:
    """Return whether a frontend can be measured here, and with what."""
    why = _why_not(name, facts)
    if why:
        return FrontendState(name=name, runs=False, said=why)
    where = "on the GPU" if on_gpu(facts) else "fp32, on the CPU; other precisions need a GPU"
    return FrontendState(name=name, runs=True, said=where)


def _why_not(name: str, facts: Facts) -> str:
    from .. import frontends

    if facts.torch.error:
        return f"torch: {facts.torch.error}"
    if on_gpu(facts) and facts.torch.device_error:
        return "torch can't use the GPU"
    unavailable = frontends.get(name).unavailable() or torch_trt.lacks(name)
    if unavailable or name not in TENSORRT_FRONTENDS:
        return unavailable
    if not on_gpu(facts):
        return accelerator.NEEDS_GPU
    return f"torch_tensorrt can't be imported: {facts.features.error}" if facts.features.error else ""


def problems(facts: Facts) -> list[str]:
    """Return what is broken, each with what to do: not what this machine merely lacks."""
    found = [*_package_problems(facts), *_gpu_problems(facts)]
    if on_gpu(facts) and facts.features.error:
        found.append(f"torch_tensorrt is installed and can't be imported: {facts.features.error}")
    return found + [stored.error for stored in facts.baselines if stored.error]


def _package_problems(facts: Facts) -> list[str]:
    found = list(facts.mismatches)
    if all(name in facts.packages for name in torch_trt.FLAVOURS):
        both = " and ".join(torch_trt.FLAVOURS)
        found.append(f"{both} are installed and overwrite each other: uninstall both, then install one")
    if facts.torch.error:
        found.append(f"torch can't be imported: {facts.torch.error}")
    if facts.torch.torchvision_error:
        found.append(f"torchvision can't be imported: {facts.torch.torchvision_error}: install the one of this torch")
    return found


def _gpu_problems(facts: Facts) -> list[str]:
    if facts.device_error:
        return [facts.device_error]
    if facts.nvml.error:
        return [f"NVML does not work, so a GPU would go unseen: {facts.nvml.error}"]
    if facts.torch.error:
        return []
    if not on_gpu(facts):
        seen = f"torch sees {facts.torch.device}, and NVML sees no GPU: cases would be measured on the CPU"
        return [seen] if facts.torch.device else []
    assert facts.device is not None
    found = []
    if facts.torch.device_error:
        found.append(f"NVML sees {facts.device.name}, and torch can't use it: {_why_unusable(facts)}")
    divided = any(card.mig and card.uuid == facts.device.uuid for card in facts.nvml.cards)
    if divided and not facts.device.mig_profile:
        found.append(f"{facts.device.name} is divided (MIG), and no instance is chosen: set CUDA_VISIBLE_DEVICES=MIG-…")
    return found


def _why_unusable(facts: Facts) -> str:
    oldest, driver = _min_driver(facts), facts.nvml.driver.partition(".")[0]
    if not facts.torch.cuda:
        return f"torch {facts.torch.version} is built without CUDA: install a build for CUDA"
    if oldest and driver.isdigit() and int(driver) < oldest:
        return f"its driver is {facts.nvml.driver}, and it takes {needs(facts)}: update the driver"
    return facts.torch.device_error


def _min_driver(facts: Facts) -> int:
    major = facts.torch.cuda.partition(".")[0]
    return MIN_DRIVER.get(int(major), 0) if major.isdigit() else 0


# Probing


def probe(folder: Path, step: Callable[[str], None]) -> Facts:
    """Ask the machine. `folder` is that of the baselines; `step` is told what takes long."""
    device, device_error = None, ""
    try:
        device = accelerator.detect()
    except Exception as error:  # NVML's too: that is what we are here to say
        device_error = str(error) if isinstance(error, TrtgateError) else one_line(error)
    step("importing torch")
    torch_ = _ask("torch", Torch)
    gpu = device is not None and device.kind == "gpu" and bool(torch_.device) and not torch_.device_error
    if gpu and torch_trt.flavour():
        step("importing torch_tensorrt")
        features = _ask("features", Features)
    else:
        features = guessed_features()
    return Facts(
        python=f"{platform.python_version()} ({sys.executable})",
        system=f"{platform.system()} {platform.release()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        packages=accelerator.installed(PACKAGES),
        mismatches=[line for name in torch_trt.FLAVOURS for line in unmet(name)],
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        device=device,
        device_error=device_error,
        nvml=probe_nvml(),
        torch=torch_,
        features=features,
        compiler=compiler(),
        uncompiled=uncompiled(),
        free_disk_bytes=shutil.disk_usage(Path.cwd()).free,
        baselines_folder=os.path.relpath(folder),
        baselines=_stored(folder),
    )


def probe_nvml() -> Nvml:
    """Ask NVML for the driver and all GPUs, chosen or not."""
    try:
        import pynvml as nvml
    except ImportError:
        return Nvml(error="nvidia-ml-py is not installed")
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded) as error:
        return Nvml(absent=str(error))
    except nvml.NVMLError as error:
        return Nvml(error=str(error))
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        return Nvml(
            driver=nvml.nvmlSystemGetDriverVersion(),
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
            cards=[_card(nvml, handle) for handle in handles],
            absent="" if handles else "NVML knows no GPU",
        )
    except nvml.NVMLError as error:
        return Nvml(error=str(error))
    finally:
        nvml.nvmlShutdown()


def _card(nvml: Any, handle: Any) -> Card:
    try:
        mig = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:  # most cards have no such mode
        mig = False
    return Card(
        name=nvml.nvmlDeviceGetName(handle),
        uuid=nvml.nvmlDeviceGetUUID(handle),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        mig=mig,
    )


def guessed_features() -> Features:
    """Return the features that torch_tensorrt's files tell, by the rules of its `_features.py`."""
    import importlib.util

    spec = importlib.util.find_spec("torch_tensorrt")
    if spec is None or spec.origin is None:
        return Features(guessed=True)
    libraries = Path(spec.origin).parent / "lib"
    torchscript = (libraries / "libtorchtrt.so").is_file()
    return Features(
        enabled={
            "torchscript_frontend": torchscript,
            "torch_tensorrt_runtime": torchscript or (libraries / "libtorchtrt_runtime.so").is_file(),
            "tensorrt_rtx": torch_trt.flavour() == "rtx",
        },
        guessed=True,
    )


def uncompiled(packages: Sequence[str] = ("torch", "torchvision", "torch_tensorrt")) -> list[str]:
    """Return the folders of packages that have no bytecode, where Python may not or can't keep any."""
    import importlib.util

    found = []
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin:
            continue
        folder = Path(spec.origin).parent
        there = Path(importlib.util.cache_from_source(spec.origin)).exists()
        if not there and (sys.dont_write_bytecode or not os.access(folder, os.W_OK)):
            found.append(str(folder))
    return found


def unmet(name: str) -> list[str]:
    """Return which of a package's requirements of torch and TensorRT are not met; none when it is not installed.

    One that can be imported and has no metadata, such as an unpacked archive on the path, is taken to fit.
    """
    import importlib.util

    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in metadata.requires(name) or []]
    except metadata.PackageNotFoundError:
        return []
    found = []
    for requirement in wanted:
        theirs = requirement.name.startswith(("torch", "tensorrt")) and not requirement.marker
        version = accelerator.installed((requirement.name,)).get(requirement.name)
        if not theirs or (version is None and importlib.util.find_spec(requirement.name.replace("-", "_"))):
            continue
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            has = f"{version} is installed" if version else "it is not installed"
            found.append(f"{name} {metadata.version(name)} needs {requirement}, and {has}")
    return found


def _stored(folder: Path) -> list[StoredBaseline]:
    from ..gate import baselines

    found = []
    for key in baselines.keys(folder):
        try:
            found.append(StoredBaseline(key=key, cases=len(baselines.read(baselines.path_of(folder, key)).cases)))
        except TrtgateError as error:
            found.append(StoredBaseline(key=key, error=str(error)))
    return found


# Probing in a process of its own

T = TypeVar("T", Torch, Features)


def _ask(what: str, kind: type[T]) -> T:
    """Run a probe of this module in another process; whatever becomes of it is an answer."""
    command = [sys.executable, "-P", "-m", "trtgate.commands.doctor", what]  # -P: not what lies in the current folder
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return kind(error=f"no answer within {PROBE_TIMEOUT_S:.0f} s")
    lines = done.stdout.strip().splitlines()  # libraries may print before us
    try:
        return msgspec.json.decode(lines[-1] if lines else "", type=kind)
    except msgspec.DecodeError:
        return kind(error=_ending(done))


def _ending(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"its process was killed by {signal.Signals(-done.returncode).name}"
    said = done.stderr.strip().splitlines()
    return f"its process ended with exit code {done.returncode}{': ' + said[-1] if said else ''}"


def _torch_here() -> Torch:
    import torch

    device = capability = device_error = torchvision_error = ""
    try:
        torch.cuda.init()
        device = torch.cuda.get_device_name(0)
        capability = ".".join(map(str, torch.cuda.get_device_capability(0)))
        torch.ones(1, device="cuda").add_(1).item()  # fails where the build has no kernels for the card
    except Exception as error:
        device_error = one_line(error)
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        torchvision_error = one_line(error)
    return Torch(
        version=str(torch.__version__),
        cuda=torch.version.cuda or "",
        device=device,
        capability=capability,
        device_error=device_error,
        torchvision_error=torchvision_error,
    )


def _features_here() -> Features:
    return Features(enabled=torch_trt.features())


def _answer(what: str) -> None:
    probes: dict[str, tuple[Callable[[], Torch | Features], type[Torch | Features]]]
    probes = {"torch": (_torch_here, Torch), "features": (_features_here, Features)}
    run, kind = probes[what]
    try:
        found = run()
    except Exception as error:
        found = kind(error=one_line(error))
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    _answer(sys.argv[1])
