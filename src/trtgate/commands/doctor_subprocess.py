"""Probes that import torch and torch_tensorrt, which may crash or hang: each runs in a process of its own.

`python -m trtgate.commands.doctor_subprocess torch` prints one probe's answer as JSON.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec

from ..common.errors import one_line
from ..torch_trt import releases
from .doctor_facts import Features, Torch

PROBE_TIMEOUT_S = 180.0
"""An import of torch_tensorrt takes 8 s; on a cold network disk a minute."""


T = TypeVar("T", Torch, Features)


def ask(what: str, kind: type[T]) -> T:
    """Run a probe of this module in another process; whatever becomes of it is an answer."""
    # -P: not what lies in the current folder
    command = [sys.executable, "-P", "-m", "trtgate.commands.doctor_subprocess", what]
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
    return Features(enabled=releases.features())


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
