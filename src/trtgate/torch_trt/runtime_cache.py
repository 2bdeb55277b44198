"""TensorRT-RTX's runtime cache, kept with a compiled module: the kernels that were compiled for the card.

TensorRT-RTX compiles kernels when an execution context is made, in every process anew, for seconds. Since 2.13
torch_tensorrt gives an engine a cache. Here it has no path: it is filled in memory while a module is built, written
once when the module is stored, and read from there before an execution context is made. A cache with a path writes
itself when its process ends, and the file would not have the digest any more that it was stored with.
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..common import accelerator
from ..common.errors import TrtgateError, one_line
from ..common.files import is_there, read_bytes, write_whole
from . import engine_sizes, engines, releases, shared_cache_file
from .patching import replaced

if TYPE_CHECKING:
    import torch

FILE = "runtime_cache.bin"
"""Its name among the files of a stored module."""
ARTIFACT, NONE, OWN = "artifact", "none", "own"
"""Which cache engines use: the one that is stored with them; none, so that kernels are compiled; a user's own."""


class Kernels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is stored of a cache."""

    made_for: dict[str, str]
    """As `made_for` returns it."""
    content: bytes
    """As TensorRT-RTX serialized them."""


@dataclass
class RuntimeCache:
    """The cache of one compiled module, in memory."""

    handle: Any = None
    """`torch_tensorrt.runtime.RuntimeCache`, for all its engines; None where they have none of ours."""
    kept: bool = False
    """Whether its kernels are those that were stored with the module."""
    kept_bytes: int = 0
    """How much of them was stored."""
    note: str = ""
    """Why those that were stored are not used; empty where they are, or none are."""


def is_supported() -> bool:
    """Whether engines of the installed release can be given a cache: TensorRT-RTX, since torch_tensorrt 2.13."""
    return releases.flavour() == "rtx" and releases.source_says("runtime/_runtime_cache.py", "class RuntimeCache:")


def _is_usable() -> bool:
    import torch

    return is_supported() and torch.cuda.is_available()


def prepare() -> None:
    """Ask what kernels depend on, where they can be kept: once in a process, and not while a load is timed."""
    with contextlib.suppress(TrtgateError):  # loading says it, and does without
        if _is_usable():
            made_for()


@functools.cache
def made_for() -> dict[str, str]:
    """Return what kernels depend on beside their engine: the card, its driver and TensorRT. Needs a GPU.

    Raises TrtgateError as `accelerator.detect`.
    """
    import torch

    properties, device = torch.cuda.get_device_properties(0), accelerator.detect()
    return {
        "card": properties.name,
        "MIG profile": device.mig_profile,
        "compute capability": f"{properties.major}.{properties.minor}",
        "driver": device.driver,
        "TensorRT": str(engines.tensorrt().__version__),
    }


def by_default() -> str:
    """Return which cache engines use that brought none, as ARTIFACT and NONE say. Imports nothing."""
    return ARTIFACT if is_supported() else NONE


@contextlib.contextmanager
def collecting() -> Iterator[RuntimeCache]:
    """Within: engines that Torch-TensorRT makes share a new cache, which is yielded and lives as long as they do.

    It has no handle where the release knows none, or where a user set another default.
    """
    if not _is_usable():
        yield RuntimeCache()
        return
    releases.imported()
    from torch_tensorrt.runtime import _runtime_config

    if getattr(_runtime_config, shared_cache_file.DEFAULT) is not None:
        yield RuntimeCache()
        return
    cache = RuntimeCache(_new_handle())
    with replaced(_runtime_config, shared_cache_file.DEFAULT, cache.handle):
        yield cache


def store(cache: RuntimeCache, folder: Path) -> bool:
    """Write the kernels of a cache among a module's files, in place of older ones, where it has more than those.

    Returns whether it has. The file is a new one: what else has the old one's content, such as an entry of the artifact
    cache, stays as it is. Raises OSError.
    """
    content = io.BytesIO()
    if cache.handle is None or not cache.handle.has_cache():
        return False
    if cache.handle.save_to_stream(content) <= cache.kept_bytes:
        return False
    kernels = Kernels(made_for=made_for(), content=content.getvalue())
    write_whole(folder / FILE, msgspec.msgpack.encode(kernels))
    return True


def load(folder: Path) -> RuntimeCache:
    """Return the cache that a stored module's engines are to have.

    Where none is stored, or one that does not fit, it is an empty one, and `note` says why. Reads the file, and writes
    nothing, now or later.
    """
    if not _is_usable():
        return RuntimeCache()
    cache = RuntimeCache(_new_handle())
    try:
        if not is_there(folder / FILE):
            return cache
        kernels = msgspec.msgpack.decode(read_bytes(folder / FILE), type=Kernels)
        differing = _differing(kernels.made_for)
    except (OSError, msgspec.MsgspecError, TrtgateError) as error:
        why = str(error) if isinstance(error, TrtgateError) else type(error).__name__
        cache.note = _unused(f"can't be used ({why})")
        return cache
    if differing:
        cache.note = _unused(f"is {differing}")
        return cache
    try:
        cache.kept_bytes = cache.handle.load_from_stream(io.BytesIO(kernels.content))
    except Exception as error:  # of torch_tensorrt, or of C++
        return RuntimeCache(_new_handle(), note=_unused(f"can't be used ({one_line(error)})"))
    cache.kept = cache.kept_bytes > 0
    return cache


def in_use(compiled: Any, *, engines: bool) -> tuple[str, str]:
    """Return which cache the engines of what a frontend returned use, and what is to be said of it.

    It is ARTIFACT, NONE or OWN; empty where there are no `engines` of ours. What torch.compile built is held by Dynamo,
    and not seen.
    """
    cache = compiled.runtime_cache or RuntimeCache()
    modules = [module for one in (compiled.run, *compiled.modules) for module in engine_sizes.modules_of(one)]
    if any(_is_of_user(part, cache.handle) for module in modules for part in module.modules()):
        return OWN, "its engines have a runtime cache of their own, which is used as its user set it up"
    return (ARTIFACT if cache.kept else NONE) if engines else "", cache.note


def _is_of_user(part: torch.nn.Module, handle: Any) -> bool:
    given = getattr(getattr(part, "runtime_settings", None), "runtime_cache", None)
    if given is not None:
        return given is not handle
    of_path = getattr(part, "runtime_cache", None) is not None  # 2.12
    return of_path and getattr(part, "runtime_cache_path", None) not in (None, shared_cache_file.path())


def _new_handle() -> Any:
    releases.imported()
    from torch_tensorrt.runtime import RuntimeCache as Handle

    return Handle(path="", autosave_on_del=False)


def _differing(stored: dict[str, str]) -> str:
    """Return in what a cache is made for something else; empty in nothing."""
    here = made_for()
    names = [name for name in (*here, *stored) if here.get(name) != stored.get(name)]
    return f"for {names[0]} {stored.get(names[0], '') or 'unknown'}, not {here.get(names[0], '')}" if names else ""


def _unused(why: str) -> str:
    return f"its stored runtime cache {why}: kernels are compiled anew"
