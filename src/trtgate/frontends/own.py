"""What the user compiled: the factory's callable is measured as it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ..common.steps import OnStep
from ..records.coverage_record import Coverage
from ..records.profile_record import Part
from ..suite.model_inputs import Inputs
from ..suite.settings import Settings
from ..timing import run_state
from ..torch_trt import engine_sizes
from .frontend import CompiledModule, Frontend
from .unstored_base import Unstored

if TYPE_CHECKING:
    from ..torch_trt.dynamic_inputs import DynamicInputs


class OwnModule(torch.nn.Module):
    """Stands for a callable where a module is asked for; called, it answers as the reference does.

    Both are kept as they are: neither cast nor moved, copied or put into eval mode. `build_s` are the seconds of the
    factory, `coverage` and `parts` what Torch-TensorRT was seen to partition meanwhile.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        reference: Callable[..., Any] | None,
        build_s: float,
        coverage: Coverage | None = None,
        parts: tuple[tuple[Part, ...], ...] = (),
    ) -> None:
        super().__init__()
        self.run = run
        self.reference = reference
        self.build_s, self.coverage, self.parts = build_s, coverage, parts

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the reference makes of the arguments; what the callable does, where there is no reference."""
        return (self.run if self.reference is None else self.reference)(*args, **kwargs)


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
        """Call it once."""
        step("the first call")
        start = time.perf_counter()
        with run_state.unchanged((prepared,), inputs):
            inputs.call(prepared.run)
        return CompiledModule(
            prepared.run,
            prepared.build_s + time.perf_counter() - start,
            tuple(engine_sizes.of(prepared.run)),
            prepared.coverage,
            prepared.parts,
        )


FRONTEND: Frontend = Own()
