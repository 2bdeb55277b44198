"""torch.compile with its own backend. Its artifact is its own cache on disk, which later launches hit."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from ..cases import Settings
from .protocol import CompiledModule, Frontend, Progress


def compiler() -> str:
    """Return the path of the C++ compiler that Inductor would call; empty when there is none."""
    wanted = os.environ.get("CXX", "")
    return next((path for name in (wanted, "g++", "clang++", "c++") if name and (path := shutil.which(name))), "")


class Inductor:
    """`torch.compile(backend="inductor")`."""

    stores_artifact = False
    stores = "Inductor's own cache (TORCHINDUCTOR_CACHE_DIR), which later launches hit"

    def unavailable(self) -> str:
        """Return the reason when there is no C++ compiler, which Inductor calls for every kernel or wrapper."""
        return "" if compiler() else "inductor needs a C++ compiler: install g++ or set CXX"

    def prepare(self, module: Any, inputs: tuple[Any, ...], step: Progress) -> Any:  # noqa: ARG002
        """Return the module."""
        return module

    def build(self, prepared: Any, inputs: tuple[Any, ...], settings: Settings, step: Progress) -> CompiledModule:  # noqa: ARG002
        """Compile at the first call, and call a second time, when guards and caches are settled."""
        import torch

        step("inductor compile")
        start = time.perf_counter()
        torch.compiler.reset()
        compiled = torch.compile(prepared, backend="inductor")
        compiled(*inputs)
        compiled(*inputs)
        return CompiledModule(compiled, time.perf_counter() - start)

    def save(self, compiled: CompiledModule, inputs: tuple[Any, ...], folder: Path) -> None:
        """Nothing beside Inductor's own cache."""

    def load(self, folder: Path) -> CompiledModule:
        """Not used, as nothing is stored."""
        raise NotImplementedError(f"inductor stores nothing in {folder}")


FRONTEND: Frontend = Inductor()
