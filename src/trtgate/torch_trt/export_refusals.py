"""What torch.export and Torch-TensorRT can't take, said in a line: what it is, where, and what to do."""

from __future__ import annotations

import contextlib
import os
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import is_fake

from ..common.errors import TrtgateError, one_line
from ..suite import precisions
from ..suite.model_inputs import Inputs
from ..timing import run_state
from . import source_lines
from .patching import replaced

PACKAGE = Path(__file__).parents[1]
LIBRARIES = (str(Path(torch.__file__).parent), str(PACKAGE), sysconfig.get_paths()["stdlib"])
"""Folders whose lines are not the user's."""
NOT_TAKEN = (torch.int16, torch.uint16, torch.uint32, torch.uint64)
"""Dtypes of inputs that Torch-TensorRT can't name."""
OF_ONE_DTYPE = (
    "linear", "matmul", "mm", "addmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "layer_norm", "grid_sampler", "cdist",
)  # fmt: skip
"""Operators of aten whose floating-point tensors are to be of one dtype, which tracing does not ask."""
DERIVATIVES = (
    "its forward computes derivatives (torch.autograd or torch.func), which torch.export does not follow: write the "
    "derivative out, or take the frontend torch_compile, which leaves that part in PyTorch"
)


def check_inputs(inputs: Inputs) -> None:
    """Raise TrtgateError, naming it, for an input that is no dense tensor, or of a dtype that TensorRT has not."""
    for path, value in inputs.named():
        kind = _kind(value) if isinstance(value, torch.Tensor) else ""
        if kind:
            raise TrtgateError(
                f"input {path} is a {kind} tensor, which TensorRT does not take: let forward make it of a dense one of "
                "another dtype, or take the frontend eager or inductor"
            )


def _kind(value: torch.Tensor) -> str:
    if value.dtype in NOT_TAKEN:
        return str(value.dtype).removeprefix("torch.")
    if value.is_nested:
        return "nested"
    if value.layout is not torch.strided:
        return f"sparse ({str(value.layout).removeprefix('torch.')})"
    return "quantized" if value.is_quantized else ""


def check_aliases(module: torch.nn.Module, inputs: Inputs) -> None:
    """Raise TrtgateError where one tensor is two inputs, and a call writes to it: upstream loses one of them."""
    paths: dict[int, list[str]] = {}
    copied = inputs.cloned()
    for path, value in copied.named():
        if isinstance(value, torch.Tensor):
            paths.setdefault(id(value), []).append(path)
    twice = [(value, paths[id(value)]) for value in copied.tensors if len(paths[id(value)]) > 1]
    if not twice:
        return
    versions = [value._version for value, _ in twice]
    with contextlib.suppress(Exception):
        _call(module, copied)
    for (value, names), version in zip(twice, versions, strict=True):
        if value._version != version:
            raise TrtgateError(
                f"its inputs {' and '.join(names)} are one tensor, and its forward writes to it, which torch.export "
                "does not take: give each a tensor of its own (x.clone()), or let forward write to a copy"
            )


def check_program(program: torch.export.ExportedProgram) -> None:
    """Raise TrtgateError where torch.export made a constant of what it traced with, which has no values."""
    for value in program.constants.values():
        if isinstance(value, torch.Tensor) and (
            is_fake(value) or torch._C._functorch.is_functorch_wrapped_tensor(value)
        ):
            raise TrtgateError(f"torch.export can't export it: {DERIVATIVES}")


def check_dtypes(program: torch.export.ExportedProgram, precision: str) -> None:
    """Raise TrtgateError, naming operator and line, for operands of several dtypes that PyTorch refuses when it runs.

    torch.export traces without values, and asks about dtypes in some operators alone. Regions of autocast are graphs of
    their own, which are not asked: they may mix.
    """
    casts = precision != precisions.AS_IS
    other = f"; {precisions.CASTS_NOTHING}" * casts
    for node in program.graph.nodes:
        if node.op == "call_function" and _name(node.target) in OF_ONE_DTYPE:
            dtypes = _floating_dtypes(node)
            if len(dtypes) > 1:
                both, line = " and ".join(sorted(dtypes)), source_lines.source_line(node)
                raise TrtgateError(
                    f"its forward gives {both} to aten.{_name(node.target)}, which PyTorch refuses: "
                    f"cast one of them{other}; at {line or 'a line that is not known'}"
                )


def _name(target: Any) -> str:
    return str(getattr(target, "_opname", ""))


def _floating_dtypes(node: torch.fx.Node) -> set[str]:
    values = (one.meta.get("val") for one in node.all_input_nodes)
    tensors = (value for value in values if isinstance(value, torch.Tensor) and value.is_floating_point())
    return {str(value.dtype).removeprefix("torch.") for value in tensors}


def explained(error: Exception, module: torch.nn.Module, inputs: Inputs) -> str:
    """Return what torch.export's error means and what to do, or its first line; with the user's line, if one is seen.

    Calls the module once more, to see whether it computes derivatives.
    """
    reason, at = one_line(error), _line_of(error)
    if type(error).__name__.startswith("GuardOnDataDependent"):
        reason = (
            f"its forward decides by the values of a tensor{at} ({reason}): use torch.where or torch.cond, or take the "
            "frontend torch_compile, which breaks the graph there"
        )
    elif scripted := [(path, one) for path, one in module.named_modules() if isinstance(one, torch.jit.ScriptModule)]:
        path, one = scripted[0]
        reason = (
            f"its submodule {path} is a {type(one).__name__}: let the factory put in the module that it was made from, "
            "or take the frontend eager or aot_eager"
        )
    elif "Guard failed" in reason:
        reason += ": the program was exported for that alone; export it with dynamic_shapes=, or for these inputs"
    elif _computes_derivatives(module, inputs):
        reason = DERIVATIVES
    else:
        reason += at
    return f"torch.export can't export it: {reason}"


def _line_of(error: BaseException) -> str:
    """Return ` at net.py:12`, the last line that is the user's; empty where none is seen."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if not one.filename.startswith((*LIBRARIES, "<"))]
    return f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""


def _computes_derivatives(module: torch.nn.Module, inputs: Inputs) -> bool:
    with _derivatives_seen() as seen, contextlib.suppress(Exception):
        _call(module, inputs.cloned())
    return bool(seen)


def _call(module: torch.nn.Module, inputs: Inputs) -> None:
    with run_state.unchanged((module,), ()), run_state.seeded(), torch.no_grad():
        inputs.call(module)


@contextlib.contextmanager
def _derivatives_seen() -> Iterator[list[str]]:
    """Within: each call of autograd is noted."""
    seen: list[str] = []

    def noting(function: Any) -> Any:
        def noted(*args: Any, **kwargs: Any) -> Any:
            seen.append(function.__name__)
            return function(*args, **kwargs)

        return noted

    autograd: Any = torch.autograd
    with replaced(autograd, "grad", noting(autograd.grad)), replaced(autograd, "backward", noting(autograd.backward)):
        yield seen
