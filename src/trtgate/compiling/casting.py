"""What a precision casts: floating-point values, and with `as_is` nothing; and how coarsely a model then rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..common.errors import TrtgateError
from ..common.text_columns import first_few, number_of
from ..suite import precisions
from ..suite.model_inputs import Inputs

MOST_NAMED = 3
COARSEST_FIRST = (("fp8", 1), ("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp16", torch.complex32))
"""Precision → the dtype, or the bytes of a value, that it takes; what is finer than all rounds as fp32."""


def cast(module: torch.nn.Module, inputs: Inputs, precision: str, device: str) -> tuple[Inputs, str]:
    """Move a module in place, and inputs, to a device; cast what a precision casts. Complex values stay complex.

    Returns the inputs, and a sentence on float64 values that lost digits; empty where there are none.
    """
    name, moved = precisions.ALL[precision].dtype, mover(precision, device)
    lost = [path for path, value in _tensors(module, inputs) if value.dtype == torch.float64] if name else []
    for buffer in module.buffers():  # an object that is no module may hold it too, as a cache's layer does
        stays = buffer.device.type == torch.device(device).type  # else it would be copied here and again below
        if stays and torch._has_compatible_shallow_copy_type(buffer, there := moved(buffer)):
            buffer.data = there
    module._apply(moved)  # as Module.to does, which would cast complex values to real ones
    if not lost:
        return inputs.mapped(moved), ""
    count = number_of(len(lost), "float64 tensor")
    said = f"{count} cast to {name} ({first_few(lost, MOST_NAMED)}): {precisions.CASTS_NOTHING}"
    return inputs.mapped(moved), said


def check_values(module: torch.nn.Module, inputs: Inputs, name: str) -> None:
    """Raise TrtgateError, which begins with `name`, for a tensor on the meta device."""
    for path, value in _tensors(module, inputs):
        if value.is_meta:
            raise TrtgateError(
                f"{name}: {path} is on the meta device, which holds no values: let the factory make it on the CPU"
            )


def mover(precision: str, device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what moves a tensor to a device, and casts it as a precision does."""
    name = precisions.ALL[precision].dtype
    dtype: torch.dtype | None = getattr(torch, name) if name else None

    def moved(value: torch.Tensor) -> torch.Tensor:
        return value.to(device, dtype) if dtype is not None and value.is_floating_point() else value.to(device)

    return moved


def _tensors(module: torch.nn.Module, inputs: Inputs) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
    for path, leaf in inputs.named():
        if isinstance(leaf, torch.Tensor):
            yield f"input {path}", leaf


class SeenDtypes(TorchDispatchMode):
    """Within: notes the dtypes of all that operators return, as autocast in `forward` decides them."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.dtypes |= {leaf.dtype for leaf in pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor)}
        return found

    def coarsest(self, module: torch.nn.Module, inputs: Inputs) -> str:
        """Return the precision as which a module rounds that is not cast: that of its coarsest dtype."""
        there = self.dtypes | {value.dtype for _, value in _tensors(module, inputs)}
        rounding = {one for one in there if one.is_floating_point or one.is_complex}
        for precision, dtype in COARSEST_FIRST:
            if dtype in rounding or dtype in {one.itemsize for one in rounding}:
                return precision
        return "fp32"
