"""A compiled module with its inputs: what is called, timed and put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..frontends import CompiledModule
from ..suite.model_inputs import Inputs
from ..timing.run_state import RunState


class Inference:
    """A compiled module together with its inputs; calling it is one inference."""

    def __init__(
        self,
        compiled: CompiledModule,
        inputs: Inputs,
        state: RunState | None = None,
        changes: Sequence[str] = (),
    ) -> None:
        self.compiled = compiled
        self.inputs = inputs
        self._state = state
        self.changes = tuple(changes)
        """Names of what a call changes beside its output."""
        self._given: Inputs | None = None
        self._rewrites = any(name in inputs.containers for name in changes)
        self.not_capturable = ""
        """Why a CUDA graph of it would not be what it runs later; empty where it would."""

    def with_state(self, inputs: Inputs, state: RunState, changes: Sequence[str]) -> Inference:
        """Return the same module, called with inputs, and what its calls change put back."""
        found = Inference(self.compiled, inputs, state, changes)
        found.not_capturable = self.not_capturable
        return found

    def with_inputs(self, inputs: Inputs) -> Inference:
        """Return the same module, called with other inputs of the same structure; nothing is put back."""
        return Inference(self.compiled, inputs, changes=self.changes)

    def state_after(self) -> dict[str, Any]:
        """Return what calls change as it is now, by name, as far as it can be seen here."""
        return {} if self._state is None else self._state.values(self.changes, self.inputs, self.given.containers)

    @property
    def given(self) -> Inputs:
        """What the last call was given."""
        return self._given or self.inputs

    def place_inputs(self) -> Inputs:
        """Copy the inputs to newly allocated memory; returns them there. Those of before stay as they are."""
        self.restore()
        self.inputs = self.inputs.cloned()
        return self.inputs

    def restore(self, placed: Inputs | None = None) -> None:
        """Put back what calls changed: buffers, attributes and inputs are as they were when it was built or loaded.

        `placed` are the inputs in another place, where a capture reads them.
        """
        if self._state is not None:
            self._state.restore(self.inputs if placed is None else placed)

    def __call__(self) -> Any:
        """Run once."""
        with torch.no_grad():
            if not self._rewrites:  # else each call gets them anew, which takes time
                return self.inputs.given_to(self.compiled.run)
            self._given = self.inputs.fresh()
            return self._given.given_to(self.compiled.run)
