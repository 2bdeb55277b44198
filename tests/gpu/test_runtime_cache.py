"""The runtime cache with real engines: the same kernels, as fast, in a fraction of the time; 2.11 goes without."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.compiling import building, reference
from trtgate.compiling.artifact_cache import ArtifactCache
from trtgate.compiling.build_or_load import CheckedModule, build_or_load
from trtgate.compiling.inference import Inference
from trtgate.torch_trt import releases, runtime_cache, shared_cache_file
from trtgate.torch_trt.runtime_cache import ARTIFACT, FILE, NONE, Kernels

from .timed import timed

SAME = 0.01
"""What a latency may differ by: that of one load in twenty does by more, so a second load of each is asked then."""


def convolutions(batch: int) -> tuple[Any, Any]:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(16, 16, 3, padding=1), torch.nn.ReLU()] * 4
    return torch.nn.Sequential(*layers).eval(), torch.randn(batch, 16, 64, 64)


def mobilenet(batch: int) -> tuple[Any, Any]:
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.mobilenet_v3_large(weights=None).eval(), torch.randn(batch, 3, 224, 224)


def case_of(factory: Callable[..., Any]) -> Case:
    settings = Settings(frontend="dynamo", precision="fp16", batch=1)
    return Case(Model(factory.__name__, factory, ()), settings)


def loaded(case: Case, folder: Path, *, kernels: bool) -> tuple[Inference, float]:
    """Load a case and run it once; returns the seconds that it took."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    inference = building.load(case, folder, "cuda", kernels=kernels)
    inference()
    torch.cuda.synchronize()
    return inference, time.perf_counter() - start


def kernels_of(inference: Inference) -> list[str]:
    """Return the names of the kernels of a warm call, in order."""
    from torch.profiler import ProfilerActivity, profile

    inference()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as traced:
        inference()
        torch.cuda.synchronize()
    on_device = [event for event in traced.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return [event.name for event in sorted(on_device, key=lambda event: event.time_range.start)]


def state_of_shared_file() -> object:
    """Return what would tell that torch_tensorrt's shared file was written, or its lock."""
    path = shared_cache_file.path()
    folder = None if path is None else Path(path).parent
    if folder is None or not folder.is_dir():
        return None
    return folder.stat().st_mtime_ns, {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


Built = Callable[..., CheckedModule]


@pytest.fixture
def built(tmp_path: Path) -> Built:
    cache = ArtifactCache(tmp_path / "cache")

    def build(case: Case, name: str) -> CheckedModule:
        folder = tmp_path / name
        folder.mkdir(mode=0o700)
        found = build_or_load(case, "cuda", folder, cache, lambda _step: None)
        assert found.notes == []
        return found

    return build


@pytest.mark.parametrize("factory", [convolutions, mobilenet])
def test_the_same_kernels_run_as_fast_and_are_loaded_in_less_time(
    built: Built, tmp_path: Path, factory: Callable[..., Any]
) -> None:
    case = case_of(factory)
    releases.imported()
    before = state_of_shared_file()
    made = built(case, "built")
    folder = tmp_path / "built"
    assert (FILE in made.sha256) == (folder / FILE).exists() == runtime_cache.is_supported()
    del made
    found: dict[bool, list[tuple[Inference, float]]] = {False: [], True: []}
    for kernels in (False, True, True, False):
        found[kernels].append(loaded(case, folder, kernels=kernels))
    seconds = {kernels: min(one[1] for one in some) for kernels, some in found.items()}
    us = {kernels: timed(some[0][0]).us for kernels, some in found.items()}
    if abs(us[True] / us[False] - 1) >= SAME:
        us = {kernels: min(us[kernels], timed(some[1][0]).us) for kernels, some in found.items()}
    names = {kernels: kernels_of(some[0][0]) for kernels, some in found.items()}
    outputs = {kernels: some[0][0]() for kernels, some in found.items()}
    size = (folder / FILE).stat().st_size if runtime_cache.is_supported() else 0
    print(
        f"{case.id}, torch_tensorrt {releases.version()}: loaded in {seconds[False]:.3f} s without and "
        f"{seconds[True]:.3f} s with a runtime cache of {size:,} bytes; {us[False]:.2f} and {us[True]:.2f} us "
        f"({us[True] / us[False] - 1:+.3%}); {len(names[True])} kernels"
    )
    assert names[True] == names[False] != []
    assert abs(us[True] / us[False] - 1) < SAME
    torch.testing.assert_close(outputs[True], outputs[False])
    in_use = runtime_cache.in_use(found[True][0][0].compiled, engines=True)
    assert in_use == ((ARTIFACT, "") if runtime_cache.is_supported() else (NONE, ""))
    if runtime_cache.is_supported():
        assert statistics.fmean(one[1] for one in found[True]) < statistics.fmean(one[1] for one in found[False])
        cache = found[True][0][0].compiled.runtime_cache
        assert cache is not None
        assert not runtime_cache.store(cache, tmp_path)  # the build had compiled all: loading added none
    found.clear()
    assert state_of_shared_file() == before


def test_kernels_for_another_driver_are_compiled_anew_and_stored_in_their_place(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not runtime_cache.is_supported():
        pytest.skip(f"torch_tensorrt {releases.version()} gives engines no runtime cache")
    case = case_of(convolutions)
    built(case, "built")
    stored = (tmp_path / "built" / FILE).read_bytes()
    here = dict(runtime_cache.made_for())
    monkeypatch.setattr(runtime_cache, "made_for", lambda: {**here, "driver": "another"})
    inference = reference.load_checked(case, tmp_path / "built", "cuda")
    assert runtime_cache.in_use(inference.compiled, engines=True) == (
        NONE, f"its stored runtime cache is for driver {here['driver']}, not another: kernels are compiled anew"
    )  # fmt: skip
    again = built(case, "taken")
    assert again.build.cached
    taken = msgspec.msgpack.decode((tmp_path / "taken" / FILE).read_bytes(), type=Kernels)
    assert taken.made_for["driver"] == "another"
    assert (tmp_path / "built" / FILE).read_bytes() == stored
