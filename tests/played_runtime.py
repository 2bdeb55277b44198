"""A runtime with a runtime cache that is played: an engine compiles its kernels unless its cache has them."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import pytest
import torch

from trtgate.frontends import CompiledModule
from trtgate.torch_trt import runtime_cache

from .storing_frontend import Storing

HERE = {"card": "H200", "MIG profile": "", "compute capability": "9.0", "driver": "580.95", "TensorRT": "1.6.1"}


class Handle:
    """As torch_tensorrt's RuntimeCache: without entries until an engine makes its execution context."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()
        self.live = False
        self._handle = self

    def has_cache(self) -> bool:
        return self.live

    def load_from_stream(self, stream: IO[bytes]) -> int:
        content = stream.read()
        self.kernels |= set(content.decode().split())
        return len(content)

    def save_to_stream(self, stream: IO[bytes]) -> int:
        return stream.write(" ".join(sorted(self.kernels)).encode())


class Settings:
    """As torch_tensorrt's RuntimeSettings: replaced as a whole."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    @property
    def runtime_cache(self) -> Any:
        return self.fields.get("runtime_cache")

    def merge(self, **overrides: Any) -> Settings:
        return Settings(**{**self.fields, **overrides})


class Engine(torch.nn.Module):
    """As torch_tensorrt's module of an engine: its first call makes the context, for which it needs its kernels."""

    def __init__(self, runtime: Runtime, module: Any) -> None:
        super().__init__()
        self.runtime_settings = Settings()
        self.module = module
        self._runtime, self._ran = [runtime], False  # in a list, so that it is no state of the module

    def forward(self, *inputs: Any) -> Any:
        for kernel in self._runtime[0].kernels:
            cache = self.runtime_settings.runtime_cache
            if cache is not None:
                cache.live = True
            if not self._ran and (cache is None or kernel not in cache.kernels):
                self._runtime[0].compiled.append(kernel)
            if cache is not None:
                cache.kernels.add(kernel)
        self._ran = True
        return self.module(*inputs)


class Runtime(Storing):
    """A frontend that stores engines, on a card that kernels are compiled for."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = ["conv", "relu"]
        self.compiled: list[str] = []
        """The kernels that had to be compiled, in order."""
        self.here = dict(HERE)

    def build(self, prepared: Any, inputs: Any, settings: Any, step: Any, dynamic: Any = None) -> CompiledModule:
        made = super().build(prepared, inputs, settings, step, dynamic)
        cache = runtime_cache.RuntimeCache(Handle())
        engine = Engine(self, made.run)
        engine.runtime_settings = engine.runtime_settings.merge(runtime_cache=cache.handle)
        self._programs[id(engine)] = prepared
        return CompiledModule(engine, made.build_s, made.engine_bytes, runtime_cache=cache)

    def load(self, folder: Path) -> CompiledModule:
        return CompiledModule(Engine(self, super().load(folder).run), 0.5)

    def taken(self) -> list[str]:
        """Return what had to be compiled since it was last asked."""
        found, self.compiled[:] = list(self.compiled), []
        return found


def play(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Let every frontend be one that runs on a card, in this process."""
    from trtgate import frontends

    runtime = Runtime()
    monkeypatch.setattr(frontends, "get", lambda _name: runtime)
    monkeypatch.setattr(runtime_cache, "_is_usable", lambda: True)
    monkeypatch.setattr(runtime_cache, "_new_handle", Handle)
    monkeypatch.setattr(runtime_cache, "made_for", lambda: runtime.here)
    return runtime
