"""What engines are told: their runtime cache, and, with dynamic shapes, when to compile kernels and by which profile.

None of it is stored with an engine, so it is said anew wherever a compiled module is built or loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..suite import dimensions
from ..suite.settings import SPECIALIZATIONS
from . import releases

if TYPE_CHECKING:
    import torch

    from ..suite.settings import Settings
    from .runtime_cache import RuntimeCache

LAZY = "lazy"
"""What TensorRT-RTX does by itself: it runs general kernels until those for the shape are compiled."""
STRATEGY, CACHE = "dynamic_shapes_kernel_specialization_strategy", "runtime_cache"
"""Names of fields of RuntimeSettings."""
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


def prepare(modules: Iterable[torch.nn.Module], settings: Settings, cache: RuntimeCache | None = None) -> None:
    """Tell all engines in compiled modules how they are to run the shape of the settings.

    They take kernels from a `cache` with a handle, and add theirs. An engine makes its execution context when it first
    runs, so none may have run before.
    """
    if not settings.uses_tensorrt:
        return
    wanted: dict[str, Any] = {} if cache is None or cache.handle is None else {CACHE: cache.handle}
    if strategy(settings) and _has_strategies():
        wanted[STRATEGY] = strategy(settings)
    profile = dimensions.profile_of(settings.dynamic, settings.sizes) if settings.dynamic else None
    several = len(dimensions.profiles_of(settings.dynamic)) > 1
    for engine in _controls(modules) if wanted or several else ():
        if wanted:
            _tell(engine, wanted)
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


def _tell(engine: Any, wanted: Mapping[str, Any]) -> None:
    if hasattr(engine, "runtime_settings"):
        engine.runtime_settings = engine.runtime_settings.merge(**wanted)
        return
    handle = wanted.get(CACHE)
    native = NATIVE_STRATEGIES[wanted.get(STRATEGY, LAZY)]
    engine.update_runtime_settings(native, NO_NATIVE_GRAPHS, None if handle is None else handle._handle)


def _set_profile(engine: Any, profile: int | None) -> None:
    if hasattr(engine, "set_optimization_profile"):
        engine.set_optimization_profile(profile)
    else:
        engine.set_active_profile(profile)


def _has_strategies() -> bool:
    """Whether the installed release has RuntimeSettings: since 2.13."""
    return releases.source_says("runtime/_runtime_config.py", STRATEGY)


def _has_profiles() -> bool:
    """Whether the installed release's Input takes several optimization profiles: since 2.14."""
    return releases.source_says("_Input.py", "profiles: Optional")
