"""From a case to its module, inputs and compiled module on a device, with every mistake of a factory named."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch

from .. import frontends
from ..common.errors import TrtgateError, one_line
from ..common.steps import OnStep
from ..records.measurement import Build
from ..suite import precisions, weights
from ..suite.cases import Case
from ..suite.model_inputs import Inputs
from ..suite.settings import OWN, Settings
from ..torch_trt import compile_calls, compile_options, dynamic_engines, modelopt_package, runtime_cache
from ..torch_trt.dynamic_inputs import DynamicInputs
from . import casting, factory_calls, made_elsewhere, made_modules, process_state, stored_inputs, unused_dimensions
from .fp32_arithmetic import TF32_BACKENDS, allow_tf32, arithmetic_of
from .inference import Inference
from .output_check import Comparison


def make(
    case: Case, device: str, *, copied: bool = True, remarks: list[str] | None = None,
    made: tuple[torch.nn.Module, Inputs] | None = None,
) -> tuple[torch.nn.Module, Inputs]:  # fmt: skip
    """Call the factory; returns its module in eval mode and its inputs, cast to the case's precision, on `device`.

    They are copies: a module that was made once, at the top of a suite, is each case's as it was made. Without
    `copied` the module is the factory's own, until `end_case`, and so it is where it can't be copied. Raises
    TrtgateError when the factory raises, returns something else, inputs of another batch size, or a module that can't
    be copied for a second precision. What changes how figures are to be read goes to `remarks`. `made` is what the
    factory returned, where it was called before.
    """
    name = f"model {case.model.name!r}"
    module, inputs = factory_calls.made(case) if made is None else made
    if case.settings.batch is not None and not inputs.tensors:
        raise TrtgateError(f"{name}: its inputs must be tensors, or hold some, for a batch of {case.settings.batch}")
    unused_dimensions.check(case, module, inputs, name)
    if isinstance(module, made_elsewhere.OwnModule):
        if case.model.weights is not None:
            raise TrtgateError(f"{name}: weights can't be put into what its factory compiled itself")
        return module, inputs.cloned()
    made_modules.check_code(module, case.settings.frontend, name)
    inputs = inputs.cloned()
    own, copied = module, copied or case.model.weights is not None
    module = made_modules.copied_or_itself(module) if copied else module
    if copied and module is own:
        made_modules.check_uncopied(module, case.settings.precision, name)
    elif module is own:
        process_state.keep(made_modules.as_it_was(module))
    module = made_modules.initialised(module, inputs, name)
    made_modules.make_ordinary(module)
    if case.model.weights is not None:
        weights.load_into(module, case.model.weights, name)
    mode = made_modules.freeze(module)
    casting.check_values(module, inputs, name)
    inputs, lost = casting.cast(module, inputs, case.settings.precision, device)
    if remarks is not None:
        remarks += filter(None, (mode, lost))
    return module, inputs


def without_casting(case: Case, device: str) -> str:
    """Return what to do, as the end of a sentence, where a model runs as its factory made it alone; else empty."""
    as_made = msgspec.structs.replace(case.settings, precision=precisions.AS_IS)
    if case.settings == as_made:
        return ""
    try:
        module, inputs = make(Case(case.model, as_made), device)
        with torch.no_grad():
            inputs.call(module)
    except Exception:
        return ""
    return f"; as its factory made it, it runs: {precisions.CASTS_NOTHING}"


def dynamic_inputs(case: Case, device: str) -> DynamicInputs | None:
    """Return how the inputs of a case vary, cast and on `device`; None where nothing is dynamic.

    Raises TrtgateError for what the factory or its dimensions do not allow.
    """
    return factory_calls.dynamic(case, casting.mover(case.settings.precision, device))


@contextlib.contextmanager
def quiet_upstream() -> Iterator[None]:
    """Within: no warnings. Upstream's deprecations are not about the user's code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def import_libraries(case: Case, step: OnStep = lambda _text: None) -> None:
    """Import what a case's frontend needs, once in a process. Raises TrtgateError when that fails."""
    step("importing libraries")
    modelopt_package.expect([case.settings.precision])
    with named(case):
        frontends.get(case.settings.frontend).import_libraries()


def prepare(
    case: Case, module: torch.nn.Module, inputs: Inputs, step: OnStep, dynamic: DynamicInputs | None = None
) -> tuple[Any, float]:
    """Return what the case's frontend compiles, and the seconds that this thread computed to make it.

    Those of a CPU's clock are much the same whether other processes are at work or not.
    Raises TrtgateError for unknown compile options and what can't be exported.
    """
    compile_options.check_options(case.id, case.settings)
    import_libraries(case, step)
    return prepare_imported(case, module, inputs, step, dynamic)


def prepare_imported(
    case: Case, module: torch.nn.Module, inputs: Inputs, step: OnStep, dynamic: DynamicInputs | None = None
) -> tuple[Any, float]:
    """Return as `prepare`, by what was imported: exporting needs no torch_tensorrt. Raises as `prepare`."""
    start = time.thread_time()
    with named(case), torch.no_grad(), arithmetic_of(case), quiet_upstream():
        if case.settings.precision in precisions.QUANTIZED:
            step(f"calibrating to {case.settings.precision}")
            example = inputs if dynamic is None else dynamic.example
            module = quantized(Case(case.model, case.settings.at_optimum), module, example)
        prepared = frontends.get(case.settings.frontend).prepare(module, inputs, case.settings, step, dynamic)
    return prepared, time.thread_time() - start


def quantized(case: Case, module: torch.nn.Module, inputs: Inputs, batches: int | None = None) -> Any:
    """Return the module quantized in place to the case's precision, calibrated on the model's samples."""
    from ..suite import samples
    from ..torch_trt import quantization

    count = batches or quantization.CALIBRATION_BATCHES
    fed = samples.of(case, inputs, count, seed=samples.CALIBRATION)
    return quantization.quantize(module, case.settings.precision, fed)


def build(case: Case, module: torch.nn.Module, inputs: Inputs, step: OnStep) -> Inference:
    """Compile with the case's frontend. Raises TrtgateError for unknown compile options and failed builds."""
    dynamic = dynamic_inputs(case, str(inputs.tensors[0].device)) if case.settings.dynamic else None
    return build_prepared(case, *prepare(case, module, inputs, step, dynamic), inputs, step, dynamic)


def build_prepared(
    case: Case, prepared: Any, prepare_s: float, inputs: Inputs, step: OnStep, dynamic: DynamicInputs | None = None
) -> Inference:
    """Compile what `prepare` returned. Raises TrtgateError for failed builds."""
    with named(case), torch.no_grad(), arithmetic_of(case), quiet_upstream(), quantized_weights(case.settings):
        compiled = frontends.get(case.settings.frontend).build(prepared, inputs, case.settings, step, dynamic)
    compiled.build_s += prepare_s
    return _ready(case, Inference(compiled, inputs))


_found_tf32: list[bool] = []
"""What TF32 was set to before the first case of this process said otherwise; empty while none has."""


def release() -> None:
    """End what a case switched on in this process: how fp32 is computed, and Torch-TensorRT's CUDA graphs."""
    compile_calls.set_cudagraphs(on=False)
    for backend, value in zip(TF32_BACKENDS, _found_tf32, strict=False):
        backend.allow_tf32 = value
    _found_tf32.clear()


def end_case() -> None:
    """Let the next case feel nothing of the one at hand: neither what it switched on, nor what its factory set."""
    release()
    process_state.put_back()


def _ready(case: Case, inference: Inference) -> Inference:
    """Let the process compute as the case says until `release`, and return what is to be called."""
    release()
    _found_tf32.extend(backend.allow_tf32 for backend in TF32_BACKENDS)
    allow_tf32(case.settings.precision == "tf32")
    if case.settings.cudagraphs:
        compile_calls.set_cudagraphs(on=True)
    inference.not_capturable = dynamic_engines.not_capturable(case.settings)
    return inference


def quantized_weights(settings: Settings) -> contextlib.AbstractContextManager[None]:
    """Within: compiling can fold the weights of a quantized module."""
    if settings.precision not in precisions.QUANTIZED:
        return contextlib.nullcontext()
    from ..torch_trt import quantization

    return quantization.compiling()


@contextlib.contextmanager
def named(case: Case) -> Iterator[None]:
    """Within: what goes wrong names the case and its frontend; no memory is for the caller to tell."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except TrtgateError as error:
        raise TrtgateError(f"case {case.id}: {error}") from error
    except Exception as error:
        raise TrtgateError(f"case {case.id}: {case.settings.frontend} could not build it: {one_line(error)}") from error


def figures(inference: Inference, compared: Comparison, builders: int = 1) -> Build:
    """Return what building gave; `builders` processes were at work at once."""
    sizes, found = inference.compiled.engine_bytes, inference.compiled.coverage
    return Build(
        build_s=inference.compiled.build_s,
        engines=len(sizes),
        engine_bytes=sum(sizes),
        leaf_error=compared.leaf_error,
        leaves=compared.counted,
        ways=compared.ways,
        pytorch_operators=None if found is None else found.in_pytorch,
        builders=builders,
    )


def save(case: Case, inference: Inference, folder: Path) -> bool:
    """Store what a worker needs to load the case; returns False when the frontend stores nothing."""
    if not frontends.stores(case):
        return False
    with quiet_upstream():
        if case.settings.frontend == OWN:
            made_elsewhere.save(case, inference.compiled.run, folder)
        else:
            frontends.get(case.settings.frontend).save(inference.compiled, inference.inputs, folder)
    stored_inputs.save(inference.inputs, folder)
    return True


def load(case: Case, folder: Path, device: str, *, kernels: bool = True) -> Inference:
    """Load what `save` stored, with its runtime cache unless `kernels` is off. Unpickles: only this user's own."""
    import_libraries(case)
    inputs = stored_inputs.load(folder, device)
    own = case.settings.frontend == OWN
    compiled = made_elsewhere.load(case, folder) if own else frontends.get(case.settings.frontend).load(folder)
    if kernels and case.settings.uses_tensorrt:
        compiled.runtime_cache = runtime_cache.load(folder)
    dynamic_engines.prepare((compiled.run,), case.settings, compiled.runtime_cache)
    return _ready(case, Inference(compiled, inputs))
