"""The assertion for a test of the user's own: TensorRT takes all of a model."""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ..common.errors import TrtgateError, one_line
from ..common.explanations import Explanation, explained
from ..compiling import made_modules
from ..records.coverage_record import Coverage
from ..suite import declared_values, dimensions, model_inputs, precisions
from ..suite.cases import Case, Model
from ..suite.dimensions import BATCH
from ..suite.model_inputs import Inputs
from ..suite.settings import DEFAULT_MIN_BLOCK_SIZE, OptionValue, Settings
from . import coverage_complaint, dry_run


def assert_supported(
    module: torch.nn.Module | Callable[..., Any],
    inputs: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    min_block_size: int = DEFAULT_MIN_BLOCK_SIZE,
    precision: str = "fp32",
    frontend: str = "dynamo",
    torch_executed_ops: Iterable[str] = (),
    options: Mapping[str, OptionValue] | None = None,
    batch: int | None = None,
    shapes: Iterable[Mapping[str, int]] = ({},),
    dynamic: Mapping[str, Any] | None = None,
    engines: int | None = None,
    left: Iterable[str] = (),
) -> Coverage:
    """Assert, without a GPU, that TensorRT takes all operators of a model at a `min_block_size`.

    Parameters
    ----------
    module, inputs, kwargs
        A module and its example inputs: a tensor, a tuple or list of positional arguments, or a mapping of keyword
        arguments, nested as `forward` takes them; with `kwargs`, `inputs` is the positional arguments. `module` may
        also be a factory that returns all of them, such as a `trtgate.model`, whose parts are all checked. `inputs`
        may be a function of dimensions, such as `lambda seq: torch.ones(1, seq)`. The module is copied and does not
        change; a module that can't be copied is checked itself, if its weights have the precision already.
    precision
        Name as `trtgate.grid` takes it; weights and floating-point inputs are cast to it, or quantized.
    frontend
        "dynamo" (exported program) or "torch_compile"; with "torch_compile" a graph break fails.
    options
        Further fields of `torch_tensorrt.dynamo.CompilationSettings`, by name.
    batch
        Argument `batch` of the factory, 1 by default; for a module the leading dimension of its inputs.
    shapes
        Sizes of the dimensions of a factory or of `inputs`, such as `[{"seq": 128}, {"seq": 512}]`: checked one by one.
    dynamic
        Dimensions that vary in one compiled module, such as `{"seq": (16, 128, 512)}`: minimum, optimum and maximum.
        Example inputs have one shape, so only `batch` can vary there: it is their leading dimension.
    engines
        Largest number of engines; any number by default.
    left
        Operators that may stay in PyTorch, such as `aten.nonzero.default`.

    Returns the coverage; for several shapes or parts, the coverage of the last. Raises AssertionError if operators stay
    in PyTorch, and names them with source line, reason and advice, or says why nothing reaches TensorRT. Raises
    TrtgateError if the model can't be made or exported, or a name is unknown.
    """
    __tracebackhide__ = True
    name = getattr(module, "name", None) or getattr(module, "__name__", None) or type(module).__name__
    with contextlib.ExitStack() as stack:
        model = _model_of(module, inputs, kwargs, name, precision, stack, batch, dynamic or {})
        asked = _settings_of(
            model, batch, shapes, dynamic or {}, frontend=frontend, precision=precision,
            min_block_size=min_block_size, torch_executed_ops=tuple(torch_executed_ops), options=dict(options or {}),
        )  # fmt: skip
        for part, settings in itertools.product(model.each, asked):
            found = dry_run.ask(Case(part, settings))
            problem = coverage_complaint.complaint(found, engines=engines, left=left)
            if problem:
                at = f" at {settings.suffix}" if settings.shape else ""
                said = f"{name if part is model else part.name}{at}: {problem}"
                raise AssertionError(explained(said, Explanation.OPERATORS_LEFT))
    return found


def _model_of(
    module: Any, inputs: Any, kwargs: Any, name: str, precision: str, stack: contextlib.ExitStack, batch: int | None,
    dynamic: Mapping[str, Any],
) -> Model:  # fmt: skip
    alone = inputs is None and kwargs is None
    if alone and isinstance(module, Model):
        return module
    if alone and isinstance(module, torch.export.ExportedProgram):
        return Model(_model_name(name), lambda: module, [])
    if alone and isinstance(module, torch.nn.Module):
        inputs = _no_inputs(module, name)
    elif not declared_values.answers(module) and not isinstance(module, torch.export.ExportedProgram):
        raise TrtgateError(
            "assert_supported takes a module with its example inputs, or a factory, not "
            f"{declared_values.kind_of(module)}"
        )
    elif alone:
        return Model(_model_name(name), module, [])
    asked = stack.enter_context(_unharmed(module, precision, name))
    if callable(inputs) and not isinstance(inputs, torch.nn.Module | Mapping):
        if kwargs is not None:
            raise TrtgateError(
                f"{name}: inputs is a function, so kwargs is left out: let it return a mapping of them all"
            )
        return Model(_model_name(name), lambda: asked, [], inputs=inputs)
    whole = (asked, inputs) if kwargs is None else (asked, inputs, kwargs)
    others = sorted(set(dynamic) - {BATCH})
    if others:
        raise TrtgateError(
            f"{name}: example inputs have one {others[0]}: give inputs as a function of it, such as "
            f"lambda {others[0]}: torch.ones(1, {others[0]})"
        )
    return _of_example(whole, name, batch=batch, dynamic=BATCH in dynamic)


def _no_inputs(module: torch.nn.Module, name: str) -> tuple[Any, ...]:
    """Return no inputs, for a module that needs none. Raises TrtgateError, which says what to give, for another."""
    try:
        inspect.signature(module.forward).bind()
    except TypeError as error:
        raise TrtgateError(
            f'{name}: give its example inputs, as assert_supported(module, x), (module, (x, mask)) or (module, {{"x": '
            f"x}}), or a function of its dimensions: {error}"
        ) from error
    except ValueError:  # nobody knows its signature
        pass
    return ()


def _settings_of(
    model: Model, batch: int | None, shapes: Iterable[Mapping[str, int]], dynamic: Mapping[str, Any], **fields: Any
) -> list[Settings]:
    """Return settings for each shape that is asked for. Raises TrtgateError where they do not fit the model."""
    ranges = dimensions.checked_ranges(dynamic)
    if batch is None and model.takes_batch and BATCH not in ranges:
        batch = 1
    found: dict[Any, Settings] = {}
    for point in dimensions.points([batch], shapes, ranges, None):
        settings = Settings(shape=point.sizes, dynamic=ranges, **fields)
        found.setdefault(tuple(settings.optimum.items()), settings)
    return list(model.having(found.values()).settings)


def _model_name(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _of_example(whole: tuple[Any, ...], name: str, *, batch: int | None, dynamic: bool) -> Model:
    """Return a model of what a factory would return; its inputs are copied by whoever makes a case of it."""

    def made() -> tuple[Any, ...]:
        return whole

    asked = batch

    def of_batch(*, batch: int) -> tuple[Any, ...]:
        module, inputs = model_inputs.of_factory(whole, name)
        leads = any(value.ndim and len(value) == asked for value in inputs.tensors)
        if not dynamic and (batch == asked or not leads):
            return whole  # whoever calls a factory checks that it is the inputs'
        rows = _leading_dimension(inputs, name)
        resized = inputs.mapped(lambda value: _repeated(value, batch) if value.ndim and len(value) == rows else value)
        return module, resized.args, resized.kwargs

    return Model(_model_name(name), of_batch if dynamic or batch is not None else made, [])


def _leading_dimension(inputs: Inputs, name: str) -> int:
    sizes = {value.shape[0] for value in inputs.tensors if value.ndim}
    if len(sizes) != 1:
        raise TrtgateError(f"{name}: a dynamic batch needs inputs with one leading dimension, not {sorted(sizes)}")
    return int(sizes.pop())


def _repeated(value: torch.Tensor, batch: int) -> torch.Tensor:
    """Return a tensor with another leading dimension, its rows repeated as need be."""
    repeats = -(-batch // value.shape[0])
    return value.repeat(repeats, *(1,) * (value.ndim - 1))[:batch]


@contextlib.contextmanager
def _unharmed(module: torch.nn.Module | Any, precision: str, name: str) -> Iterator[Any]:
    """Within: a module to cast and to run, a copy or the module itself; the user's is as before afterwards.

    Raises TrtgateError for one that can't be copied and would have to be cast.
    """
    try:
        copied = made_modules.copied(module) if isinstance(module, torch.nn.Module) else copy.deepcopy(module)
    except Exception as error:
        if not isinstance(module, torch.nn.Module) or _is_changed_by(precision, module):
            raise TrtgateError(
                f"{name} can't be copied ({one_line(error)}), and {precision} would change it: give a factory that "
                "makes it"
            ) from error
        with _restored(module):
            yield module
    else:
        yield copied


def _is_changed_by(precision: str, module: torch.nn.Module) -> bool:
    wanted = precisions.ALL.get(precision)
    if wanted is None or wanted.quantized:
        return True
    dtype = getattr(torch, wanted.dtype) if wanted.dtype else None
    return any(
        is_lazy(value) or value.device.type != "cpu" or (value.is_floating_point() and dtype not in (None, value.dtype))
        for value in (*module.parameters(), *module.buffers())
    )


@contextlib.contextmanager
def _restored(module: torch.nn.Module) -> Iterator[None]:
    """Within: a module may be set to eval mode, frozen and run; afterwards it is what it was, buffers included."""
    training = [(part, part.training) for part in module.modules()]
    trained = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    buffers = [
        (part, name, value, value.clone())
        for part in module.modules()
        for name, value in part.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for part, mode in training:
            part.training = mode
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        with torch.no_grad():
            for part, name, value, before in buffers:
                setattr(part, name, value)
                value.copy_(before)
