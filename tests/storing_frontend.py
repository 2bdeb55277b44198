"""A frontend that stores an artifact, as dynamo does, and needs no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trtgate.frontends import CompiledModule
from trtgate.torch_trt import exporting


class Storing:
    """Exports, and remembers what was built under which settings."""

    stores_artifact = True
    stores = "an exported program"

    def __init__(self) -> None:
        self.imports = 0
        self.built: list[str] = []
        self._programs: dict[int, torch.export.ExportedProgram] = {}

    @property
    def builds(self) -> int:
        return len(self.built)

    def unavailable(self) -> str:
        return ""

    def import_libraries(self) -> None:
        self.imports += 1

    def prepare(self, module: Any, inputs: Any, settings: Any, step: Any, dynamic: Any = None) -> Any:
        assert self.imports
        return exporting.export(module, inputs, settings, dynamic)

    def build(self, prepared: Any, inputs: Any, settings: Any, step: Any, dynamic: Any = None) -> CompiledModule:
        self.built.append(settings.suffix)
        run = prepared.module()
        self._programs[id(run)] = prepared
        return CompiledModule(run, 7.0, (100, 20))

    def save(self, compiled: CompiledModule, inputs: Any, folder: Path) -> None:
        torch.export.save(self._programs[id(compiled.run)], folder / "compiled.pt2")

    def load(self, folder: Path) -> CompiledModule:
        return CompiledModule(torch.export.load(folder / "compiled.pt2").module(), 0.5)
