"""What follows from the facts of a machine: what can run here, what is broken, and what is slow.

All but `examine`, which probes first, are functions of facts.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import msgspec

from ..common import accelerator
from ..common.steps import OnStep
from ..suite.settings import FRONTENDS, TENSORRT_FRONTENDS
from ..torch_trt import releases
from . import doctor_probes
from .doctor_facts import Facts

MIN_DRIVER = {12: 525, 13: 580}
"""CUDA's major version → oldest branch of the NVIDIA driver that runs it.

https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html, table 1.
"""


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
    notes: list[str]


def examine(folder: Path, step: OnStep) -> DoctorReport:
    """Probe this machine and judge what was found. `folder` is that of the baselines; `step` is told what begins."""
    facts = doctor_probes.probe(folder, step)
    return DoctorReport(
        facts=facts,
        key=facts.device.key if facts.device else "",
        needs=needs(facts),
        frontends=[frontend_state(name, facts) for name in FRONTENDS],
        problems=problems(facts),
        notes=notes(facts),
    )


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
    unavailable = frontends.get(name).unavailable() or releases.lacks(name)
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


def notes(facts: Facts) -> list[str]:
    """Return what is slow here and breaks nothing, each with what to do.

    A package is noted if most of it is not compiled: a file of newer syntax than this Python's never is.
    """
    anew = [one for one in facts.bytecode if one.unwritten and one.compiled < one.files / 2]
    if not anew:
        return []
    packages = ", ".join(f"{Path(one.folder).name} ({one.compiled} of {one.files} files)" for one in anew)
    why = "; ".join(dict.fromkeys(one.unwritten for one in anew))
    sites = dict.fromkeys(str(Path(one.folder).parent) for one in anew)
    once = shlex.join([sys.executable, "-m", "compileall", "-q", "-j", "0", *sites])
    return [
        f"no bytecode is written ({why}), and packages lack it: {packages}. Each process of a run compiles them anew, "
        f"for seconds: install with `uv pip install --compile-bytecode`, or compile once where they are: {once}"
    ]


def _package_problems(facts: Facts) -> list[str]:
    found = list(facts.mismatches)
    if all(name in facts.packages for name in releases.FLAVOURS):
        both = " and ".join(releases.FLAVOURS)
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
