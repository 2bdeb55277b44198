"""Can this machine take a case at all? What it lacks, and what its card, flavour or version is known to refuse."""

from __future__ import annotations

from .. import frontends
from ..common.accelerator import NEEDS_GPU, Accelerator
from ..suite import precisions
from ..suite.settings import Settings
from ..torch_trt import compile_options, dynamic_engines, modelopt_package, releases


def unavailable(settings: Settings, accelerator: Accelerator) -> str:
    """Return why a case can't be built or measured here, in one line; empty when it can, as far as is known."""
    return lacking(settings, accelerator) or refused(settings, accelerator)


def lacking(settings: Settings, accelerator: Accelerator) -> str:
    """Return what this machine could have and has not: a GPU, a package, a compiler."""
    if settings.gpu_only and accelerator.kind != "gpu":
        return NEEDS_GPU
    reason = frontends.get(settings.frontend).unavailable()
    return reason or (modelopt_package.unavailable() if settings.precision in precisions.QUANTIZED else "")


def refused(settings: Settings, accelerator: Accelerator) -> str:
    """Return what no package would change: this build, version or card is known not to take it."""
    precision = precisions.ALL[settings.precision]
    if accelerator.capability and accelerator.capability < precision.capability:
        needed, has = (".".join(map(str, one)) for one in (precision.capability, accelerator.capability))
        return f"{precision.name} needs compute capability {needed}, {accelerator.name} has {has}"
    if settings.runtime and not compile_options.has_runtimes():
        return f"torch_tensorrt {releases.version()} has one runtime: runtime={settings.runtime} can't be chosen"
    if precision.name == "int8" and not releases.takes_int8_activations():
        return f"torch_tensorrt {releases.version()} with TensorRT-RTX takes no int8 activations; int8_weights it does"
    return releases.lacks(settings.frontend) or dynamic_engines.refused(settings)
