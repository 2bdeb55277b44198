"""What engines with dynamic shapes are told, in which releases it can be chosen, and which clock that leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trtgate.common.accelerator import Accelerator
from trtgate.compiling import availability
from trtgate.suite.settings import Settings
from trtgate.torch_trt import dynamic_engines, releases

SEQ = {"seq": (16, 128, 512)}
PROFILES = {"seq": ((1, 8, 16), (17, 128, 512))}


class RuntimeSettings:
    """As torch_tensorrt's: replaced as a whole."""

    def __init__(self, **fields: str) -> None:
        self.fields = fields

    def merge(self, **overrides: str) -> RuntimeSettings:
        return RuntimeSettings(**{**self.fields, **overrides})


class Engine(torch.nn.Module):
    """As torch_tensorrt's module of an engine: it is told by assignment, and by a method."""

    def __init__(self) -> None:
        super().__init__()
        self.runtime_settings = RuntimeSettings(runtime_cache="kept")
        self.profile: Any = "never told"

    def set_optimization_profile(self, profile: Any) -> None:
        self.profile = profile


def settings_of(seq: int = 128, **fields: Any) -> Settings:
    return Settings(**{"frontend": "dynamo", "shape": {"seq": seq}, "dynamic": SEQ, **fields})


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stand in for an installed release: its flavour, and what its source has."""

    def install(flavour: str, *, strategies: bool, profiles: bool) -> None:
        monkeypatch.setattr(releases, "flavour", lambda: flavour)
        monkeypatch.setattr(releases, "version", lambda: "2.x")
        monkeypatch.setattr(dynamic_engines, "_has_strategies", lambda: strategies)
        monkeypatch.setattr(dynamic_engines, "_has_profiles", lambda: profiles)

    return install


def test_engines_are_told_the_strategy_and_keep_what_else_they_were_told(release: Any) -> None:
    release("rtx", strategies=True, profiles=True)
    module = torch.nn.Sequential(Engine(), torch.nn.Sequential(Engine()))
    dynamic_engines.prepare([module], settings_of(specialization="none"))
    for engine in (module[0], module[1][0]):
        assert engine.runtime_settings.fields == {"runtime_cache": "kept", dynamic_engines.STRATEGY: "none"}
        assert engine.profile == "never told"
    dynamic_engines.prepare([module], settings_of())
    assert module[0].runtime_settings.fields[dynamic_engines.STRATEGY] == "eager"


@pytest.mark.parametrize(("seq", "profile"), [(1, 0), (16, 0), (17, 1), (512, 1)])
def test_an_engine_of_several_profiles_runs_by_the_one_that_holds_the_shape(
    release: Any, seq: int, profile: int
) -> None:
    release("rtx", strategies=True, profiles=True)
    engine = Engine()
    dynamic_engines.prepare([engine], settings_of(seq, dynamic=PROFILES))
    assert engine.profile == profile


def test_static_shapes_and_other_releases_are_told_nothing(release: Any) -> None:
    release("rtx", strategies=True, profiles=True)
    engine = Engine()
    dynamic_engines.prepare([engine], Settings(frontend="dynamo", shape={"seq": 128}))
    release("rtx", strategies=False, profiles=False)
    dynamic_engines.prepare([engine], settings_of())
    assert engine.runtime_settings.fields == {"runtime_cache": "kept"}


@pytest.mark.parametrize(
    ("flavour", "strategies", "fields", "strategy", "capturable"),
    [
        ("rtx", True, {}, "eager", True),
        ("rtx", True, {"specialization": "lazy"}, "lazy", False),
        ("rtx", True, {"specialization": "none"}, "none", True),
        ("rtx", False, {}, "lazy", False),  # a release that leaves TensorRT-RTX to its own
        ("standard", True, {}, "", True),
        ("rtx", True, {"dynamic": {}}, "", True),
        ("rtx", True, {"frontend": "inductor"}, "", True),
    ],
)
def test_kernels_that_are_swapped_are_no_cuda_graph(
    release: Any, flavour: str, strategies: bool, fields: Any, strategy: str, capturable: bool
) -> None:
    release(flavour, strategies=strategies, profiles=True)
    settings = settings_of(**fields)
    assert dynamic_engines.strategy(settings) == strategy
    assert (dynamic_engines.not_capturable(settings) == "") == capturable


@pytest.mark.parametrize(
    ("flavour", "fields", "reason"),
    [
        ("rtx", {"specialization": "lazy"}, ""),  # what it does anyway
        ("rtx", {"specialization": "none"}, "specialization=none can't be chosen: torch_tensorrt 2.x with"),
        ("standard", {"specialization": "lazy"}, "with TensorRT specializes no kernels at run time"),
        ("rtx", {"dynamic": PROFILES}, "takes one optimization profile: give dynamic one range a dimension"),
    ],
)  # fmt: skip
def test_what_an_older_release_can_not_do_makes_a_case_unavailable(
    release: Any, flavour: str, fields: Any, reason: str
) -> None:
    release(flavour, strategies=False, profiles=False)
    gpu = Accelerator(kind="gpu", name="test", uuid="GPU-1", memory_bytes=1 << 30)
    found = availability.refused(settings_of(**fields), gpu)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.skipif(bool(releases.unavailable()), reason=releases.unavailable() or "installed")
def test_the_installed_release_is_known_by_its_source() -> None:
    release = tuple(int(part) for part in releases.version().split(".")[:2])
    assert dynamic_engines._has_strategies() == (release >= (2, 13))
    assert dynamic_engines._has_profiles() == (release >= (2, 14))
