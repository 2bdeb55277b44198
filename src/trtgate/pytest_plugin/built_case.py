"""A case built once for all its tests, when the first of them asks, and compared with eager."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..common.errors import TrtgateError, one_line
from ..common.steps import OnStep
from ..records.measurement import Build
from ..suite.cases import Case

if TYPE_CHECKING:
    from ..compiling.building import Inference
    from ..records.coverage_record import Coverage
    from .gate_run import GateRun

BUILDERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
"""How many processes of this run build at once."""


class BuiltCase:
    """A case that is built and compared with eager when it is first asked for, or the reason why it could not be."""

    def __init__(self, case: Case, run: GateRun) -> None:
        self.case = case
        self.inference: Inference | None = None
        self.artifact: Path | None = None
        self.build: Build | None = None
        self.notes: list[str] = []
        """What went wrong with the cache, and was got over."""
        self._run = run
        self._problem: str | None = None

    def check(self) -> None:
        """Build the case if that was not done yet. Raises TrtgateError when it can't be, or its output is wrong."""
        if self._problem is None:
            with self._run.progress(self.case.id) as step:
                self._problem = self._build(step)
            if not self._run.options.build_only:  # then they go with what the test says, from process to process
                for note in self.notes:
                    self._run.say(note)
        if self._problem:
            raise TrtgateError(self._problem)

    def to_profile(self) -> Inference:
        """Return the case as built in this process: a loaded one does not know its parts. Raises as `check` does."""
        self.check()
        assert self.build is not None
        if self.inference is None or self.build.cached:
            from ..compiling import building
            from ..timing.device_lock import device_turn

            lock, timeout_s = self._run.accelerator.lock_name, self._run.options.timeout_s
            with self._run.progress(self.case.id) as step, device_turn(lock, timeout_s, step, shared=True):
                self.inference, _ = building.checked(self.case, self._device, step)
                self.build = msgspec.structs.replace(self.build, cached=False)
        assert self.inference is not None
        return self.inference

    @property
    def _device(self) -> str:
        return "cuda" if self._run.accelerator.kind == "gpu" else "cpu"

    def free(self) -> None:
        """Give the memory back, the device's too, and the disk."""
        if self._problem is None:
            return
        self.inference = None
        if self.artifact is not None:
            shutil.rmtree(self.artifact, ignore_errors=True)
        import torch

        from ..compiling import building

        building.release()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _build(self, step: OnStep) -> str:
        """Build; whatever goes wrong (memory and user code too) is this case's problem alone, and is returned."""
        from ..compiling import build_or_load
        from ..timing.device_lock import device_turn

        ahead = self._run.prebuilt.get(self.case.id)
        if ahead is not None:
            self.artifact, self.build = ahead.artifact, ahead.build
            self._remember(ahead.coverage)
            return ahead.problem
        request = self._run.options.cache
        try:
            cache = request.open() if request is not None and self.case.settings.uses_tensorrt else None
            folder = self._run.run_folder.private(self.case.model.name)
            with device_turn(self._run.accelerator.lock_name, self._run.options.timeout_s, step, shared=True):
                found = build_or_load.build_or_load(self.case, self._device, folder, cache, step, builders=BUILDERS)
            self.artifact = folder if found.stored else None
            self.inference, self.build = found.inference, found.build
            self.notes = found.notes
            self._remember(found.coverage)
        except TrtgateError as error:
            return str(error)
        except Exception as error:
            return f"case {self.case.id}: {one_line(error)}"
        return ""

    def _remember(self, coverage: Coverage | None) -> None:
        if coverage is not None:
            self._run.coverage_of_builds[self.case.id] = coverage
