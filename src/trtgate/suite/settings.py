"""Settings: how a model is compiled and fed, what of it is in a case's id, and what goes with what."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import msgspec

from ..common.errors import TrtgateError
from ..common.limits import checked as checked_limits
from . import declared_values, dimensions, precisions
from .dimensions import BATCH, Sizes
from .expected_failures import ExpectedFailure
from .quarantines import Quarantine
from .tolerances import checked as checked_tolerances

FRONTENDS = ("eager", "aot_eager", "inductor", "torch_compile", "dynamo", "ts_trace", "ts_script", "fx", "own")
"""Names that `Settings.frontend` takes; each is a module of `trtgate.frontends`."""
TENSORRT_FRONTENDS = frozenset({"torch_compile", "dynamo", "ts_trace", "ts_script", "fx"})
"""Those that build TensorRT engines."""
DYNAMO_FRONTENDS = frozenset({"torch_compile", "dynamo"})
"""Those that lower a graph and partition it: their coverage can be asked, their layers profiled."""
OWN = "own"
"""The frontend of callables that a factory compiled itself: nothing is cast, and no setting of ours has a say."""
TORCHSCRIPT_FRONTENDS = frozenset({"ts_trace", "ts_script"})
QUANTIZABLE_FRONTENDS = frozenset({"dynamo"})
"""Those that take a module that nvidia-modelopt quantized."""

PRECISIONS = tuple(precisions.ALL)
"""Names that `Settings.precision` takes."""

INDUCTOR_MODES = ("default", "reduce-overhead", "max-autotune")
"""`torch.compile(mode=…)`."""
RUNTIMES = ("", "cpp", "python")
"""Torch-TensorRT's; empty for the one that the installed version takes by itself."""
SPECIALIZATIONS = ("eager", "lazy", "none")
"""When TensorRT-RTX compiles kernels for a dynamic shape: at its first call, in the background, or never."""
VERBOSITIES = ("none", "layer_names_only", "detailed")
"""`ProfilingVerbosity`: what an engine remembers of its layers."""
DEFAULT_MIN_BLOCK_SIZE = 5  # CompilationSettings' own default from 2.11 to 2.14, pinned so that ids stay true
OPTIMIZATION_LEVELS = range(6)

OptionValue = bool | int | float | str
OWN_FIELDS = {
    "min_block_size": "min_block_size", "torch_executed_ops": "torch_executed_ops", "enabled_precisions": "precision",
    "use_explicit_typing": "precision", "use_python_runtime": "runtime", "dryrun": "",
}  # fmt: skip
"""Options of Torch-TensorRT that settings say otherwise → the field that does; empty where nothing may."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is compiled and fed.

    Parameters
    ----------
    frontend, precision
        Names as `trtgate.grid` takes them; the precision `as_is` casts nothing.
    batch
        Leading dimension of the inputs; None for a factory that takes no `batch`.
    shape
        Sizes of the other dimensions by name, such as `{"seq": 128}`; the factory is called with them.
    dynamic
        Dimensions that vary in one compiled module, by name: (minimum, optimum, maximum), or a list of such ranges,
        one for each optimization profile. The module is compiled at the optimum and measured at `batch` and `shape`,
        which lie between minimum and maximum. Empty: the module is compiled for `batch` and `shape` alone.
    dynamic_batch
        A shorthand for `dynamic={"batch": …}`; None once the settings are made.
    specialization
        When TensorRT-RTX compiles kernels for a dynamic shape: `eager`, `lazy`, `none`.
    min_block_size
        Smallest number of operators in an engine; for frontends that use TensorRT only.
    torch_executed_ops
        Operators that stay in PyTorch, such as `aten.relu` (all overloads) or `aten.relu.default`.
    options
        Further fields of `torch_tensorrt.dynamo.CompilationSettings` by name, or arguments of
        `torch_tensorrt.ts.compile` for TorchScript; checked against the installed version before the build.
    mode
        Mode of Inductor: `default`, `reduce-overhead`, `max-autotune`.
    runtime
        Runtime of Torch-TensorRT: `cpp`, `python`, or empty for the default of the installed release.
    cudagraphs
        Whether Torch-TensorRT's own CUDA-graph mode is on.
    profiling_verbosity
        Details of layers in engines: `none`, `layer_names_only`, `detailed`. The default, `detailed`, changes names
        only, and is not part of the id.
    needs_gpu
        Whether the case is measured on a GPU only. Not part of the id.
    limits
        Largest tolerated change for the worse by metric, a fraction or a text such as `0.5%`. Not part of the id.
    tolerances
        Largest difference of single output tensors from eager, by path (`output[1]`, `output.logits`) or last name
        (`scores`): the relative L2 error; for integers and booleans the share of values. Other tensors keep the
        tolerance of the precision. Not part of the id.
    quarantine, expected_failure
        Results of `trtgate.quarantine` and `trtgate.expected_failure`. Not part of the id.

    """

    frontend: str
    precision: str = "fp32"
    batch: int | None = None
    shape: dict[str, int] = {}
    dynamic: dict[str, tuple[tuple[int, int, int], ...]] = {}
    dynamic_batch: tuple[int, int, int] | None = None
    specialization: str = SPECIALIZATIONS[0]
    min_block_size: int | None = None
    torch_executed_ops: tuple[str, ...] = ()
    options: dict[str, OptionValue] = {}
    mode: str = INDUCTOR_MODES[0]
    runtime: str = RUNTIMES[0]
    cudagraphs: bool = False
    profiling_verbosity: str = VERBOSITIES[-1]
    needs_gpu: bool = False
    limits: dict[str, float] = {}
    tolerances: dict[str, float] = {}
    quarantine: Quarantine | None = None
    expected_failure: ExpectedFailure | None = None

    def __post_init__(self) -> None:
        one_of("frontend", self.frontend, FRONTENDS)
        one_of("precision", self.precision, PRECISIONS)
        one_of("profiling_verbosity", self.profiling_verbosity, VERBOSITIES)
        one_of("mode", self.mode, INDUCTOR_MODES)
        one_of("runtime", self.runtime, RUNTIMES)
        one_of("specialization", self.specialization, SPECIALIZATIONS)
        self._check_shape()
        executed = declared_values.names("torch_executed_ops", self.torch_executed_ops)
        msgspec.structs.force_setattr(self, "torch_executed_ops", executed)
        self._check_what_goes_together()
        if self.uses_tensorrt and self.min_block_size is None:
            msgspec.structs.force_setattr(self, "min_block_size", DEFAULT_MIN_BLOCK_SIZE)
        msgspec.structs.force_setattr(self, "limits", checked_limits(self.limits, "limits of settings", parsed=True))
        msgspec.structs.force_setattr(self, "tolerances", checked_tolerances(self.tolerances))
        if not isinstance(self.quarantine, Quarantine | None):
            raise TrtgateError(f'quarantine={self.quarantine!r}: write trtgate.quarantine("why", until="2026-12-31")')
        if not isinstance(self.expected_failure, ExpectedFailure | None):
            raise TrtgateError(
                f'expected_failure={self.expected_failure!r}: write trtgate.expected_failure("how", versions="2.11")'
            )

    def _check_shape(self) -> None:
        dynamic = dimensions.with_batch(self.dynamic, self.dynamic_batch)
        shape = dimensions.checked_sizes(self.shape, "shape")
        batch = shape.pop(BATCH, self.batch)
        if self.batch not in (None, batch):
            raise TrtgateError(f"batch is {self.batch}, and {batch} in shape={self.shape}: give one of them")
        if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
            raise TrtgateError(f"batch must be a positive integer, not {batch}")
        for name, value in (
            ("batch", batch), ("shape", shape), ("dynamic", dynamic), ("dynamic_batch", None)
        ):  # fmt: skip
            msgspec.structs.force_setattr(self, name, value)
        dimensions.check_held(self.dynamic, self.sizes)

    def _check_what_goes_together(self) -> None:
        name = self.frontend
        if not self.uses_tensorrt and (self.min_block_size is not None or self.torch_executed_ops or self.options):
            raise TrtgateError(
                f"frontend {name!r} builds no TensorRT engine: it takes no min_block_size, torch_executed_ops or "
                "options"
            )
        if self.min_block_size is not None and (type(self.min_block_size) is not int or self.min_block_size < 1):
            raise TrtgateError(f"min_block_size must be a positive integer, not {self.min_block_size!r}")
        for wanted, field in (
            (self.mode != INDUCTOR_MODES[0], "mode"), (bool(self.runtime), "runtime"), (self.cudagraphs, "cudagraphs"),
            (bool(self.dynamic), "dynamic"), (bool(self.torch_executed_ops), "torch_executed_ops"),
            (self.specialization != SPECIALIZATIONS[0], "specialization"),
            (bool(self.options), "options"), (self.profiling_verbosity != VERBOSITIES[-1], "profiling_verbosity"),
        ):  # fmt: skip
            if wanted and name not in FIELDS_OF[field]:
                raise TrtgateError(
                    f"frontend {name!r} takes no {field}; that is for {', '.join(sorted(FIELDS_OF[field]))}"
                )
        self._check_dynamic()
        if self.precision in precisions.QUANTIZED and name not in QUANTIZABLE_FRONTENDS:
            raise TrtgateError(
                f"frontend {name!r} takes no precision {self.precision}; that is for "
                f"{', '.join(sorted(QUANTIZABLE_FRONTENDS))}"
            )
        for option in declared_values.named("options", self.options):
            if option in OWN_FIELDS:
                field = OWN_FIELDS[option]
                hint = f"say {field}=… of the settings" if field else "trtgate sets it itself"
                raise TrtgateError(f"option {option!r} can't be given: {hint}")
        level = self.options.get("optimization_level", OPTIMIZATION_LEVELS[0])
        if level not in OPTIMIZATION_LEVELS or isinstance(level, bool):
            raise TrtgateError(f"optimization_level must be 0 to {OPTIMIZATION_LEVELS[-1]}, not {level!r}")

    def _check_dynamic(self) -> None:
        if len(dimensions.profiles_of(self.dynamic)) > 1 and self.frontend not in PROFILED_FRONTENDS:
            raise TrtgateError(
                f"frontend {self.frontend!r} takes one optimization profile; several are for "
                f"{', '.join(sorted(PROFILED_FRONTENDS))}"
            )
        if self.specialization != SPECIALIZATIONS[0] and not self.dynamic:
            raise TrtgateError(
                f'specialization={self.specialization!r} is of dynamic shapes: add dynamic={{"seq": (16, 128, 512)}}'
            )

    @property
    def sizes(self) -> Sizes:
        """Every dimension that is given, with the size that is measured: what the model is made with."""
        return {**({} if self.batch is None else {BATCH: self.batch}), **self.shape}

    @property
    def optimum(self) -> Sizes:
        """The shape that is traced: of what is dynamic the optimum, 2 at least, of the first optimization profile."""
        optima = {name: max(dimensions.TRACED_AT_LEAST, ranges[0][1]) for name, ranges in self.dynamic.items()}
        return {**self.sizes, **optima}

    @property
    def at_optimum(self) -> Settings:
        """The same, measured at the shape that is traced."""
        sizes = self.optimum
        return msgspec.structs.replace(self, batch=sizes.pop(BATCH, None), shape=sizes)

    @property
    def static(self) -> Settings:
        """The same for the one shape that is measured."""
        return msgspec.structs.replace(self, dynamic={}, specialization=SPECIALIZATIONS[0])

    @property
    def uses_tensorrt(self) -> bool:
        """Whether the frontend builds TensorRT engines."""
        return self.frontend in TENSORRT_FRONTENDS

    @property
    def partitions(self) -> bool:
        """Whether it partitions a lowered graph: its coverage can be asked, its layers profiled."""
        return self.frontend in DYNAMO_FRONTENDS

    @property
    def gpu_only(self) -> bool:
        """Whether this is left to GPUs: TensorRT, a precision that is cast to and is not fp32, or declared so."""
        return self.needs_gpu or self.uses_tensorrt or self.precision not in ("fp32", precisions.AS_IS)

    @property
    def suffix(self) -> str:
        """The part of a case's id behind the model: everything that changes the result."""
        parts = [self.frontend, self.precision, *self._shape_parts()]
        if self.min_block_size is not None:
            parts.append(f"mbs{self.min_block_size}")
        if self.torch_executed_ops:
            parts.append(f"torch={'+'.join(sorted(self.torch_executed_ops))}")
        parts += [f"{key}={value}" for key, value in sorted(self.options.items())]
        if self.mode != INDUCTOR_MODES[0]:
            parts.append(self.mode)
        if self.runtime:
            parts.append(f"runtime={self.runtime}")
        if self.cudagraphs:
            parts.append("cudagraphs")
        if self.profiling_verbosity != VERBOSITIES[-1]:
            parts.append(f"verbosity={self.profiling_verbosity}")
        return "-".join(parts)

    def _shape_parts(self) -> list[str]:
        parts = []
        if self.batch is not None:
            parts.append(f"b{self.batch}")
        if BATCH in self.dynamic:
            parts.append(f"dyn{dimensions.text_of(self.dynamic[BATCH])}")
        for name, size in self.shape.items():
            ranges = self.dynamic.get(name)
            parts.append(f"{name}{size}" if ranges is None else f"{name}{dimensions.text_of(ranges)}@{size}")
        if self.specialization != SPECIALIZATIONS[0]:
            parts.append(f"specialization={self.specialization}")
        return parts


PROFILED_FRONTENDS = frozenset({"dynamo"})
"""Those that take several optimization profiles."""
FIELDS_OF = {
    "min_block_size": TENSORRT_FRONTENDS, "torch_executed_ops": DYNAMO_FRONTENDS | TORCHSCRIPT_FRONTENDS,
    "options": DYNAMO_FRONTENDS | TORCHSCRIPT_FRONTENDS,
    "mode": frozenset({"inductor"}), "runtime": DYNAMO_FRONTENDS, "cudagraphs": DYNAMO_FRONTENDS,
    "profiling_verbosity": DYNAMO_FRONTENDS, "dynamic_batch": DYNAMO_FRONTENDS | TORCHSCRIPT_FRONTENDS,
    "dynamic": DYNAMO_FRONTENDS | TORCHSCRIPT_FRONTENDS | {"inductor", "aot_eager"},
    "specialization": DYNAMO_FRONTENDS,
}  # fmt: skip
"""Fields that not every frontend takes → those that do."""


def fitting(frontend: str, **fields: Any) -> Settings:
    """Return settings of a frontend without what it does not take; `own` casts nothing. Raises TrtgateError as they."""
    fields |= {"precision": precisions.AS_IS} if frontend == OWN else {}
    taken = {name: value for name, value in fields.items() if frontend in FIELDS_OF.get(name, FRONTENDS)}
    return Settings(frontend=frontend, **taken)


def one_of(what: str, value: str, known: Iterable[str]) -> None:
    """Raise TrtgateError, naming the nearest, for a value that is none of those known."""
    names = list(known)
    if value not in names:
        close = difflib.get_close_matches(str(value), names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(filter(None, names)) or 'none'}"
        raise TrtgateError(f"unknown {what} {value!r}; {hint}")
