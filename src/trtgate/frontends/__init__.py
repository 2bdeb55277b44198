"""The ways from a module to something callable: one module each, one protocol, imported when first asked for."""

from __future__ import annotations

import importlib
from typing import cast

from ..suite.cases import Case
from ..suite.settings import OWN
from .frontend import CompiledModule, Frontend

__all__ = ["CompiledModule", "Frontend", "get", "stores"]


def stores(case: Case) -> bool:
    """Whether what is built of a case can be stored and loaded by another process.

    Torch-TensorRT's Python runtime holds an engine that `torch_tensorrt.save` refuses (2.11).
    """
    if case.settings.frontend == OWN:
        return case.model.save is not None
    return get(case.settings.frontend).stores_artifact and case.settings.runtime != "python"


def get(name: str) -> Frontend:
    """Return the frontend of that name, one of `trtgate.suite.settings.FRONTENDS`."""
    return cast("Frontend", importlib.import_module(f"{__name__}.{name}").FRONTEND)
