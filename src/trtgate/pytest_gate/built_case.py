"""A case built once for all its tests, when the first of them asks, and compared with eager."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..cases import Case
from ..errors import TrtgateError, one_line
from ..records import Build

if TYPE_CHECKING:
    from ..building import Inference
    from .run import GateRun

Step = Callable[[str], None]


class BuiltCase:
    """A case that is built and compared with eager when it is first asked for, or the reason why it could not be."""

    def __init__(self, case: Case, run: GateRun) -> None:
        self.case = case
        self.inference: Inference | None = None
        self.artifact: Path | None = None
        self.build: Build | None = None
        self._run = run
        self._problem: str | None = None

    def check(self) -> None:
        """Build the case if that was not done yet. Raises TrtgateError when it can't be, or its output is wrong."""
        if self._problem is None:
            with self._run.progress(self.case.id) as step:
                self._problem = self._build(step)
        if self._problem:
            raise TrtgateError(self._problem)

    def free(self) -> None:
        """Give the memory back, the device's too, and the disk."""
        if self._problem is None:
            return
        self.inference = None
        if self.artifact is not None:
            shutil.rmtree(self.artifact, ignore_errors=True)
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _build(self, step: Step) -> str:
        """Build; whatever goes wrong (memory and user code too) is this case's problem alone, and is returned."""
        from .. import building
        from ..timing.lock import device_turn

        device = "cuda" if self._run.accelerator.kind == "gpu" else "cpu"
        try:
            with device_turn(self._run.accelerator.lock_name, self._run.options.timeout_s, step, shared=True):
                inference, build = building.checked(self.case, device, step)
            folder = self._run.gate.folder.private(self.case.model.name)
            self.artifact = folder if building.save(self.case, inference, folder) else None
            self.inference, self.build = inference, build
            if inference.compiled.coverage is not None:
                self._run.coverage_of_builds[self.case.id] = inference.compiled.coverage
        except TrtgateError as error:
            return str(error)
        except Exception as error:
            return f"case {self.case.id}: {one_line(error)}"
        return ""
