"""How a suite declares its models: a decorator for factories, and a grid of settings.

Nothing here imports torch, so that collecting stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

from ..common.errors import TrtgateError
from ..common.limits import checked as checked_limits
from . import declared_values, dimensions
from .cases import Model
from .dimensions import BATCH
from .expected_failures import ExpectedFailure
from .precisions import QUANTIZED
from .quarantines import Quarantine
from .settings import (
    DEFAULT_MIN_BLOCK_SIZE,
    INDUCTOR_MODES,
    QUANTIZABLE_FRONTENDS,
    RUNTIMES,
    SPECIALIZATIONS,
    VERBOSITIES,
    OptionValue,
    Settings,
    fitting,
)

DEFAULT_FRONTENDS = ("eager", "inductor", "dynamo")


def grid(
    frontends: Iterable[str] = DEFAULT_FRONTENDS,
    precisions: Iterable[str] = ("fp32",),
    batches: Iterable[int | None] = (None,),
    *,
    min_block_sizes: Iterable[int] = (DEFAULT_MIN_BLOCK_SIZE,),
    modes: Iterable[str] = INDUCTOR_MODES[:1],
    runtimes: Iterable[str] = RUNTIMES[:1],
    cudagraphs: Iterable[bool] = (False,),
    shapes: Iterable[Mapping[str, Any]] = ({},),
    dynamic: Mapping[str, Any] | None = None,
    at: Iterable[Mapping[str, Any]] | None = None,
    dynamic_batch: tuple[int, int, int] | None = None,
    specialization: str = SPECIALIZATIONS[0],
    torch_executed_ops: Iterable[str] = (),
    options: Mapping[str, OptionValue] | None = None,
    profiling_verbosity: str = VERBOSITIES[-1],
    needs_gpu: bool = False,
    limits: Mapping[str, float | str] | None = None,
    tolerances: Mapping[str, float] | None = None,
    quarantine: Quarantine | None = None,
    expected_failure: ExpectedFailure | None = None,
) -> tuple[Settings, ...]:
    """Return the settings of every combination of the given values; a frontend ignores values that it does not take.

    Block sizes, excluded operators and options are for frontends that use TensorRT, `modes` for Inductor, `runtimes`
    and `cudagraphs` for `dynamo` and `torch_compile`. A quantized precision applies only to the frontends that take
    it. The frontend `own` ignores precisions: its factory decides them.

    Parameters
    ----------
    frontends
        Names of frontends: `eager`, `inductor`, `aot_eager`, `dynamo`, `torch_compile`, `ts_trace`, `ts_script`, `fx`,
        `own`.
    precisions
        Names of precisions: `fp32`, `tf32`, `fp16`, `bf16`, quantized ones such as `int8` and `fp8`, or `as_is`, which
        casts nothing.
    batches
        Values of the factory's parameter `batch`; None for a factory that has none.
    min_block_sizes
        Smallest numbers of operators in an engine; a smaller group stays in PyTorch.
    modes
        `torch.compile(mode=…)` of Inductor: `default`, `reduce-overhead`, `max-autotune`.
    runtimes
        Runtimes of Torch-TensorRT: `cpp`, `python`, or empty for the default of the installed release.
    cudagraphs
        Whether Torch-TensorRT's own CUDA-graph mode is on.
    shapes
        Sizes of other dimensions, such as `[{"seq": 128}, {"seq": 512}]`; each is compiled separately. A shape may have
        its own `"limits"`.
    dynamic
        Dimensions that vary in one compiled module: name to (minimum, optimum, maximum), such as
        `{"seq": (16, 128, 512)}`, or to a list of them, an optimization profile each.
    at
        Shapes at which a dynamic module is measured; by default the optimum. A frontend that takes no dynamic shapes
        compiles for each of them.
    dynamic_batch
        A shorthand for `dynamic={"batch": …}`.
    specialization
        When TensorRT-RTX compiles kernels for a dynamic shape: `eager`, `lazy`, `none`.
    torch_executed_ops
        Operators that stay in PyTorch, such as `aten.relu` (all overloads) or `aten.relu.default`.
    options
        Further fields of `torch_tensorrt.dynamo.CompilationSettings` by name, such as `{"optimization_level": 3}`.
    profiling_verbosity
        Details of layers in engines: `none`, `layer_names_only`, `detailed`.
    needs_gpu
        Whether the cases need a GPU.
    limits
        Metric to its largest tolerated change for the worse, a fraction or a text such as `"0.5%"`.
    tolerances
        Path of an output tensor (`output[1]`, `scores`) to its largest difference from eager: the relative L2 error;
        for integers and booleans the share of values.
    quarantine, expected_failure
        Results of `trtgate.quarantine` and `trtgate.expected_failure`.

    Returns
    -------
    tuple of Settings
        Each combination once, in the order of the arguments; the last argument varies fastest.

    Raises
    ------
    TrtgateError
        If a frontend, a precision or a metric is unknown, a value is no limit, or bounds contradict each other.

    """
    ranges, several = dimensions.checked_ranges(dynamic or {}), declared_values.several
    frontends, precisions = several("frontends", frontends), several("precisions", precisions)
    batches, torch_executed_ops = (
        several("batches", batches),
        several("torch_executed_ops", torch_executed_ops, least=0),
    )
    fixed = {
        "dynamic_batch": dynamic_batch, "specialization": specialization, "torch_executed_ops": torch_executed_ops,
        "options": declared_values.named("options", options),
        "profiling_verbosity": profiling_verbosity, "needs_gpu": needs_gpu, "quarantine": quarantine,
        "expected_failure": expected_failure, "dynamic": ranges,
        "tolerances": {} if tolerances is None else tolerances,
    }  # fmt: skip
    quantizable = QUANTIZABLE_FRONTENDS & set(frontends)
    common = checked_limits(limits or {}, "limits of a grid")
    measured = dimensions.points(batches, shapes, dimensions.with_batch(ranges, dynamic_batch), at)
    found: dict[str, Settings] = {}
    for frontend, precision, point, block_size, mode, runtime, graphs in product(
        frontends, precisions, measured, min_block_sizes, modes, runtimes, cudagraphs
    ):
        if precision in QUANTIZED and quantizable and frontend not in quantizable:
            continue
        settings = fitting(
            frontend, precision=precision, shape=point.sizes, min_block_size=block_size,
            mode=mode, runtime=runtime, cudagraphs=graphs,
            limits={**common, **checked_limits(point.limits, "limits of a shape")}, **fixed,
        )  # fmt: skip
        found.setdefault(settings.suffix, settings)
    return tuple(found.values())


def model(
    factory: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    frontends: Iterable[str] = DEFAULT_FRONTENDS,
    precisions: Iterable[str] = ("fp32", "fp16"),
    batches: Iterable[int] | None = None,
    min_block_size: int = DEFAULT_MIN_BLOCK_SIZE,
    limits: Mapping[str, float | str] | None = None,
    samples: Callable[..., Any] | None = None,
    weights_said: str = "random weights",
    inputs: Callable[..., Any] | None = None,
    dynamic_shapes: Any = None,
    save: Callable[..., Any] | None = None,
    load: Callable[..., Any] | None = None,
    parts: Iterable[str] = (),
    **more: Any,
) -> Any:
    """Declare a model: decorate its factory with `@trtgate.model`, or with `@trtgate.model(batches=(1, 8))`.

    The factory returns `(module in eval mode, example inputs)` or `(module, args, kwargs)`. If the inputs are a
    mapping, they are keyword arguments. The factory's parameters are the model's dimensions: `batch` takes each value
    of `batches`, other parameters take the sizes of `shapes`, or of `dynamic` and `at`. Seed random numbers, because
    every process that measures calls the factory.

    Parameters
    ----------
    factory
        The decorated function, if the decorator is used without parentheses.
    name
        The model's name; by default the function's.
    frontends, precisions, min_block_size
        As `grid` takes them.
    batches
        As `grid` takes them; `(1,)` by default if the factory takes `batch`.
    limits
        Metric to its largest tolerated change for the worse, a fraction or a text such as `"0.5%"`.
    samples
        `samples(count, seed)` yields `count` different realistic inputs, with the shapes of the factory's at batch 1.
        They calibrate quantization and measure accuracy. By default they are drawn from the normal distribution.
    weights_said
        A short description of the weights, shown beside accuracy.
    inputs
        A function of the dimensions that returns example inputs; the factory then returns the module alone.
    dynamic_shapes
        The argument `dynamic_shapes` of `torch.export.export`, or a function that returns it. By default trtgate
        derives it from the inputs at several sizes.
    save, load
        For the frontend `own`: `save(run, folder)` writes the factory's callable, `load(folder)` reads it in another
        process. Without them each process calls the factory.
    parts
        Names such as `("prefill", "decode")`: the factory returns a mapping from each name to what a factory returns,
        and each part is a separate model, `name.prefill`.
    more
        Further keywords of `grid`, such as `tolerances={"scores": 1e-2}`.

    Returns
    -------
    Model
        The model; without `factory`, a decorator that returns it.

    Raises
    ------
    TrtgateError
        If a keyword is unknown, or `grid` or `Model` refuses a value.

    """

    def wrap(function: Callable[..., Any]) -> Model:
        declared_values.check_callable("trtgate.model: the factory", function)
        one = BATCH in dimensions.of(inputs or function).names and BATCH not in (more.get("dynamic") or {})
        declared_values.check_keywords("trtgate.model", more, grid, dynamic_shapes)
        wanted: Iterable[int | None] = ((1,) if one else (None,)) if batches is None else batches
        if min_block_size != DEFAULT_MIN_BLOCK_SIZE and "min_block_sizes" in more:
            raise TrtgateError("trtgate.model: min_block_size and min_block_sizes are both given: leave one out")
        settings = grid(frontends, precisions, wanted, **({"min_block_sizes": (min_block_size,)} | more))
        made = Model(
            declared_values.name_of(function, name), function, settings, inputs=inputs, dynamic_shapes=dynamic_shapes,
            limits=limits, samples=samples, weights_said=weights_said, save=save, load=load, parts=parts,
        )  # fmt: skip
        decorated.append(made)
        return made

    return wrap if factory is None else wrap(factory)


decorated: list[Model] = []
"""What `model` made, in order."""
