"""What the frontends share whose builds no other process can load: each launch builds its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.steps import OnStep
from ..suite.settings import Settings
from .frontend import CompiledModule

if TYPE_CHECKING:
    from ..suite.model_inputs import Inputs
    from ..torch_trt.dynamic_inputs import DynamicInputs


class Unstored:
    """Compiles the module as it is, and writes nothing."""

    stores_artifact = False

    def import_libraries(self) -> None:
        """Nothing but torch."""

    def prepare(
        self, module: Any, inputs: Inputs, settings: Settings, step: OnStep,  # noqa: ARG002
        dynamic: DynamicInputs | None = None,  # noqa: ARG002
    ) -> Any:  # fmt: skip
        """Return the module."""
        return module

    def save(self, compiled: CompiledModule, inputs: Inputs, folder: Path) -> None:
        """Nothing is stored."""

    def load(self, folder: Path) -> CompiledModule:
        """Not used, as nothing is stored."""
        raise NotImplementedError(f"{type(self).__name__} stores nothing in {folder}")
