"""Weights from a file: safetensors alone, since a pickle runs whatever its writer wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..common.errors import TrtgateError, one_line
from ..common.files import open_file

PICKLES = (b"PK\x03\x04", b"\x80")
"""How files of torch.save begin: a zip archive of pickles, or a pickle."""


def load_into(module: Any, file: str, who: str) -> None:
    """Load a state dict from a safetensors file. Raises TrtgateError, naming `who`, for any other, or a misfit."""
    path = Path(file)
    try:
        with open_file(path) as opened:
            head = opened.read(16)
    except OSError as error:
        raise TrtgateError(f"{who}: weights {file} can't be read: {error.strerror}") from error
    if head.startswith(PICKLES) and head[8:9] != b"{":  # a safetensors file has a length, then JSON
        raise TrtgateError(
            f"{who}: weights {file} is a pickle, which can run anything when it is loaded: store the state dict with "
            "safetensors.torch.save_file"
        )
    try:
        from safetensors.torch import load_file

        state = load_file(path)
    except ImportError as error:
        raise TrtgateError(f"{who}: weights from a file need safetensors: pip install safetensors") from error
    except Exception as error:
        raise TrtgateError(f"{who}: weights {file} is no safetensors file: {one_line(error)}") from error
    try:
        module.load_state_dict(state)
    except Exception as error:
        raise TrtgateError(f"{who}: weights {file} do not fit the module: {one_line(error)}") from error
