"""Which releases of torch_tensorrt trtgate works with, which one is installed, and its import.

torch_tensorrt is imported inside functions only: it takes seconds, and on a machine without a GPU it fails.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..common import accelerator, garbage
from . import modelopt_package, shared_cache_file

SUPPORTED = "2.11 to 2.14"

INT8_ACTIVATIONS_SINCE = (2, 13)
"""TensorRT-RTX refuses them before; weights alone it takes."""

FLAVOURS = {"torch-tensorrt-rtx": "rtx", "torch-tensorrt": "standard"}


def flavour() -> str | None:
    """Return "rtx" or "standard" as installed, None when torch_tensorrt is not."""
    return next((FLAVOURS[name] for name in accelerator.installed(FLAVOURS)), None)


def version() -> str:
    """Return the installed version without its local part, such as "2.14.0"; empty when there is none."""
    return next(iter(accelerator.installed(FLAVOURS).values()), "").partition("+")[0]


def installed_release() -> str:
    """Return what stored coverage calls the installed release, such as "rtx-2.14.0"."""
    return f"{flavour() or ''}-{version()}"


def unavailable() -> str:
    """Return why TensorRT can't be used at all; empty when it can, as far as is known without importing it."""
    if importlib.util.find_spec("torch_tensorrt") is None:
        return "torch_tensorrt is not installed: pip install 'trtgate[rtx]' or 'trtgate[standard]'"
    return ""


def takes_int8_activations() -> bool:
    """Whether inputs of layers can be quantized to int8, and not weights alone."""
    release = tuple(int(part) for part in version().split(".")[:2] if part.isdigit())
    return flavour() != "rtx" or release >= INT8_ACTIVATIONS_SINCE


def fp32_is_tf32() -> bool:
    """Whether fp32 layers round their operands to TF32 whatever `disable_tf32` says.

    So on RTX 2.11 (TensorRT-RTX 1.4): outputs are bit for bit the same with the option on and off, with TF32's error.
    """
    return flavour() == "rtx"


def imported() -> Any:
    """Import torch_tensorrt: after nvidia-modelopt where a case is quantized, else without it.

    It takes that one's operators only if it finds it at its own import, which costs 10 s more. Engines that are made
    from then on do not use the runtime cache that a user's processes share.
    """
    found = _imported()
    shared_cache_file.forget()
    return found


def _imported() -> Any:
    if "torch_tensorrt" in sys.modules:
        return sys.modules["torch_tensorrt"]
    if modelopt_package.is_expected():
        with garbage.importing():
            modelopt_package.import_modelopt()
            return importlib.import_module("torch_tensorrt")
    with garbage.importing(), without_modelopt():
        return importlib.import_module("torch_tensorrt")


@contextlib.contextmanager
def without_modelopt() -> Iterator[None]:
    """Within: nvidia-modelopt, unless it was imported before, can't be.

    torch_tensorrt imports it, for 5 s, wherever a graph's constants are folded, and needs it for quantized ones only.
    """
    if "modelopt" in sys.modules:
        yield
        return
    sys.modules["modelopt"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["modelopt"]


LEGACY = {"fx": "fx", "ts_trace": "ts", "ts_script": "ts"}
"""Frontend → the folder of torch_tensorrt that a build without it lacks."""


def lacks(frontend: str) -> str:
    """Return why the installed build has no such frontend; empty when it has, or none is installed."""
    spec = importlib.util.find_spec("torch_tensorrt")
    if frontend not in LEGACY or spec is None or spec.origin is None:
        return ""
    there = (Path(spec.origin).parent / LEGACY[frontend]).is_dir()
    return "" if there else f"this build of torch_tensorrt ({installed_release()}) has no {LEGACY[frontend]} frontend"


def features() -> dict[str, bool]:
    """Return `ENABLED_FEATURES` of the installed build. Imports torch_tensorrt, so it needs a GPU."""
    imported()
    from torch_tensorrt._features import ENABLED_FEATURES

    return {name: bool(value) for name, value in ENABLED_FEATURES._asdict().items()}


@functools.cache
def source_says(file: str, text: str) -> bool:
    """Whether a file of torch_tensorrt has a text; importing it would need a GPU."""
    spec = importlib.util.find_spec("torch_tensorrt")
    if spec is None or spec.origin is None:
        return False
    source = Path(spec.origin).parent / file
    return source.is_file() and text in source.read_text(encoding="utf-8")
