"""Standing in for a GPU: Torch-TensorRT partitions, and nothing is built."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import dynamic_tracing, dynamo_frames
from .compile_options import options_of
from .dynamo_frames import LeftOut
from .patching import no_logging, quiet_stderr, replaced
from .releases import imported, without_modelopt

if TYPE_CHECKING:
    import torch

    from ..suite.model_inputs import Inputs
    from ..suite.settings import Settings
    from .dynamic_inputs import DynamicInputs


CAPABILITY = (9, 0)
"""Of the GPU that is stood in for: an H100."""


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Within: CUDA's questions that torch_tensorrt asks when it is imported and compiles are answered, for no GPU."""
    import torch

    with contextlib.ExitStack() as stack:
        for name, answer in _answers().items():
            stack.enter_context(replaced(torch.cuda, name, answer))
        yield


@contextlib.contextmanager
def stand_in() -> Iterator[None]:
    """Within: torch_tensorrt can be imported and asked for dry runs, with or without a GPU; nothing runs on one.

    Without a GPU (2.11 to 2.14): importing asks for the current device and its capability, or its properties;
    `dynamo.compile` asks for free memory. Everywhere: segments that stay in PyTorch stay on the CPU, attention is a
    GPU's, and what upstream prints and logs is kept back.
    """
    import torch

    with contextlib.ExitStack() as stack:
        if not torch.cuda.is_available():
            stack.enter_context(answering())
        if "torch_tensorrt" not in sys.modules:
            with quiet_stderr():
                imported()
        from torch_tensorrt.dynamo import _compiler
        from torch_tensorrt.dynamo.backend import backends

        stack.enter_context(replaced(_compiler, "to_torch_device", lambda _device: torch.device("cpu")))
        stack.enter_context(
            replaced(backends, "aot_export_joint_simple", _interpreted(backends.aot_export_joint_simple))
        )
        # pytest's capture may come back from a pause within, and with it the stdout that is put aside below
        stack.enter_context(replaced(_compiler, "dryrun_stats_display", lambda *_arguments: None))
        for owner in (_compiler, backends):
            wrapped = _with_attention_of_a_gpu(owner.get_decompositions)
            stack.enter_context(replaced(owner, "get_decompositions", wrapped))
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(no_logging())
        yield


def _answers() -> dict[str, Callable[..., Any]]:
    major, minor = CAPABILITY
    memory = 80 << 30
    properties = types.SimpleNamespace(
        name="stand-in", major=major, minor=minor, total_memory=memory, multi_processor_count=132
    )
    return {
        "current_device": lambda: 0,
        "get_device_capability": lambda _device=None: CAPABILITY,
        "get_device_properties": lambda _device=None: properties,
        "mem_get_info": lambda _device=None: (memory, memory),
    }


def torch_compile(
    module: torch.nn.Module, inputs: Inputs, settings: Settings, dynamic: DynamicInputs | None = None
) -> LeftOut:
    """Hand every graph that `torch.compile` makes of the module to Torch-TensorRT's backend, building nothing.

    The graphs themselves are run by PyTorch, so that what follows a graph break is reached. Returns what Dynamo left
    out of the graphs.
    """
    import torch
    from torch_tensorrt.dynamo.backend.backends import torch_tensorrt_backend

    wanted = {**options_of(settings), "dryrun": True, "pass_through_build_failures": True}

    def backend(gm: Any, samples: Any) -> Any:
        copied = torch.fx.GraphModule(gm, copy.deepcopy(gm.graph))  # lowering changes it in place
        with without_modelopt():
            torch_tensorrt_backend(copied, samples, options=wanted)
        return gm

    torch.compiler.reset()
    try:
        with dynamo_frames.observing() as left_out:
            compiled = torch.compile(module, backend=backend, dynamic=None if settings.dynamic else False)
            if dynamic is None:
                inputs.call(compiled)
            else:
                dynamic_tracing.first_call(compiled, dynamic, inputs)
    finally:
        torch.compiler.reset()
    return left_out


def _interpreted(trace: Callable[..., Any]) -> Callable[..., Any]:
    """Let `aot_export_joint_simple` trace a graph node by node: each operator keeps the stack trace of its node.

    AOTAutograd does so by itself for graphs of `torch.compile` (`aot_module_simplified`), and not in this function.
    """
    import torch
    from torch.fx import traceback

    def traced(function: Any, *arguments: Any, **keywords: Any) -> Any:
        def by_node(*values: Any) -> Any:
            with traceback.preserve_node_meta():
                return torch.fx.Interpreter(function).run(*values)

        known = by_node if isinstance(function, torch.fx.GraphModule) else function
        return trace(known, *arguments, **keywords)

    return traced


def _with_attention_of_a_gpu(get_decompositions: Callable[..., Any]) -> Callable[..., Any]:
    """Make attention traced on a CPU be a GPU's: flash attention in half precision, else efficient.

    2.14's decompositions of an exported program keep `scaled_dot_product_attention` whole; 2.11's, and
    `torch.compile`'s on all versions, pick the device's kernel, and no converter takes the CPU's. Hopper takes cuDNN's
    in half precision; `operator_name` calls them all alike.
    """
    import torch

    aten = torch.ops.aten

    def attention(
        query: Any, key: Any, value: Any, dropout_p: float = 0.0, is_causal: bool = False,
        *, attn_mask: Any = None, scale: float | None = None,
    ) -> tuple[Any, Any]:  # fmt: skip
        if attn_mask is None and query.dtype in (torch.float16, torch.bfloat16):
            found = aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)
        else:
            found = aten._scaled_dot_product_efficient_attention(
                query, key, value, attn_mask, False, dropout_p, is_causal, scale=scale
            )
        return found[0], found[1]

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        cpu_kernel = aten._scaled_dot_product_flash_attention_for_cpu.default
        return {**get_decompositions(*arguments, **keywords), cpu_kernel: attention}

    return wrapped
