"""A cold start: what a process that has only imported takes until a case's first output is there: time and memory."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from ..common.errors import TrtgateError, one_line
from ..records.measurement import ColdStart
from ..suite.cases import Case
from ..suite.settings import OWN
from ..timing import device_memory
from . import building


def measured(case: Case, artifact: str | None, device: str, *, kernels: bool = False) -> ColdStart:
    """Load a case from its artifact and run it once; without one it is built, from a model that is made before.

    With `kernels` its engines take theirs from the runtime cache that is stored with it; else they are compiled.
    A callable that the suite compiled is built by its factory, which is timed then. Nothing is compared: the builder
    did that, and the launches do. Raises TrtgateError where it can't be loaded, built or run, or has no such kernels.
    """
    gpu = device == "cuda"
    made = None if artifact is not None or case.settings.frontend == OWN else building.make(case, device)
    before = _of_libraries() if gpu else 0
    peak, start = device_memory.HostPeak(), time.perf_counter()
    if artifact is not None:
        inference = building.load(case, Path(artifact), device, kernels=kernels)
    else:
        inference = building.build(case, *(made or building.make(case, device)), lambda _step: None)
    cache = inference.compiled.runtime_cache
    if kernels and cache is not None and cache.handle is not None and not cache.kept:
        why = cache.note or "it has none"
        raise TrtgateError(f"case {case.id}: could not start with its runtime cache: {why}")
    try:
        inference()
    except Exception as error:
        raise TrtgateError(f"case {case.id}: its first call raised {one_line(error)}") from error
    if gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    gpu_bytes = _of_libraries() - before + torch.cuda.max_memory_reserved() if gpu else None
    return ColdStart(seconds=seconds, host_bytes=peak.rise_bytes(), gpu_bytes=gpu_bytes)


def _of_libraries() -> int:
    """Return what is in use of the GPU beside what PyTorch's allocator has of it for this process."""
    return device_memory.used_bytes() - int(torch.cuda.memory_reserved())
