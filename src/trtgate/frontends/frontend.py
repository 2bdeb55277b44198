"""What a frontend is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..common.steps import OnStep
from ..records.coverage_record import Coverage
from ..records.profile_record import Part
from ..suite.settings import Settings

if TYPE_CHECKING:
    from ..suite.model_inputs import Inputs
    from ..torch_trt.dynamic_inputs import DynamicInputs
    from ..torch_trt.runtime_cache import RuntimeCache


@dataclass
class CompiledModule:
    """What a frontend returns: `inputs.call(run)` is one inference."""

    run: Callable[..., Any]
    build_s: float
    engine_bytes: tuple[int, ...] = ()
    """Serialized size of each TensorRT engine."""
    coverage: Coverage | None = None
    """What the build put into engines; None where nothing goes to TensorRT."""
    parts: tuple[tuple[Part, ...], ...] = ()
    """Of each graph its engines and segments in PyTorch, in order, without layers; empty where that is not known."""
    modules: tuple[Any, ...] = ()
    """What each graph became: its submodules are the graph's parts. Empty in one that was loaded."""
    runtime_cache: RuntimeCache | None = None
    """The cache that its engines were given; None where they were given none."""


class Frontend(Protocol):
    """Builds a callable of a module that already has its precision and device."""

    stores_artifact: bool
    """Whether `save` writes something that `load` can use; else every launch builds."""
    stores: str
    """What it leaves for later processes, in a few words."""

    def unavailable(self) -> str:
        """Return why this machine can't take it, in one line; empty when it can."""

    def import_libraries(self) -> None:
        """Import what the first build or load of a process would: that is no part of their times."""

    def prepare(
        self, module: Any, inputs: Inputs, settings: Settings, step: OnStep, dynamic: DynamicInputs | None = None
    ) -> Any:
        """Return what `build` compiles: the exported program where `stores_artifact`, else the module as it is.

        `dynamic` says how inputs may vary, where they may; `inputs` are then of one of those shapes.
        """

    def build(
        self, prepared: Any, inputs: Inputs, settings: Settings, step: OnStep, dynamic: DynamicInputs | None = None
    ) -> CompiledModule:
        """Compile, and run once so that nothing is left to be compiled at the first call. `dynamic` as `prepare`."""

    def save(self, compiled: CompiledModule, inputs: Inputs, folder: Path) -> None:
        """Write the artifact into an existing, private folder."""

    def load(self, folder: Path) -> CompiledModule:
        """Load the artifact; `build_s` of the result is the time that took."""
