"""What torch and its libraries were told process-wide: torch's flags, and environment variables that they read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from . import process_state

READ = re.compile(
    r"(PY)?TORCH_.*|TORCH(INDUCTOR|DYNAMO|TRT)_.*|TRT_.*|TENSORRT_.*|TRTLLM_.*|TRITON_.*|CUBLAS(LT)?_.*|CUDNN_.*|CUDA_.*|"
    r"NVIDIA_TF32_OVERRIDE|USE_TRTLLM_PLUGINS|_*LUNOWUD|DISABLE_ADDMM_CUDA_LT|"
    r"DISABLE_(LLVM_OPT|PTXAS_OPT|FAST_REDUCTION|MMA_V\d)|PTXAS_OPTIONS|ALLOW_LHS_TMEM_LAYOUT_CONVERSION|"
    r"LLVM_PASS_PLUGIN_PATH"
)
"""Variables that torch, Torch-TensorRT, TensorRT, Triton, cuBLAS, cuDNN and CUDA read; `__LUNOWUD` is TensorRT's.

`DISABLE_ADDMM_CUDA_LT` is torch's, and the names after it are Triton's.
"""
SAYS_NOTHING = re.compile(
    r"(?!TRITON_(PTXAS|LIBCUDA)|TRITON_OVERRIDE|TRTLLM_|LLVM_)"
    r".*_(DIR|DIRECTORY|HOME|PATH|ROOT|VERSION|LOGS?|LOGGING|LEVEL|LIST|THREADS|TRACE|URL|TOKEN|NAME|ORDER|VISIBLE_DEVICES|"
    r"CACHE_MAXSIZE)"
)
"""Variables that say where something lies, which images set of their versions, or how much is logged."""
SET_BY_TORCH = {
    "TRITON_PTXAS_PATH": str(Path(torch.__file__).parent / "bin" / "ptxas"),
    "CUDA_MODULE_LOADING": "LAZY",
    "TORCH_WARM_POOL": "0",
}
"""Variable → what a release of torch sets it to when it first compiles or takes a GPU: in a process that has had such
a case, and in no other. A case is compiled the same without it; CUDA loads lazily by default."""
BY_ITSELF = ([1, 2, 0, 3, 4], [3, 1, 2, 0, 4])
"""Orders in which torch tries its kernels of attention unless it is told another: at first, and, on a card for which
it prefers cuDNN's, from the first attention on. A flag that told them apart would follow from the cases before."""


def _order_of_attention() -> list[int]:
    order: list[int] = torch._C._get_sdp_priority_order()
    return BY_ITSELF[0] if order in BY_ITSELF else order


OF_TORCH: dict[str, Callable[[], Any]] = {
    "cudnn.enabled": lambda: torch.backends.cudnn.enabled,
    "cudnn.benchmark": lambda: torch.backends.cudnn.benchmark,
    "cudnn.benchmark_limit": lambda: torch.backends.cudnn.benchmark_limit,
    "cudnn.deterministic": lambda: torch.backends.cudnn.deterministic,
    "cudnn.allow_tf32": lambda: torch.backends.cudnn.allow_tf32,
    "cuda.matmul.allow_tf32": lambda: torch.backends.cuda.matmul.allow_tf32,
    "cuda.matmul.allow_fp16_accumulation": lambda: torch.backends.cuda.matmul.allow_fp16_accumulation,
    "cuda.matmul.allow_fp16_reduced_precision_reduction": (
        lambda: torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    ),
    "cuda.matmul.allow_bf16_reduced_precision_reduction": (
        lambda: torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    ),
    "cuda.flash_sdp": torch.backends.cuda.flash_sdp_enabled,
    "cuda.mem_efficient_sdp": torch.backends.cuda.mem_efficient_sdp_enabled,
    "cuda.math_sdp": torch.backends.cuda.math_sdp_enabled,
    "cuda.cudnn_sdp": torch.backends.cuda.cudnn_sdp_enabled,
    "cuda.sdp_priority": _order_of_attention,
    "cuda.fp16_bf16_reduction_math_sdp": lambda: torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed(),
    "cuda.tunable": lambda: (torch.cuda.tunable.is_enabled(), torch.cuda.tunable.tuning_is_enabled()),
    "cuda.preferred_linalg_library": lambda: torch._C._get_linalg_preferred_backend(),
    "cuda.preferred_blas_library": lambda: torch._C._get_blas_preferred_backend(),
    "default_dtype": torch.get_default_dtype,
    "default_device": process_state.default_device,
    "deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
    "deterministic.fill_uninitialized_memory": lambda: torch.utils.deterministic.fill_uninitialized_memory,
    "anomaly": torch.is_anomaly_enabled,
}
"""Names of flags, below `torch.backends` or `torch` → what reads them.

Of how fp32 is computed it is TF32 or not, as torch's older functions say: the newer ones tell the same otherwise once
trtgate has set and restored it.
"""


def flags() -> dict[str, str]:
    """Return torch's flags, name → what it is set to."""
    return {name: _read(read) for name, read in OF_TORCH.items()}


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that decide how something is compiled or computed, as far as they are set."""
    known = os.environ if variables is None else variables
    return {
        name: value
        for name, value in sorted(known.items())
        if READ.fullmatch(name) and not SAYS_NOTHING.fullmatch(name) and value != SET_BY_TORCH.get(name)
    }


def _read(read: Callable[[], Any]) -> str:
    try:
        return str(read())
    except (RuntimeError, AttributeError):  # torch's older and newer functions were mixed, or this release has none
        return "unknown"
