"""Quantized modules through nvidia-modelopt (`pip install 'trtgate[quant]'`): calibrated, exported with Q and DQ."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ..common.errors import TrtgateError, one_line
from ..suite import precisions
from ..suite.model_inputs import Inputs
from . import patching
from .modelopt_package import quiet, unavailable

CALIBRATION_BATCHES = 16
"""How many inputs a module is calibrated on."""


def quantize(module: torch.nn.Module, precision: str, batches: Iterable[Inputs]) -> torch.nn.Module:
    """Quantize a module in place, its ranges calibrated on what it is fed; returns it.

    Raises TrtgateError when nvidia-modelopt can't, and for ranges that are not positive, finite numbers.
    """
    reason = unavailable()
    if reason:
        raise TrtgateError(reason)
    if "torch_tensorrt" in sys.modules and "modelopt" not in sys.modules:
        raise TrtgateError(
            "torch_tensorrt was imported before nvidia-modelopt in this process, and takes no quantized module: name "
            "quantized precisions in the suite, or ask for them in a process of their own"
        )

    def feed(calibrated: torch.nn.Module) -> None:
        with torch.no_grad():
            for inputs in batches:
                inputs.call(calibrated)

    try:
        with quiet():
            import modelopt.torch.quantization as mtq

            with compiling():
                quantized = mtq.quantize(module, getattr(mtq, precisions.ALL[precision].quantized), feed)
    except TrtgateError:
        raise
    except Exception as error:
        raise TrtgateError(f"nvidia-modelopt could not quantize it to {precision}: {one_line(error)}") from error
    for name, range_ in quantized.named_buffers():
        if name.endswith("_amax") and not bool((torch.isfinite(range_) & (range_ > 0)).all()):
            raise TrtgateError(
                f"calibration to {precision} gave no usable range for {name.removesuffix('._amax')}: its values are "
                "zero, NaN or infinite; calibrate on other inputs (`samples` of the model)"
            )
    return quantized


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Within: `torch.export` sees quantizers as operators, on a CPU too, where nvidia-modelopt would compute them."""
    from modelopt.torch.quantization import tensor_quant
    from modelopt.torch.quantization.utils import export_torch_mode

    def as_operator(
        inputs: Any, amax: Any, num_bits: int = 8, unsigned: bool = False, narrow_range: bool = True
    ) -> torch.Tensor:
        return tensor_quant.quantize_op(
            inputs, amax, num_bits=num_bits, exponent_bits=0, unsigned=unsigned, narrow_range=narrow_range
        )

    with export_torch_mode(), patching.replaced(tensor_quant, "_tensor_quant", as_operator):
        yield


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Within: what is quantized is so by PyTorch, not by extensions that nvcc would have to build for a minute."""
    from modelopt.torch.quantization import tensor_quant

    with contextlib.ExitStack() as stack:
        for name, value in (
            ("fake_quant_impl", tensor_quant._tensor_quant),
            ("get_cuda_ext_fp8", lambda *_arguments, **_keywords: None),
        ):
            stack.enter_context(patching.replaced(tensor_quant, name, value))
        yield
