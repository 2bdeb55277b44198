"""A case built once for all its tests, and compared with eager."""

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
    from ..gate import Gate


class BuiltCase:
    """A case that was built and compared with eager, or the reason why it could not be."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.inference: Inference | None = None
        self.artifact: Path | None = None
        self.build: Build | None = None
        self.problem = ""

    def check(self) -> None:
        """Raise TrtgateError when the case could not be built, or its output is wrong."""
        if self.problem:
            raise TrtgateError(self.problem)

    def free(self) -> None:
        """Give the memory back, the device's too, and the disk."""
        self.inference = None
        if self.artifact is not None:
            shutil.rmtree(self.artifact, ignore_errors=True)
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def build(case: Case, gate: Gate, step: Callable[[str], None]) -> BuiltCase:
    """Build a case; whatever goes wrong (memory and user code too) is this case's problem alone."""
    built = BuiltCase(case)
    try:
        _build(built, gate, step)
    except TrtgateError as error:
        built.problem = str(error)
    except Exception as error:
        built.problem = f"case {case.id}: {one_line(error)}"
    return built


def _build(built: BuiltCase, gate: Gate, step: Callable[[str], None]) -> None:
    from .. import accuracy, building

    case, device = built.case, "cuda" if gate.accelerator.kind == "gpu" else "cpu"
    step("making the model")
    module, inputs = building.make(case, device)
    eager = building.eager_output(case, module, inputs)
    if not accuracy.all_finite(eager):
        raise TrtgateError(
            f"model {case.model.name!r}: eager's own output has NaN or infinite values; seed its weights and inputs"
        )
    step(f"building with {case.settings.frontend}")
    inference = building.build(case, module, inputs, step)
    problem = accuracy.compare(eager, inference()).problem(building.arithmetic(case))
    if problem:
        raise TrtgateError(f"case {case.id}: {problem}; nothing was timed or stored")
    folder = gate.artifact_folder(case)
    built.artifact = folder if building.save(case, inference, folder) else None
    sizes = inference.compiled.engine_bytes
    built.build = Build(build_s=inference.compiled.build_s, engines=len(sizes), engine_bytes=sum(sizes))
    built.inference = inference
