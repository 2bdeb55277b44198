"""The runtime cache that torch_tensorrt takes by default: one file in the temporary folder for all processes of a user.

It holds kernels of any engine that any program ran, and is written when a process ends. A measurement that reads it
depends on earlier processes, so no engine that is made in a process of ours has it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

DEFAULT = "RUNTIME_CACHE_PATH"
"""The name of the default among torch_tensorrt's: a path, until it is forgotten."""
CONFIG, DEFAULTS = "torch_tensorrt.runtime._runtime_config", "torch_tensorrt.dynamo._defaults"
PYTHON_RUNTIME = "torch_tensorrt.dynamo.runtime._PythonTorchTensorRTModule"
"""Of 2.12, whose Python runtime alone has a cache; the path is an option of compiling there."""


def path() -> Any:
    """Return where the file would lie; None where torch_tensorrt is not imported, or knows none."""
    return getattr(sys.modules.get(DEFAULTS), DEFAULT, None)


def forget() -> None:
    """Let torch_tensorrt, as far as it is imported, use no cache where it would use that file.

    A default that a user set to another path stays, and so does a path that is given for an engine.
    """
    config, shared = sys.modules.get(CONFIG), path()
    if config is not None and shared is not None and getattr(config, DEFAULT, None) == shared:
        setattr(config, DEFAULT, None)
    _forget_in_python_runtime(sys.modules.get(PYTHON_RUNTIME), shared)


def _forget_in_python_runtime(module: ModuleType | None, shared: Any) -> None:
    owner = getattr(module, "PythonTorchTensorRTModule", None)
    for name in ("_load_runtime_cache", "_save_runtime_cache"):
        method = getattr(owner, name, None)
        if method is not None and not hasattr(method, "leaves_out"):
            setattr(owner, name, _only_for_other_paths(method, shared))


def _only_for_other_paths(method: Any, shared: Any) -> Any:
    def read_or_write(module: Any) -> None:
        if module.runtime_cache_path != shared:
            method(module)

    read_or_write.leaves_out = shared  # type: ignore[attr-defined]
    return read_or_write
