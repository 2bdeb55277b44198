"""The artifact cache with real engines: what is taken is right, as fast, and quicker to have than a build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.compiling.artifact_cache import ArtifactCache
from trtgate.compiling.build_or_load import CheckedModule, build_or_load
from trtgate.torch_trt.runtime_cache import FILE

from .timed import timed

PLACES = range(100)


def resnet18(batch: int, seed: int = 0) -> tuple[Any, Any]:
    import torchvision

    torch.manual_seed(seed)
    return torchvision.models.resnet18(weights=None).eval(), torch.randn(batch, 3, 224, 224)


CASE = Case(Model("resnet18", resnet18, ()), Settings(frontend="dynamo", precision="fp16", batch=1))
OTHER = Case(
    Model("resnet18", lambda batch: resnet18(batch, 1), ()), Settings(frontend="dynamo", precision="fp16", batch=1)
)


@pytest.fixture
def got(tmp_path: Path) -> Callable[..., CheckedModule]:
    cache, places = ArtifactCache(tmp_path / "cache"), iter(PLACES)

    def get(case: Case = CASE) -> CheckedModule:
        folder = tmp_path / f"place-{next(places)}"
        folder.mkdir(mode=0o700)
        return build_or_load(case, "cuda", folder, cache, lambda _step: None)

    return get


def latency_us(obtained: CheckedModule) -> float:
    return timed(obtained.inference).us


def test_a_cached_module_is_the_built_one(got: Callable[..., CheckedModule], tmp_path: Path) -> None:
    built = got()
    assert (built.build.cached, built.notes, built.stored) == (False, [], True)
    built_us = latency_us(built)
    taken = got()
    assert (taken.build.cached, taken.notes, taken.stored) == (True, [], True)
    assert taken.build.engine_bytes == built.build.engine_bytes > 0
    assert taken.build.build_s == built.build.build_s
    assert taken.coverage == built.coverage is not None
    taken_us = min(map(latency_us, (taken, got(), got())))  # one load in twenty is 1 to 3 % slow
    load_s = taken.inference.compiled.build_s
    print(
        f"resnet18 fp16: built in {built.build.build_s:.1f} s, loaded in {load_s:.1f} s, {built_us:.2f} and "
        f"{taken_us:.2f} us ({taken_us / built_us - 1:+.3%})"
    )
    assert taken_us / built_us - 1 < 0.01


def test_a_module_is_taken_whatever_the_process_had_before(got: Callable[..., CheckedModule]) -> None:
    """The first attention changes a flag of torch, and what is loaded or built what Torch-TensorRT holds."""

    def attends(batch: int) -> tuple[Any, Any]:
        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(256, 4, batch_first=True).eval()
        return layer, torch.randn(batch, 64, 256)

    built = got(OTHER)
    attending = Settings(frontend="dynamo", precision="fp16", batch=1)
    assert not got(Case(Model("attends", attends, ()), attending)).build.cached
    assert got(Case(Model("attends", attends, ()), attending)).build.cached
    taken = got(OTHER)
    assert (built.build.cached, taken.build.cached, taken.build.remarks) == (False, True, built.build.remarks)


def test_engines_are_stored_once_as_they_are(got: Callable[..., CheckedModule], tmp_path: Path) -> None:
    built = got()
    (entry,) = (tmp_path / "cache" / "entries").iterdir()
    stored = sum(file.stat().st_size for file in entry.iterdir() if file.name != FILE)
    assert 0 <= stored - built.build.engine_bytes < 1_000_000


def test_what_has_parts_in_pytorch_is_stored_and_right_or_built_by_every_launch(
    got: Callable[..., CheckedModule],
) -> None:
    """torch_tensorrt 2.11 stores few of them."""
    apart = Settings(frontend="dynamo", precision="fp16", batch=1, torch_executed_ops=("aten.relu",))
    case = Case(Model("resnet18", resnet18, ()), apart)
    built = got(case)
    assert built.build.pytorch_operators
    assert built.stored is not any("can't be stored" in note for note in built.notes)
    assert got(case).build.cached is built.stored


def test_other_weights_are_another_module(got: Callable[..., CheckedModule]) -> None:
    got()
    assert got(OTHER).build.cached is False
    assert got(OTHER).build.cached is True
    assert got().build.cached is True


def test_what_was_tampered_with_is_built_again(got: Callable[..., CheckedModule], tmp_path: Path) -> None:
    got()
    (file,) = (tmp_path / "cache" / "entries").glob("*/*.pt2")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    again = got()
    assert again.build.cached is False
    assert "is not what was stored: it was removed, and is built again" in again.notes[0]
    assert got().build.cached is True


SUITE = """
import torch
import trtgate

@trtgate.model(frontends=("dynamo",), precisions=("fp16",))
def net(batch):
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU()] * 4
    return torch.nn.Sequential(*layers).eval(), torch.randn(batch, 8, 64, 64)
"""


def test_a_second_run_of_the_gate_loads_what_the_first_built(gate_run: Any, tmp_path: Path) -> None:
    (tmp_path / "suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
    cache = {"TRTGATE_CACHE_DIR": str(tmp_path / "cache")}
    record = gate_run(
        "suite.py", "-m", "trtgate_latency", "--trtgate-update-baselines", "--trtgate-launches=2", **cache
    )
    assert record.returncode == 0
    entries = list((tmp_path / "cache" / "entries").iterdir())
    assert len(entries) == 1
    again = gate_run("suite.py", "--benchmark-compare", "--trtgate-launches=2", "--trtgate-prebuild=1", **cache)
    assert again.returncode == 0
    assert ", 1 of them from the cache" in again.stdout
    assert list((tmp_path / "cache" / "entries").iterdir()) == entries
    fresh = gate_run("suite.py", "-m", "trtgate_accuracy", "--trtgate-prebuild=1", "--trtgate-no-cache", **cache)
    assert fresh.returncode == 0
    assert ", 0 of them from the cache" in fresh.stdout
