"""How fp32 is computed in this process: as fp32, or as TF32, which rounds operands to 10 bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ..suite import precisions
from ..suite.cases import Case
from ..torch_trt import releases
from ..torch_trt.compile_options import AUTOCAST_DTYPE, AUTOCAST_DTYPES

TF32_BACKENDS = (torch.backends.cudnn, torch.backends.cuda.matmul)


def allow_tf32(allowed: bool) -> None:
    """Let fp32 be computed as TF32 or not, from here on."""
    for backend in TF32_BACKENDS:
        backend.allow_tf32 = allowed


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Within: fp32 is computed as TF32 or not (cuDNN's default is TF32). Restored afterwards."""
    before = [backend.allow_tf32 for backend in TF32_BACKENDS]
    allow_tf32(allowed)
    try:
        yield
    finally:
        for backend, value in zip(TF32_BACKENDS, before, strict=True):
            backend.allow_tf32 = value


def strict_fp32() -> contextlib.AbstractContextManager[None]:
    """Within: fp32 is computed as fp32."""
    return _tf32(False)


def arithmetic_of(case: Case) -> contextlib.AbstractContextManager[None]:
    """Within: fp32 is computed as the case's precision says."""
    return _tf32(case.settings.precision == "tf32")


def arithmetic(case: Case, coarsest: str = "fp32") -> str:
    """Return the precision that the case's frontend computes in: fp32 may be TF32 in TensorRT.

    `coarsest` is that of a module that is not cast, for a case that is `as_is`. Torch-TensorRT's autocast rounds as its
    dtype.
    """
    settings = case.settings
    autocast = AUTOCAST_DTYPES.get(str(settings.options.get(AUTOCAST_DTYPE)))
    if autocast is not None and settings.precision in ("fp32", "tf32", precisions.AS_IS):
        return autocast
    precision = coarsest if settings.precision == precisions.AS_IS else settings.precision
    tf32 = precision == "fp32" and settings.uses_tensorrt and releases.fp32_is_tf32()
    return "tf32" if tf32 else precision
