"""What the user compiled: the factory's callable is measured as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..common.errors import TrtgateError, one_line
from ..common.steps import OnStep
from ..suite.settings import Settings
from .frontend import CompiledModule, Frontend
from .unstored_base import Unstored

if TYPE_CHECKING:
    from ..suite.model_inputs import Inputs
    from ..torch_trt.dynamic_inputs import DynamicInputs


class Own(Unstored):
    """Builds nothing: the factory did."""

    stores = "what save= of its model writes; without it every launch calls the factory"

    def unavailable(self) -> str:
        """Return "": the factory says what it needs."""
        return ""

    def build(
        self,
        prepared: Any,
        inputs: Inputs,
        settings: Settings,  # noqa: ARG002
        step: OnStep,
        dynamic: DynamicInputs | None = None,  # noqa: ARG002
    ) -> CompiledModule:
        """Call it once, if nobody has yet. What that makes of it stays: a graph for each shape, for instance."""
        from ..timing import run_state
        from ..torch_trt import engine_sizes

        if prepared.first_call_s is None:
            step("the first call")
            with run_state.unchanged((), inputs):
                _call(prepared, inputs)
        return CompiledModule(
            prepared.run,
            prepared.build_s + prepared.first_call_s,
            tuple(engine_sizes.of(prepared.run)),
            prepared.coverage,
            prepared.parts,
        )


def _call(prepared: Any, inputs: Inputs) -> None:
    import torch

    try:
        inputs.call(prepared.call)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        raise TrtgateError(
            f"its callable can't run its own example inputs of shape {inputs.shapes}: {one_line(error)}"
        ) from error


FRONTEND: Frontend = Own()
