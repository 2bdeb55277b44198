"""Models, settings and cases: what is compiled how, under which id, and how a subset is chosen.

Nothing here imports torch, so that collecting stays fast: factories import what they need when they are called.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

import msgspec

from ..common.errors import TrtgateError
from ..common.limits import checked as checked_limits
from .expected_failures import ExpectedFailure
from .precisions import QUANTIZED
from .quarantines import Quarantine
from .settings import (
    DEFAULT_MIN_BLOCK_SIZE,
    FRONTENDS,
    INDUCTOR_MODES,
    PRECISIONS,
    QUANTIZABLE_FRONTENDS,
    RUNTIMES,
    VERBOSITIES,
    OptionValue,
    Settings,
    fitting,
    one_of,
)

DEFAULT_FRONTENDS = ("eager", "inductor", "dynamo")


class Model:
    """A named factory of a module in eval mode and its example inputs, and the settings it is measured under.

    Calling it calls the factory. `limits` are largest tolerated changes per metric, as `Settings` has them, whose win.
    `samples(count, seed)` yields that many different inputs of the kind that the model is meant for, each shaped as the
    factory's at batch 1, others for another seed: quantization is calibrated on them, accuracy asked of them. Without
    it they are drawn from the normal distribution, seeded. `weights` is a safetensors file with the state dict that
    the module gets; without it, it keeps what its factory gave it, and `weights_said` tells in a few words what that is
    wherever accuracy is shown.
    """

    def __init__(
        self,
        name: str,
        factory: Callable[..., Any],
        settings: Iterable[Settings],
        *,
        limits: Mapping[str, float | str] | None = None,
        samples: Callable[..., Any] | None = None,
        weights: str | None = None,
        weights_said: str = "random weights",
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.]+", name):
            raise TrtgateError(f"model name {name!r}: use letters, digits, '_' and '.' only, '-' separates ids")
        self.name = name
        self.factory = factory
        self.takes_batch = _takes_batch(factory)
        self.samples = samples
        self.weights = weights
        self.weights_said = weights_said
        self.settings = tuple(settings)
        self.limits = checked_limits(limits or {}, f"model {name!r}, limits")
        for settings_ in self.settings:
            if (settings_.batch is not None) != self.takes_batch:
                raise TrtgateError(
                    f"model {name!r}: a batch size is asked for, and the factory takes no `batch`: add the parameter"
                    if settings_.batch is not None
                    else f"model {name!r}: the factory takes `batch`, and the settings name none: add batches=(1,)"
                )

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
    dynamic_batch: tuple[int, int, int] | None = None,
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

    So block sizes, excluded operators and options are for frontends that lead to TensorRT, `modes` for Inductor,
    `runtimes` and `cudagraphs` for `dynamo` and `torch_compile`, quantized precisions for those that take them if one
    of them is given. Raises TrtgateError for an unknown frontend, precision or metric, and a value that is no limit.
    """
    frontends = tuple(frontends)
    fixed = {
        "dynamic_batch": dynamic_batch, "torch_executed_ops": tuple(torch_executed_ops), "options": dict(options or {}),
        "profiling_verbosity": profiling_verbosity, "needs_gpu": needs_gpu, "quarantine": quarantine,
        "limits": checked_limits(limits or {}, "limits of a grid"), "expected_failure": expected_failure,
        "tolerances": {} if tolerances is None else tolerances,
    }  # fmt: skip
    quantizable = QUANTIZABLE_FRONTENDS & set(frontends)
    found: dict[str, Settings] = {}
    for frontend, precision, batch, block_size, mode, runtime, graphs in product(
        frontends, precisions, batches, min_block_sizes, modes, runtimes, cudagraphs
    ):
        if precision in QUANTIZED and quantizable and frontend not in quantizable:
            continue
        settings = fitting(
            frontend, precision=precision, batch=batch, min_block_size=block_size, mode=mode, runtime=runtime,
            cudagraphs=graphs, **fixed,
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
    **more: Any,
) -> Any:
    """Make a `Model` of a factory: `@trtgate.model` or `@trtgate.model(batches=(1, 8))`.

    The factory returns `(module in eval mode, example inputs)` or `(module, args, kwargs)`; a mapping as inputs is
    keyword arguments. One with a parameter `batch` is called with
    each of `batches` (1 by default); one without is used as it is. Seed what is random: every launch calls it.
    `samples` and `weights_said` are the model's, `more` are further keywords of `grid`, such as
    `tolerances={"scores": 1e-2}`.
    """

    def wrap(function: Callable[..., Any]) -> Model:
        _decorated.append(function)
        wanted: Iterable[int | None] = batches or ((1,) if _takes_batch(function) else (None,))
        settings = grid(frontends, precisions, wanted, min_block_sizes=(min_block_size,), **more)
        return Model(
            name or function.__name__, function, settings, limits=limits, samples=samples, weights_said=weights_said
        )

    return wrap if factory is None else wrap(factory)


_decorated: list[Callable[..., Any]] = []
"""What `model` decorated, in order."""


def made_twice(namespace: Mapping[str, Any]) -> list[str]:
    """Return the names under which a module decorated two factories at its top: the second replaced the first."""
    ours = [one for one in _decorated if getattr(one, "__globals__", None) is namespace]
    names = [one.__qualname__ for one in ours if "<locals>" not in one.__qualname__]
    return sorted({name for name in names if names.count(name) > 1})


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which cases a run takes; an empty tuple takes all."""

    models: tuple[str, ...] = ()
    frontends: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return any((self.models, self.frontends, self.precisions, self.batches))

    def describe(self) -> str:
        """Return it as the command line has it."""
        parts = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return " ".join(f"--trtgate-{name} {','.join(map(str, values))}" for name, values in parts if values)

    def takes_id(self, case_id: str) -> bool:
        """Whether it takes a case that the suite does not have any more, as far as its id tells."""
        model_name, *parts = case_id.split("-")
        wanted = (self.frontends, self.precisions, tuple(f"b{batch}" for batch in self.batches))
        named = not self.models or model_name in self.models
        return named and all(not values or set(values) & set(parts) for values in wanted)

    def takes(self, case: Case) -> bool:
        """Whether every non-empty part names this case's value."""
        settings = case.settings
        pairs: tuple[tuple[tuple[Any, ...], Any], ...] = (
            (self.models, case.model.name),
            (self.frontends, settings.frontend),
            (self.precisions, settings.precision),
            (self.batches, settings.batch),
        )
        return all(not wanted or value in wanted for wanted, value in pairs)


class Suite:
    """Cases in order, by id.

    Raises TrtgateError when two cases share an id.
    """

    def __init__(self, models: Iterable[Model]) -> None:
        self.models = tuple(models)
        self.cases: dict[str, Case] = {}
        for model_ in self.models:
            for settings in model_.settings:
                case = Case(model_, settings)
                if case.id in self.cases:
                    raise TrtgateError(f"case {case.id!r} is defined twice: give one of the two models another name")
                self.cases[case.id] = case

    def select(self, selection: Selection) -> list[Case]:
        """Return the cases that `selection` takes.

        Raises TrtgateError when it names something unknown, or no case fits it.
        """
        names = [model_.name for model_ in self.models]
        for wanted in selection.models:
            one_of("model", wanted, names)
        for wanted in selection.frontends:
            one_of("frontend", wanted, FRONTENDS)
        for wanted in selection.precisions:
            one_of("precision", wanted, PRECISIONS)
        found = [case for case in self.cases.values() if selection.takes(case)]
        if not found:
            raise TrtgateError(f"no case fits the selection {selection.describe()}")
        return found


def _takes_batch(factory: Callable[..., Any]) -> bool:
    try:
        return "batch" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False
