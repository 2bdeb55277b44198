"""PyTorch as it is: the reference that the others are compared with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..cases import Settings
from .protocol import CompiledModule, Frontend, Progress


class Eager:
    """No compilation; the build time is that of the first call."""

    stores_artifact = False
    stores = "nothing: every launch makes the module anew"

    def unavailable(self) -> str:
        """Return "": eager always works."""
        return ""

    def prepare(self, module: Any, inputs: tuple[Any, ...], settings: Settings, step: Progress) -> Any:  # noqa: ARG002
        """Return the module."""
        return module

    def build(self, prepared: Any, inputs: tuple[Any, ...], settings: Settings, step: Progress) -> CompiledModule:  # noqa: ARG002
        """Run the module once."""
        start = time.perf_counter()
        prepared(*inputs)
        return CompiledModule(prepared, time.perf_counter() - start)

    def save(self, compiled: CompiledModule, inputs: tuple[Any, ...], folder: Path) -> None:
        """Nothing to store: the factory makes it again."""

    def load(self, folder: Path) -> CompiledModule:
        """Not used, as nothing is stored."""
        raise NotImplementedError(f"eager stores nothing in {folder}")


FRONTEND: Frontend = Eager()
