"""What engines with dynamic shapes are told: when to compile kernels for a shape, and by which optimization profile.

None of it is stored with an engine, so it is said anew wherever a compiled module is built or loaded.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..suite import dimensions
from ..suite.settings import SPECIALIZATIONS
from . import releases

if TYPE_CHECKING:
    import torch

    from ..suite.settings import Settings

LAZY = "lazy"
"""What TensorRT-RTX does by itself: it runs general kernels until those for the shape are compiled."""
STRATEGY = "dynamic_shapes_kernel_specialization_strategy"
NATIVE_STRATEGIES = {"lazy": 0, "eager": 1, "none": 2}
"""Numbers of TensorRT-RTX's `DynamicShapesKernelSpecializationStrategy`."""
NO_NATIVE_GRAPHS = 0
"""`CudaGraphStrategy.DISABLED`: graphs are captured around engines, not by them."""


def strategy(settings: Settings) -> str:
    """Return when kernels for a dynamic shape are compiled; empty where nothing is dynamic, or nobody does that.

    One of `SPECIALIZATIONS`. A release without the setting (2.11) leaves TensorRT-RTX to its own.
    """
    if not settings.dynamic or not settings.uses_tensorrt or releases.flavour() != "rtx":
        return ""
    return settings.specialization if _has_strategies() else LAZY


def refused(settings: Settings) -> str:
    """Return why the installed release can't do what settings say of dynamic shapes; empty when it can."""
    if settings.specialization != SPECIALIZATIONS[0] and strategy(settings) != settings.specialization:
        had = "has one strategy, lazy" if releases.flavour() == "rtx" else "specializes no kernels at run time"
        return (
            f"specialization={settings.specialization} can't be chosen: torch_tensorrt {releases.version()} with "
            f"{'TensorRT-RTX' if releases.flavour() == 'rtx' else 'TensorRT'} {had}"
        )
    if len(dimensions.profiles_of(settings.dynamic)) > 1 and not _has_profiles():
        return f"torch_tensorrt {releases.version()} takes one optimization profile: give dynamic one range a dimension"
    return ""


def not_capturable(settings: Settings) -> str:
    """Return why a CUDA graph of the module would not be what it runs later; empty where it would."""
    if strategy(settings) == LAZY:
        return "TensorRT-RTX swaps kernels of a dynamic shape while it runs: specialization lazy"
    return ""


def prepare(modules: Iterable[torch.nn.Module], settings: Settings) -> None:
    """Tell all engines in compiled modules how they are to run the shape of the settings."""
    if not settings.dynamic or not settings.uses_tensorrt:
        return
    wanted = strategy(settings)
    profile = dimensions.profile_of(settings.dynamic, settings.sizes)
    several = len(dimensions.profiles_of(settings.dynamic)) > 1
    for engine in _controls(modules):
        if wanted and _has_strategies():
            _set_strategy(engine, wanted)
        if several:
            _set_profile(engine, profile)


def _controls(modules: Iterable[torch.nn.Module]) -> Iterator[Any]:
    """Return what can be told something: Torch-TensorRT's modules, and engines that a loaded program holds itself."""
    for part in (part for module in modules for part in module.modules()):
        if hasattr(part, "set_optimization_profile") or hasattr(part, "runtime_settings"):
            yield part
            continue
        yield from (value for value in vars(part).values() if _is_engine(value))


def _is_engine(value: Any) -> bool:
    import torch

    return isinstance(value, torch.ScriptObject) and hasattr(value, "update_runtime_settings")


def _set_strategy(engine: Any, wanted: str) -> None:
    if hasattr(engine, "runtime_settings"):
        engine.runtime_settings = engine.runtime_settings.merge(**{STRATEGY: wanted})
    else:
        engine.update_runtime_settings(NATIVE_STRATEGIES[wanted], NO_NATIVE_GRAPHS, None)


def _set_profile(engine: Any, profile: int | None) -> None:
    if hasattr(engine, "set_optimization_profile"):
        engine.set_optimization_profile(profile)
    else:
        engine.set_active_profile(profile)


def _has_strategies() -> bool:
    """Whether the installed release has RuntimeSettings: since 2.13."""
    return _source_says("runtime/_runtime_config.py", STRATEGY)


def _has_profiles() -> bool:
    """Whether the installed release's Input takes several optimization profiles: since 2.14."""
    return _source_says("_Input.py", "profiles: Optional")


@functools.cache
def _source_says(file: str, text: str) -> bool:
    """Whether a file of torch_tensorrt has a text; importing it would need a GPU."""
    spec = importlib.util.find_spec("torch_tensorrt")
    if spec is None or spec.origin is None:
        return False
    source = Path(spec.origin).parent / file
    return source.is_file() and text in source.read_text(encoding="utf-8")
