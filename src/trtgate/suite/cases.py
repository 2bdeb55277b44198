"""Models, settings and cases: what is compiled how, under which id, and how a subset is chosen.

Nothing here imports torch, so that collecting stays fast: factories import what they need when they are called.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

import msgspec

from ..common.errors import TrtgateError
from ..common.limits import checked as checked_limits
from . import declared_values, dimensions, model_parts
from .dimensions import BATCH
from .expected_failures import ExpectedFailure
from .precisions import QUANTIZED
from .quarantines import Quarantine
from .settings import (
    DEFAULT_MIN_BLOCK_SIZE,
    INDUCTOR_MODES,
    OWN,
    QUANTIZABLE_FRONTENDS,
    RUNTIMES,
    SPECIALIZATIONS,
    VERBOSITIES,
    OptionValue,
    Settings,
    fitting,
)

DEFAULT_FRONTENDS = ("eager", "inductor", "dynamo")


class Model:
    """A named factory of a module in eval mode and its example inputs, and the settings it is measured under.

    Calling it calls the factory, whose parameters are the model's dimensions; with `inputs`, a function of the
    dimensions that returns example inputs, the factory takes nothing and returns the module alone. `dynamic_shapes` is
    what torch.export is told of dynamic dimensions, as it takes that, or a function that returns it; without it, it
    is found from the shapes of inputs at several sizes.

    `limits` are largest tolerated changes per metric, as `Settings` has them, whose win. `samples(count, seed)` yields
    that many different inputs of the kind that the model is meant for, each shaped as the factory's at batch 1, others
    for another seed: quantization is calibrated on them, accuracy asked of them. It gets the sizes of other dimensions
    if it has parameters of their names. Without it they are drawn from the normal distribution, seeded. `weights` is a
    safetensors file with the state dict that the module gets; without it, it keeps what its factory gave it, and
    `weights_said` tells in a few words what that is wherever accuracy is shown. `save(run, folder)` and
    `load(folder)` are for the frontend `own`: what the factory compiled is written by one process and read by others,
    which otherwise call the factory.

    With `parts`, names such as `("prefill", "decode")`, the factory returns a mapping of each to what a factory
    returns, and each is a model of its own, `name.prefill`; so does `inputs`, where it is given.
    """

    def __init__(
        self,
        name: str,
        factory: Callable[..., Any],
        settings: Iterable[Settings],
        *,
        inputs: Callable[..., Any] | None = None,
        dynamic_shapes: Any = None,
        limits: Mapping[str, float | str] | None = None,
        samples: Callable[..., Any] | None = None,
        weights: str | None = None,
        weights_said: str = "random weights",
        save: Callable[..., Any] | None = None,
        load: Callable[..., Any] | None = None,
        parts: Iterable[str] = (),
    ) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.]+", name):
            raise TrtgateError(f"model name {name!r}: use letters, digits, '_' and '.' only, '-' separates ids")
        self.name = name
        self.factory = factory
        self.inputs = inputs
        self.dynamic_shapes = dynamic_shapes
        self.dimensions = _dimensions_of(factory, inputs, f"model {name!r}")
        self.takes_batch = BATCH in self.dimensions.names
        self.samples = samples
        self.weights = weights
        self.weights_said = weights_said
        self.save, self.load = save, load
        self.parts = model_parts.checked(parts, f"model {name!r}")
        self.whole = name
        """The name of the model that this is a part of; its own where it is none."""
        self.settings = tuple(settings)
        self.limits = checked_limits(limits or {}, f"model {name!r}, limits")
        for what, function in (("samples", samples), ("save", save), ("load", load)):
            if function is not None:
                declared_values.check_callable(f"model {name!r}: {what}=", function)
        if (save is None) != (load is None):
            raise TrtgateError(f"model {name!r}: save= and load= go together: what one writes the other reads")
        if save is not None and any(settings_.frontend != OWN for settings_ in self.settings):
            raise TrtgateError(f"model {name!r}: save= and load= are for the frontend {OWN!r}; trtgate stores others")
        for settings_ in self.settings:
            dimensions.check_known(settings_.sizes, self.dimensions, f"model {name!r}")

    def having(self, settings: Iterable[Settings], weights: str | None = None) -> Model:
        """Return the same model under other settings, and with other weights if a file is given."""
        found = Model(
            self.name, self.factory, settings, inputs=self.inputs, dynamic_shapes=self.dynamic_shapes,
            limits=self.limits, samples=self.samples, weights=weights or self.weights, weights_said=self.weights_said,
            save=self.save, load=self.load, parts=self.parts,
        )  # fmt: skip
        found.whole = self.whole
        return found

    @functools.cached_property
    def each(self) -> tuple[Model, ...]:
        """A model for each part, named `model.part`; itself where it has none."""
        return tuple(map(self._part, self.parts)) or (self,)

    def _part(self, part: str) -> Model:
        what = f"model {self.name!r}"
        inputs = None if self.inputs is None else model_parts.part_of(self.inputs, part, f"{what}, its inputs")
        found = Model(
            f"{self.name}.{part}", model_parts.part_of(self.factory, part, f"{what}, its factory"), self.settings,
            inputs=inputs, dynamic_shapes=self.dynamic_shapes, limits=self.limits, samples=self.samples,
            weights=self.weights, weights_said=self.weights_said, save=self.save, load=self.load,
        )  # fmt: skip
        found.whole = self.name
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the factory."""
        return self.factory(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {len(self.settings)} settings)"


class Case(msgspec.Struct, frozen=True):
    """A model under settings; `id` is the pytest parameter id and the key in every stored file."""

    model: Model
    settings: Settings

    @property
    def id(self) -> str:
        """Readable and stable, such as `resnet18-dynamo-fp16-b1-mbs5`."""
        return f"{self.model.name}-{self.settings.suffix}"

    @property
    def built_as(self) -> str:
        """The id of the case that is built for this one: the same for all shapes of one compiled module."""
        return f"{self.model.name}-{self.settings.at_optimum.suffix}"

    def __repr__(self) -> str:
        return f"<case {self.id}>"


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
    """Every combination of the given values; what a frontend does not take is left out for it.

    `shapes` are sizes of the other dimensions, such as `[{"seq": 128}, {"seq": 512}]`. `dynamic` are dimensions that
    vary in one compiled module, such as `{"seq": (16, 128, 512)}`, and `at` the shapes at which it is measured, by
    default the optimum; where a frontend takes no dynamic shapes, each of them is a static one. A shape may hold
    "limits" of its own.

    So block sizes, excluded operators and options are for frontends that lead to TensorRT, `modes` for Inductor,
    `runtimes` and `cudagraphs` for `dynamo` and `torch_compile`, quantized precisions for those that take them if one
    of them is given; the frontend `own` is as its factory made it, whatever precisions are given. Raises
    TrtgateError for an unknown frontend, precision or metric, and a value that is no limit.
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
    """Make a `Model` of a factory: `@trtgate.model` or `@trtgate.model(batches=(1, 8))`.

    The factory returns `(module in eval mode, example inputs)` or `(module, args, kwargs)`; a mapping as inputs is
    keyword arguments. Its parameters are the model's dimensions: `batch` has each of `batches` (1 by default), others
    have the sizes of `shapes` or of `dynamic` and `at`; one without parameters is used as it is. Seed what is random:
    every launch calls it. With `inputs`, a function of the dimensions that returns example inputs, the factory returns
    the module alone. With the frontend `own` it returns a callable that it compiled in the module's place, or
    `trtgate.Compiled`. `dynamic_shapes`, `samples`, `weights_said`, `save`, `load` and `parts` are the model's, `more`
    are further keywords of `grid`, such as `tolerances={"scores": 1e-2}`.
    """

    def wrap(function: Callable[..., Any]) -> Model:
        declared_values.check_callable("trtgate.model: the factory", function)
        one = BATCH in dimensions.of(inputs or function).names and BATCH not in (more.get("dynamic") or {})
        declared_values.check_keywords("trtgate.model", more, grid, dynamic_shapes)
        wanted: Iterable[int | None] = ((1,) if one else (None,)) if batches is None else batches
        settings = grid(frontends, precisions, wanted, min_block_sizes=(min_block_size,), **more)
        made = Model(
            declared_values.name_of(function, name), function, settings, inputs=inputs, dynamic_shapes=dynamic_shapes,
            limits=limits, samples=samples, weights_said=weights_said, save=save, load=load, parts=parts,
        )  # fmt: skip
        decorated.append(made)
        return made

    return wrap if factory is None else wrap(factory)


decorated: list[Model] = []
"""What `model` made, in order."""


class Suite:
    """Cases in order, by id.

    Raises TrtgateError when two cases share an id.
    """

    def __init__(self, models: Iterable[Model]) -> None:
        self.models = tuple(each for model_ in models for each in model_.each)
        self.cases: dict[str, Case] = {}
        for model_ in self.models:
            for settings in model_.settings:
                case = Case(model_, settings)
                if case.id in self.cases:
                    raise TrtgateError(f"case {case.id!r} is defined twice: give one of the two models another name")
                self.cases[case.id] = case


def _dimensions_of(factory: Callable[..., Any], inputs: Callable[..., Any] | None, what: str) -> dimensions.Dimensions:
    own = dimensions.of(factory)
    if inputs is None:
        return own
    if not callable(inputs):
        raise TrtgateError(f"{what}: inputs={inputs!r} must be a function of the dimensions that returns inputs")
    if own.required:
        raise TrtgateError(
            f"{what}: its factory takes {', '.join(sorted(own.required))}, and with inputs= it is called with nothing: "
            "let it return the module alone"
        )
    return dimensions.of(inputs)
