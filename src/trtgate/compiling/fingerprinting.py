"""What cases are, beside the machine, on a CPU: made and exported, and neither run nor built."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.fx.config

from ..common import garbage
from ..common.errors import TrtgateError
from ..records.program_part import Fingerprint
from ..suite.cases import Case
from ..suite.model_inputs import Inputs
from ..torch_trt import compile_options, exporting, lean_tracing, patching, upstream_state
from . import building, factory_calls, program_part

DEVICE = "cpu"


class Fingerprinter:
    """Fingerprints one case after the other; those that one call of a factory makes share what it made.

    Garbage is not collected while a case is exported, and nobody asks where a node's line stands: both took a quarter
    of the time.
    """

    def __init__(self) -> None:
        self._call: Any = None
        self._made: Any = None

    def of(self, case: Case, *, fresh: bool = False, last: bool = False) -> Fingerprint:
        """Return what a case is, or why that can't be said; with `fresh` its factory is called anew.

        `last` says that no other case wants what the factory made: no copy of it is taken.
        """
        frontend = case.settings.frontend
        if frontend not in exporting.FRONTENDS:
            return Fingerprint(problem=f"the frontend {frontend} compiles no exported program")
        try:
            with lean_tracing.lean(), _no_stack_traces(), _autocast_of_a_gpu():
                return self._of(case, fresh=fresh, last=last)
        except TrtgateError as error:
            self._forget()
            return Fingerprint(problem=str(error))

    def _of(self, case: Case, *, fresh: bool, last: bool) -> Fingerprint:
        with upstream_state.users_code():
            module, inputs = self._made_for(case, fresh=fresh, last=last)
            dynamic = building.dynamic_inputs(case, DEVICE)
            program, _ = building.prepare_imported(case, module, inputs, lambda _step: None, dynamic)
        return program_part.of_program(case, program, inputs, dynamic, DEVICE).fingerprint

    def _made_for(self, case: Case, *, fresh: bool, last: bool) -> tuple[torch.nn.Module, Inputs]:
        call = (case.model.name, case.settings.optimum, case.settings.sizes)
        if fresh or call != self._call:
            self._forget()
            self._made = factory_calls.made(case)
            self._call = call
        compile_options.check_options(case.id, case.settings)
        module, inputs = building.make(case, DEVICE, made=self._made, copied=not last)
        if module is self._made[0]:  # or can't be copied: it has this case's precision now
            self._call = None
        return module, inputs

    def _forget(self) -> None:
        """Let go of what a factory made, and of what it left changed in the process."""
        self._call = self._made = None
        building.end_case()
        garbage.freeze()


@contextlib.contextmanager
def _autocast_of_a_gpu() -> Iterator[None]:
    """Within: without a GPU, torch does not switch autocast for CUDA off: an exported region says what code asked for.

    What is computed on a CPU is not affected by it.
    """
    with contextlib.ExitStack() as stack:
        if not torch.cuda.is_available():
            common = torch.cuda.amp.common
            stack.enter_context(patching.replaced(common, "amp_definitely_not_available", lambda: False))
            stack.enter_context(patching.replaced(torch.cuda, "is_bf16_supported", lambda *_given, **_named: True))
        yield


def _no_stack_traces() -> contextlib.AbstractContextManager[None]:
    """Within: an exported program does not know where its nodes' lines stand; older releases have no such switch."""
    name = "do_not_emit_stack_traces"
    known = hasattr(torch.fx.config, name)
    return patching.replaced(torch.fx.config, name, True) if known else contextlib.nullcontext()
