"""The ways from a module to something callable: one module each, one protocol, imported when first asked for."""

from __future__ import annotations

import importlib
from typing import cast

from ..suite.settings import Settings
from .frontend import CompiledModule, Frontend

__all__ = ["CompiledModule", "Frontend", "get", "stores"]


def stores(settings: Settings) -> bool:
    """Whether what is built under these settings can be stored and loaded by another process.

    Torch-TensorRT's Python runtime holds an engine that `torch_tensorrt.save` refuses (2.11).
    """
    return get(settings.frontend).stores_artifact and settings.runtime != "python"


def get(name: str) -> Frontend:
    """Return the frontend of that name, one of `trtgate.suite.settings.FRONTENDS`."""
    return cast("Frontend", importlib.import_module(f"{__name__}.{name}").FRONTEND)
