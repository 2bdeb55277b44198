"""What a profile is, as data: the parts of a compiled module in execution order, their layers, and where they are from.

Imports neither torch nor TensorRT. `docs/profile.schema.json` is generated from these classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ..common.accelerator import Accelerator

SCHEMA = 1
TENSORRT, PYTORCH = "tensorrt", "pytorch"
UNKNOWN = "?"
"""The module of an operator that came without one."""


class Tensor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An input or output of a layer. `dtype` is torch's name for it; `format` is what TensorRT's inspector says."""

    name: str = ""
    shape: list[int] = []
    dtype: str = ""
    format: str = ""


class Operator(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operator of the lowered graph: `operator` as `aten.relu.default`, `node` its name there.

    `module` is the PyTorch module that it came from, such as `layer4.1.conv2`; empty for the model itself, `?` where
    that is not known.
    """

    node: str
    operator: str
    module: str = ""
    inputs: list[str] = []
    """Nodes whose results it takes; names of placeholders of the part among them."""
    shapes: list[list[int]] = []
    """Of its outputs; a symbolic dimension is -1."""
    dtypes: list[str] = []


class Layer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A layer of an engine, or an operator of a part that stays in PyTorch, in the order of execution."""

    name: str
    type: str
    tactic: str = ""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    stream: int | None = None
    """The auxiliary stream that TensorRT runs it on; None where it does not say."""
    metadata: str = ""
    """What the layer is said to be made of, where TensorRT keeps it."""
    sources: list[str] = []
    """Nodes of the part's operators that it computes, as far as that is certain."""
    modules: list[str] = []
    """PyTorch modules that it computes something of; may be certain where the single operator is not."""
    evidence: str = ""
    """What that rests on, one of `attribution.EVIDENCE`; empty when nothing is certain."""
    blocks_us: list[float] = []
    """Medians of blocks of consecutive warm calls, in microseconds; the C++ runtime gives means."""
    median_us: float = 0.0
    low_us: float = 0.0
    high_us: float = 0.0
    """`low_us` to `high_us` is the 95 % interval of the median over blocks of this one launch."""
    share: float = 0.0
    """Of the time of its part's layers."""


class Part(msgspec.Struct, kw_only=True):
    """An engine, or a segment that stays in PyTorch; parts run one after the other."""

    name: str
    kind: str
    """"tensorrt" or "pytorch"."""
    layers: list[Layer]
    operators: list[Operator] = []
    """Of the lowered graph; empty where it was not kept."""
    inputs: list[str] = []
    """Placeholders of the part, in order."""
    outputs: list[str] = []
    """Nodes whose results leave it, in order."""
    engine_bytes: int = 0
    verbosity: str = ""
    """The engine's `ProfilingVerbosity`: none, layer_names_only, detailed; empty for PyTorch."""
    problem: str = ""
    """Why it could not be profiled; its layers may be missing then."""

    @property
    def sum_us(self) -> float:
        """The time of all its layers."""
        return sum(layer.median_us for layer in self.layers)


class Breakdown(msgspec.Struct, frozen=True, kw_only=True):
    """What lies between the sum of layers and the latency without a profiler, measured; all in µs of one call."""

    kernels_us: float
    """Sum of the durations of all kernels, as CUPTI times them, without TensorRT's profiler."""
    copies_us: float
    """Of it: copies and fills."""
    between_us: float
    """Device latency less the time in which at least one kernel runs while they are traced; below 0 where tracing
    keeps kernels from following each other as closely as in a CUDA graph."""
    profiler_us: float
    """Sum of layers less that of kernels: what measuring each layer by itself adds."""


class Profile(msgspec.Struct, kw_only=True):
    """The profile of one case in one launch."""

    schema: int = SCHEMA
    case_id: str
    accelerator: Accelerator
    recorded: str
    """UTC, ISO 8601."""
    runtime: str
    """Who ran the engines: cpp, python, own; empty where there is none."""
    calls: int
    """Warm calls in which engines were measured."""
    parts: list[Part]
    device_us: float | None = None
    """Device latency in the same launch without any profiler."""
    clock: str = ""
    breakdown: Breakdown | None = None
    notes: list[str] = []

    @property
    def sum_us(self) -> float:
        """The time of all layers."""
        return sum(part.sum_us for part in self.parts)

    @property
    def attributed(self) -> float:
        """The share of the layers' time whose modules are known; 0 without layers."""
        total = self.sum_us
        known = sum(layer.median_us for _, layer in self.layers() if layer.modules)
        return known / total if total else 0.0

    def layers(self) -> Iterator[tuple[Part, Layer]]:
        """Return every layer with its part, in the order of execution."""
        for part in self.parts:
            for layer in part.layers:
                yield part, layer
