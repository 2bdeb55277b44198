"""The ways from a module to something callable: one module each, one protocol, imported when first asked for."""

from __future__ import annotations

import importlib
from typing import cast

from .protocol import CompiledModule, Frontend

__all__ = ["CompiledModule", "Frontend", "get"]


def get(name: str) -> Frontend:
    """Return the frontend of that name, one of `trtgate.cases.FRONTENDS`."""
    return cast("Frontend", importlib.import_module(f"{__name__}.{name}").FRONTEND)
