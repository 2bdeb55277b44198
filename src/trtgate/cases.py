"""Models, settings and cases: what is compiled how, under which id, and how a subset is chosen.

Nothing here imports torch, so that collecting stays fast: factories import what they need when they are called.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

import msgspec

from .errors import TrtgateError
from .limits import checked as checked_limits
from .quarantines import Quarantine

FRONTENDS = ("eager", "inductor", "torch_compile", "dynamo")
"""Names that `Settings.frontend` takes; each is a module of `trtgate.frontends`."""

DEFAULT_FRONTENDS = ("eager", "inductor", "dynamo")

PRECISIONS = ("fp32", "fp16")
"""Names that `Settings.precision` takes: the dtype that weights and floating-point inputs are cast to."""

TENSORRT_FRONTENDS = frozenset({"torch_compile", "dynamo"})
VERBOSITIES = ("none", "layer_names_only", "detailed")
"""`ProfilingVerbosity`: what an engine remembers of its layers."""
DEFAULT_MIN_BLOCK_SIZE = 5  # CompilationSettings' own default from 2.11 to 2.14, pinned so that ids stay true

OptionValue = bool | int | float | str


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is compiled and fed.

    Parameters
    ----------
    frontend, precision
        One of `FRONTENDS`, one of `PRECISIONS`.
    batch
        Leading dimension of the inputs; None for a factory that takes no `batch`.
    min_block_size
        Least operators of an engine; only for frontends that lead to TensorRT.
    torch_executed_ops
        Operators that stay in PyTorch, such as `aten.relu` (all overloads) or `aten.relu.default`.
    options
        Further fields of `torch_tensorrt.dynamo.CompilationSettings` by name; checked against the installed
        version before anything is compiled.
    profiling_verbosity
        What its engines remember of their layers, one of `VERBOSITIES`; detailed by default, which changes names and
        nothing else. Only another one is part of the id.
    needs_gpu
        Measured on a GPU only. Part of where a case runs, not of what it is, so not of its id.
    limits
        Largest tolerated changes per metric, as fractions or as texts such as `0.5%`. Not part of the id.
    quarantine
        Why the case fails nothing for now; what `trtgate.quarantine` makes. Not part of the id.

    """

    frontend: str
    precision: str = "fp32"
    batch: int | None = None
    min_block_size: int | None = None
    torch_executed_ops: tuple[str, ...] = ()
    options: dict[str, OptionValue] = {}
    profiling_verbosity: str = VERBOSITIES[-1]
    needs_gpu: bool = False
    limits: dict[str, float] = {}
    quarantine: Quarantine | None = None

    def __post_init__(self) -> None:
        _one_of("frontend", self.frontend, FRONTENDS)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("profiling_verbosity", self.profiling_verbosity, VERBOSITIES)
        if self.batch is not None and self.batch < 1:
            raise TrtgateError(f"batch must be a positive integer, not {self.batch}")
        if not self.uses_tensorrt and (self.min_block_size is not None or self.torch_executed_ops or self.options):
            raise TrtgateError(
                f"frontend {self.frontend!r} builds no TensorRT engine: it takes no min_block_size, "
                "torch_executed_ops or options"
            )
        if self.min_block_size is not None and self.min_block_size < 1:
            raise TrtgateError(f"min_block_size must be a positive integer, not {self.min_block_size}")
        if self.uses_tensorrt and self.min_block_size is None:
            msgspec.structs.force_setattr(self, "min_block_size", DEFAULT_MIN_BLOCK_SIZE)
        msgspec.structs.force_setattr(self, "limits", checked_limits(self.limits, "limits of settings"))
        if not isinstance(self.quarantine, Quarantine | None):
            raise TrtgateError(f'quarantine={self.quarantine!r}: write trtgate.quarantine("why", until="2026-12-31")')

    @property
    def uses_tensorrt(self) -> bool:
        """Whether the frontend builds TensorRT engines."""
        return self.frontend in TENSORRT_FRONTENDS

    @property
    def gpu_only(self) -> bool:
        """Whether a CPU can't run this: TensorRT, half precision, or declared so."""
        return self.needs_gpu or self.uses_tensorrt or self.precision != "fp32"

    @property
    def suffix(self) -> str:
        """The part of a case's id behind the model: everything that changes the result."""
        parts = [self.frontend, self.precision]
        if self.batch is not None:
            parts.append(f"b{self.batch}")
        if self.min_block_size is not None:
            parts.append(f"mbs{self.min_block_size}")
        if self.torch_executed_ops:
            parts.append(f"torch={'+'.join(sorted(self.torch_executed_ops))}")
        parts += [f"{key}={value}" for key, value in sorted(self.options.items())]
        if self.profiling_verbosity != VERBOSITIES[-1]:
            parts.append(f"verbosity={self.profiling_verbosity}")
        return "-".join(parts)


class Model:
    """A named factory of a module in eval mode and its example inputs, and the settings it is measured under.

    Calling it calls the factory. `limits` are largest tolerated changes per metric, as `Settings` has them, whose win.
    """

    def __init__(
        self,
        name: str,
        factory: Callable[..., Any],
        settings: Iterable[Settings],
        *,
        limits: Mapping[str, float | str] | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.]+", name):
            raise TrtgateError(f"model name {name!r}: use letters, digits, '_' and '.' only, '-' separates ids")
        self.name = name
        self.factory = factory
        self.takes_batch = _takes_batch(factory)
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
    torch_executed_ops: Iterable[str] = (),
    options: Mapping[str, OptionValue] | None = None,
    profiling_verbosity: str = VERBOSITIES[-1],
    needs_gpu: bool = False,
    limits: Mapping[str, float | str] | None = None,
    quarantine: Quarantine | None = None,
) -> tuple[Settings, ...]:
    """Every combination of the given values; block sizes, excluded operators and options are for TensorRT alone.

    Raises TrtgateError for an unknown frontend, precision or metric, and for a value that is no limit.
    """
    block_sizes, executed = tuple(min_block_sizes), tuple(torch_executed_ops)
    fractions = checked_limits(limits or {}, "limits of a grid")
    return tuple(
        Settings(
            frontend=frontend,
            precision=precision,
            batch=batch,
            min_block_size=block_size,
            torch_executed_ops=executed if frontend in TENSORRT_FRONTENDS else (),
            options=dict(options or {}) if frontend in TENSORRT_FRONTENDS else {},
            profiling_verbosity=profiling_verbosity if frontend in TENSORRT_FRONTENDS else VERBOSITIES[-1],
            needs_gpu=needs_gpu,
            limits=fractions,
            quarantine=quarantine,
        )
        for frontend, precision, batch in product(frontends, precisions, batches)
        for block_size in (block_sizes if frontend in TENSORRT_FRONTENDS else (None,))
    )


def model(
    factory: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    frontends: Iterable[str] = DEFAULT_FRONTENDS,
    precisions: Iterable[str] = ("fp32", "fp16"),
    batches: Iterable[int] | None = None,
    min_block_size: int = DEFAULT_MIN_BLOCK_SIZE,
    torch_executed_ops: Iterable[str] = (),
    options: Mapping[str, OptionValue] | None = None,
    profiling_verbosity: str = VERBOSITIES[-1],
    limits: Mapping[str, float | str] | None = None,
    quarantine: Quarantine | None = None,
) -> Any:
    """Make a `Model` of a factory: `@trtgate.model` or `@trtgate.model(batches=(1, 8))`.

    The factory returns `(module in eval mode, example inputs)`. One with a parameter `batch` is called with
    each of `batches` (1 by default); one without is used as it is. Seed what is random: every launch calls it.
    """

    def wrap(function: Callable[..., Any]) -> Model:
        wanted: Iterable[int | None] = batches or ((1,) if _takes_batch(function) else (None,))
        settings = grid(
            frontends,
            precisions,
            wanted,
            min_block_sizes=(min_block_size,),
            torch_executed_ops=torch_executed_ops,
            options=options,
            profiling_verbosity=profiling_verbosity,
            quarantine=quarantine,
        )
        return Model(name or function.__name__, function, settings, limits=limits)

    return wrap if factory is None else wrap(factory)


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
            _one_of("model", wanted, names)
        for wanted in selection.frontends:
            _one_of("frontend", wanted, FRONTENDS)
        for wanted in selection.precisions:
            _one_of("precision", wanted, PRECISIONS)
        found = [case for case in self.cases.values() if selection.takes(case)]
        if not found:
            raise TrtgateError(f"no case fits the selection {selection.describe()}")
        return found


def _takes_batch(factory: Callable[..., Any]) -> bool:
    try:
        return "batch" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False


def _one_of(what: str, value: str, known: Iterable[str]) -> None:
    names = list(known)
    if value not in names:
        close = difflib.get_close_matches(value, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names) or 'none'}"
        raise TrtgateError(f"unknown {what} {value!r}; {hint}")
