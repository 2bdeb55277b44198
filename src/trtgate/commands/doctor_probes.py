"""Asks the machine for the facts of `trtgate doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..common import accelerator, machine
from ..common.errors import TrtgateError, one_line
from ..common.steps import OnStep
from ..torch_trt import releases, runtime_cache
from .doctor_facts import Bytecode, Card, Facts, Features, Nvml, StoredBaseline, Torch
from .doctor_subprocess import ask

PACKAGES = (*accelerator.LIBRARIES, "torchvision", "pytest")


def probe(folder: Path | None, step: OnStep) -> Facts:
    """Ask the machine. `folder` is that of the baselines, None to leave them out; `step` is told what takes long."""
    device, device_error = None, ""
    try:
        device = accelerator.detect()
    except Exception as error:  # NVML's too: that is what we are here to say
        device_error = str(error) if isinstance(error, TrtgateError) else one_line(error)
    step("importing torch")
    torch_ = ask("torch", Torch)
    gpu = device is not None and device.kind == "gpu" and bool(torch_.device) and not torch_.device_error
    if gpu and releases.flavour():
        step("importing torch_tensorrt")
        features = ask("features", Features)
    else:
        features = guessed_features()
    return Facts(
        python=f"{platform.python_version()} ({sys.executable})",
        system=f"{platform.system()} {platform.release()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        packages=accelerator.installed(PACKAGES),
        mismatches=[line for name in releases.FLAVOURS for line in unmet(name)],
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        device=device,
        device_error=device_error,
        nvml=probe_nvml(),
        torch=torch_,
        features=features,
        runtime_cache=runtime_cache.by_default(),
        compiler=machine.cpp_compiler(),
        bytecode=bytecode(),
        free_disk_bytes=shutil.disk_usage(Path.cwd()).free,
        baselines_folder=os.path.relpath(folder) if folder else "",
        baselines=_stored(folder) if folder else [],
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
            "tensorrt_rtx": releases.flavour() == "rtx",
        },
        guessed=True,
    )


def bytecode(packages: Sequence[str] = ("torch", "torchvision", "torch_tensorrt")) -> list[Bytecode]:
    """Return how much of installed packages is compiled, without importing any: their files are counted."""
    import importlib.util

    found = []
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin:
            continue
        folder = Path(spec.origin).parent
        caches = [Path(importlib.util.cache_from_source(str(file))) for file in folder.rglob("*.py")]
        compiled = sum(cache.exists() for cache in caches)
        unwritten = _unwritten(Path(importlib.util.cache_from_source(spec.origin)).parent)
        found.append(Bytecode(folder=str(folder), files=len(caches), compiled=compiled, unwritten=unwritten))
    return found


def _unwritten(cache: Path) -> str:
    """Return why imports write no bytecode to a folder, which need not exist; empty where they do."""
    if sys.dont_write_bytecode:
        return "PYTHONDONTWRITEBYTECODE is set, or -B"
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return "" if os.access(there, os.W_OK) else f"{there} is not writable"


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
