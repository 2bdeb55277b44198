"""From a case to its module, inputs and compiled module on a device, with every mistake of a factory named."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from . import accuracy, frontends, torch_trt
from .cases import Case
from .errors import TrtgateError, one_line
from .frontends import CompiledModule
from .frontends.protocol import Progress
from .records import Build

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
INPUTS_FILE = "inputs.pt"


class Inference:
    """A compiled module together with its inputs; calling it is one inference."""

    def __init__(self, compiled: CompiledModule, inputs: tuple[Any, ...]) -> None:
        self.compiled = compiled
        self.inputs = inputs

    def place_inputs(self) -> None:
        """Copy the inputs to newly allocated memory."""
        self.inputs = tuple(value.clone() for value in self.inputs)

    def __call__(self) -> Any:
        """Run once."""
        with torch.no_grad():
            return self.compiled.run(*self.inputs)


def make(case: Case, device: str) -> tuple[torch.nn.Module, tuple[Any, ...]]:
    """Call the factory; returns its module in eval mode and its inputs, cast to the case's precision, on `device`.

    Raises TrtgateError when the factory raises, returns something else, or inputs of another batch size.
    """
    batch = case.settings.batch
    try:
        made = case.model.factory(batch=batch) if batch is not None else case.model.factory()
    except Exception as error:
        raise TrtgateError(f"model {case.model.name!r}: its factory raised {one_line(error)}") from error
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module)):
        raise TrtgateError(
            f"model {case.model.name!r}: its factory must return (module, inputs), not {type(made).__name__}"
        )
    module, inputs = made
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
    if not tensors or len(tensors) != len(inputs):
        raise TrtgateError(f"model {case.model.name!r}: example inputs must be a tensor or a tuple of tensors")
    if batch is not None and any(value.ndim == 0 or value.shape[0] != batch for value in tensors):
        shapes = ", ".join(str(tuple(value.shape)) for value in tensors)
        raise TrtgateError(
            f"model {case.model.name!r}: batch {batch} was asked for, and its factory gave inputs of shape {shapes}"
        )
    dtype = DTYPES[case.settings.precision]
    moved = tuple(value.to(device, dtype) if value.is_floating_point() else value.to(device) for value in tensors)
    return module.eval().requires_grad_(False).to(device, dtype), moved


@contextlib.contextmanager
def strict_fp32() -> Iterator[None]:
    """Within: fp32 is computed as fp32 (cuDNN's default is TF32). Restored afterwards."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


@contextlib.contextmanager
def quiet_upstream() -> Iterator[None]:
    """Within: no warnings. Upstream's deprecations are not about the user's code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def eager_output(case: Case, module: torch.nn.Module, inputs: tuple[Any, ...]) -> Any:
    """Run the module as PyTorch does. Raises TrtgateError when it can't take its own example inputs."""
    try:
        with torch.no_grad(), strict_fp32():
            return module(*inputs)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(value.shape)) for value in inputs)
        raise TrtgateError(
            f"model {case.model.name!r}: eager can't run its own example inputs of shape {shapes}: {one_line(error)}"
        ) from error


def arithmetic(case: Case) -> str:
    """Return the precision that the case's frontend computes in: fp32 may be TF32 in TensorRT."""
    settings = case.settings
    tf32 = settings.precision == "fp32" and settings.uses_tensorrt and torch_trt.fp32_is_tf32()
    return "tf32" if tf32 else settings.precision


def build(case: Case, module: torch.nn.Module, inputs: tuple[Any, ...], step: Progress) -> Inference:
    """Compile with the case's frontend. Raises TrtgateError for unknown compile options and failed builds."""
    torch_trt.check_options(case.id, case.settings.options)
    frontend = frontends.get(case.settings.frontend)
    try:
        with torch.no_grad(), strict_fp32(), quiet_upstream():
            compiled = frontend.build(module, inputs, case.settings, step)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        raise TrtgateError(f"case {case.id}: {case.settings.frontend} could not build it: {one_line(error)}") from error
    return Inference(compiled, inputs)


def checked(case: Case, device: str, step: Progress) -> tuple[Inference, Build]:
    """Make, build and compare with eager. Raises TrtgateError for what can't be built, or whose output is wrong."""
    step("making the model")
    module, inputs = make(case, device)
    eager = eager_output(case, module, inputs)
    if not accuracy.all_finite(eager):
        raise TrtgateError(
            f"model {case.model.name!r}: eager's own output has NaN or infinite values; seed its weights and inputs"
        )
    step(f"building with {case.settings.frontend}")
    inference = build(case, module, inputs, step)
    compared = accuracy.compare(eager, inference())
    problem = compared.problem(arithmetic(case))
    if problem:
        raise TrtgateError(f"case {case.id}: {problem}; nothing was timed or stored")
    sizes, found = inference.compiled.engine_bytes, inference.compiled.coverage
    return inference, Build(
        build_s=inference.compiled.build_s,
        engines=len(sizes),
        engine_bytes=sum(sizes),
        output_error=compared.relative_l2,
        pytorch_operators=None if found is None else found.in_pytorch,
    )


def save(case: Case, inference: Inference, folder: Path) -> bool:
    """Store what a worker needs to load the case; returns False when the frontend stores nothing."""
    frontend = frontends.get(case.settings.frontend)
    if not frontend.stores_artifact:
        return False
    with quiet_upstream():
        frontend.save(inference.compiled, inference.inputs, folder)
    torch.save(inference.inputs, folder / INPUTS_FILE)
    return True


def load(case: Case, folder: Path, device: str) -> Inference:
    """Load what `save` stored. Unpickles: only from a folder that this user's own session made."""
    inputs = torch.load(folder / INPUTS_FILE, weights_only=True, map_location=device)
    return Inference(frontends.get(case.settings.frontend).load(folder), tuple(inputs))
