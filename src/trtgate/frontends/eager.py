"""PyTorch as it is: the reference that the others are compared with."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..common.steps import OnStep
from ..suite.settings import Settings
from .frontend import CompiledModule, Frontend
from .unstored_base import Unstored

if TYPE_CHECKING:
    from ..suite.model_inputs import Inputs
    from ..torch_trt.dynamic_inputs import DynamicInputs


class Eager(Unstored):
    """No compilation; the build time is that of the first call."""

    stores = "nothing: every launch makes the module anew"

    def unavailable(self) -> str:
        """Return "": eager always works."""
        return ""

    def build(
        self, prepared: Any, inputs: Inputs, settings: Settings, step: OnStep,  # noqa: ARG002
        dynamic: DynamicInputs | None = None,  # noqa: ARG002
    ) -> CompiledModule:  # fmt: skip
        """Run the module once."""
        start = time.perf_counter()
        inputs.call(prepared)
        return CompiledModule(prepared, time.perf_counter() - start)


FRONTEND: Frontend = Eager()
