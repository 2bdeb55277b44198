"""Whether nvidia-modelopt is there, without importing it or torch."""

from __future__ import annotations

import importlib.util


def unavailable() -> str:
    """Return why nothing can be quantized, in one line; empty when nvidia-modelopt is there."""
    if importlib.util.find_spec("modelopt") is None:
        return "quantized precisions need nvidia-modelopt: pip install 'trtgate[quant]'"
    return ""
