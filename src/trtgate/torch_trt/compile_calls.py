"""From a module to engines with each of Torch-TensorRT's frontends, to a file and back."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import TrtgateError
from .compile_options import arguments_of, options_of
from .patching import replaced
from .releases import imported, without_modelopt

if TYPE_CHECKING:
    import torch

    from ..suite.model_inputs import Inputs
    from ..suite.settings import Settings
    from .dynamic_inputs import DynamicInputs


def compile_exported(
    program: torch.export.ExportedProgram, inputs: Inputs, settings: Settings, dynamic: DynamicInputs | None = None, *,
    dryrun: bool = False,
) -> torch.nn.Module:  # fmt: skip
    """Compile an exported program with `torch_tensorrt.dynamo.compile`; a dry run partitions it, and builds nothing.

    `use_explicit_typing` stays at its default: weights and inputs are cast before export, since
    `enabled_precisions` raises on 2.11 and is ignored on 2.14.
    """
    torch_tensorrt = imported()

    given = arguments_of(inputs, dynamic)
    dry: dict[str, Any] = {"dryrun": True} if dryrun else {}
    with without_modelopt(), _texts_in_graphs(torch_tensorrt.dynamo.utils):
        return torch_tensorrt.dynamo.compile(program, arg_inputs=given, **dry, **options_of(settings))


def _texts_in_graphs(utils: Any) -> contextlib.AbstractContextManager[None]:
    """Within: a text among the inputs of a graph has no dtype; upstream raises where it notes the dtypes of all."""
    before = utils.unwrap_tensor_dtype
    return replaced(utils, "unwrap_tensor_dtype", lambda value: None if isinstance(value, str) else before(value))


def compile_torchscript(
    module: torch.jit.ScriptModule, inputs: Inputs, settings: Settings, dynamic: DynamicInputs | None = None
) -> Any:
    """Compile a traced or scripted module with `torch_tensorrt.ts.compile`, its layers in the module's own types."""
    import torch

    torch_tensorrt = imported()

    kinds = {value.dtype for value in inputs.tensors if value.is_floating_point()} or {torch.float32}
    options: dict[str, Any] = {
        "min_block_size": settings.min_block_size, "enabled_precisions": kinds,
        "torch_executed_ops": [_schema_name(name) for name in settings.torch_executed_ops],
        "disable_tf32": settings.precision != "tf32",
    }  # fmt: skip
    given = list(arguments_of(inputs, dynamic))
    return torch_tensorrt.ts.compile(module, inputs=given, **options | settings.options)


def _schema_name(name: str) -> str:
    """Return an operator as TorchScript calls it: `aten::relu` for `aten.relu` or `aten.relu.default`."""
    namespace, _, rest = name.removeprefix("torch.ops.").partition(".")
    return f"{namespace}::{rest.removesuffix('.default')}"


def load_torchscript(file: Path) -> Any:
    """Load what `torch.jit.save` stored; the runtime that its engines need comes with torch_tensorrt."""
    import torch

    imported()

    return torch.jit.load(str(file))


def compile_fx(module: torch.nn.Module, inputs: Inputs, settings: Settings) -> Any:
    """Compile with the legacy FX frontend, which counts operators of an engine as `min_acc_module_size`."""
    fx = imported().fx
    lower = {"fp16": fx.utils.LowerPrecision.FP16, "fp32": fx.utils.LowerPrecision.FP32}
    if settings.precision not in lower:
        raise TrtgateError(f"the fx frontend knows fp32 and fp16, not {settings.precision}")
    return fx.compile(
        module, inputs.tensors, min_acc_module_size=settings.min_block_size, lower_precision=lower[settings.precision],
        explicit_batch_dimension=True, **settings.options,
    )  # fmt: skip


def set_cudagraphs(*, on: bool) -> None:
    """Switch Torch-TensorRT's CUDA-graph mode, which is the process's: each engine is recorded and replayed by itself.

    Upstream's wrapper for a module with parts in PyTorch is left out: it knows the parts by their names, which a loaded
    module does not have, so that what is checked and what is measured would differ.
    """
    if on:
        imported()
        from torch_tensorrt import runtime

        runtime.set_cudagraphs_mode(True)
    elif "torch_tensorrt.runtime" in sys.modules:
        sys.modules["torch_tensorrt.runtime"].set_cudagraphs_mode(False)


def torch_compile(module: torch.nn.Module, settings: Settings, compiled: list[torch.nn.Module]) -> Callable[..., Any]:
    """Return `torch.compile(module)` with Torch-TensorRT's backend; what it makes of each graph is added to `compiled`.

    A graph that fails to build raises: upstream's default is to run it in PyTorch, with a warning.
    """
    import torch

    imported()
    from torch_tensorrt.dynamo.backend.backends import torch_tensorrt_backend

    wanted = {**options_of(settings), "pass_through_build_failures": True}

    def backend(gm: Any, inputs: Any) -> Any:
        with without_modelopt():
            made = torch_tensorrt_backend(gm, inputs, options=wanted)
        compiled.append(made)
        return made

    return torch.compile(module, backend=backend, dynamic=None if settings.dynamic else False)
