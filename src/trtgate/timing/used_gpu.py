"""Whether the GPU that torch uses in this process is the one that NVML described: by hardware, never by a number.

CUDA counts the fastest GPU first and NVML by PCI bus, and what is imported may set CUDA_VISIBLE_DEVICES at any time.
"""

from __future__ import annotations

import ctypes
from typing import Any

from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError, explaining
from ..common.explanations import Explanation

DRIVER = "libcuda.so.1"
"""The driver's library, through which torch finds GPUs."""
OF_A_CARD = "GPU-"
"""How UUIDs of undivided GPUs begin; CUDA does not always give those of instances."""


@explaining(Explanation.GPU_MISMATCH)
def check(seen: Accelerator) -> None:
    """Check the device of this process against what NVML, or the lack of it, said.

    Raises TrtgateError where torch can't use the GPU, uses another one, or uses one that NVML does not see.
    """
    if seen.kind != "gpu" and not _has_driver():  # then torch sees none, and importing it takes a second
        return
    import torch

    if seen.kind != "gpu":
        if torch.version.cuda and torch.cuda.is_available():
            raise TrtgateError(
                f"torch sees {torch.cuda.get_device_name(0)}, and NVML sees no GPU, so that cases would be measured on "
                "the CPU: give a container NVML (NVIDIA_DRIVER_CAPABILITIES=compute,utility); CUDA_VISIBLE_DEVICES= "
                "measures on the CPU"
            )
        return
    if not torch.cuda.is_available():
        raise TrtgateError(
            f"NVML sees {seen.name}, driver {seen.driver}, and torch {torch.__version__} can't use it: "
            "`trtgate doctor` says what it needs; CUDA_VISIBLE_DEVICES= runs without it"
        )
    used = torch.cuda.get_device_properties(0)
    check_uuid(seen.uuid, used)
    if not seen.uuid.startswith(OF_A_CARD):
        _check_kind(seen, used)


def _has_driver() -> bool:
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def check_uuid(uuid: str, used: Any) -> None:
    """Check the properties of torch's first GPU against a UUID. Raises TrtgateError where it is another GPU.

    What is not known is not compared: an empty UUID, one of an instance (MIG), a torch that gives none.
    """
    of_torch = str(getattr(used, "uuid", "")).removeprefix(OF_A_CARD)
    if uuid.startswith(OF_A_CARD) and of_torch not in uuid:
        raise TrtgateError(
            f"torch's first GPU is {OF_A_CARD}{of_torch} ({used.name}), NVML's is {uuid}: set "
            "CUDA_VISIBLE_DEVICES to one UUID, before anything is imported"
        )


def _check_kind(seen: Accelerator, used: Any) -> None:
    name, capability = used.name.split(" MIG ")[0], (used.major, used.minor)
    if name.lower() != seen.name.lower() or (seen.capability and tuple(seen.capability) != capability):
        theirs = "unknown" if seen.capability is None else ".".join(map(str, seen.capability))
        raise TrtgateError(
            f"torch's first GPU is {name} (compute capability {used.major}.{used.minor}), NVML's is {seen.name} "
            f"({theirs}): set CUDA_VISIBLE_DEVICES to one UUID, before anything is imported"
        )
