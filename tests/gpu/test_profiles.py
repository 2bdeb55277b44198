"""Profiles on a real GPU: both runtimes and our own agree, verbosity changes no engine, everything adds up."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

import trtgate
from trtgate.common.accelerator import detect
from trtgate.compiling import build_or_load, reference
from trtgate.compiling.inference import Inference
from trtgate.profiles import profile_checks, profile_files, profile_recording
from trtgate.profiles.layer_names import normalised
from trtgate.profiles.profile_recording import ProfilePlan, RecordedProfile
from trtgate.records.profile_record import PYTORCH, TENSORRT, Profile
from trtgate.suite.cases import Case
from trtgate.suite.settings import Settings
from trtgate.timing import stream_state

from .conftest import Run
from .test_gate import CASE, INI, SUITE

STEADY_US = 4.0
"""Layers shorter than this are mostly what timing them costs."""


def resnet18(batch: int) -> object:
    import torch
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval(), torch.randn(batch, 3, 224, 224)


def split(batch: int) -> object:
    """Two engines and a segment in PyTorch between them."""
    import torch

    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Sigmoid()]
    layers += [torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers).eval(), torch.randn(batch, 3, 128, 128)


def record(factory: object, *, own: bool = False, **settings: object) -> RecordedProfile:
    wanted = Settings(frontend="dynamo", precision="fp16", batch=1, **settings)  # type: ignore[arg-type]
    case = Case(trtgate.Model(factory.__name__, factory, [wanted]), wanted)  # type: ignore[attr-defined,arg-type]
    inference, _ = reference.checked(case, "cuda", lambda _step: None)
    return of(case, inference, ProfilePlan(own_runtime=own))


def of(case: Case, inference: Inference, plan: ProfilePlan | None = None) -> RecordedProfile:
    with stream_state.alone(detect().uuid) as state:
        return profile_recording.record(case.id, inference, detect(), lambda _step: None, state, plan)


def stored(factory: object, folder: Path, **settings: object) -> Case:
    wanted = Settings(frontend="dynamo", precision="fp16", batch=1, **settings)  # type: ignore[arg-type]
    case = Case(trtgate.Model(factory.__name__, factory, [wanted]), wanted)  # type: ignore[attr-defined,arg-type]
    folder.mkdir(mode=0o700)
    assert build_or_load.build_or_load(case, "cuda", folder, None, lambda _step: None).stored
    return case


def names_of(profile: Profile) -> list[str]:
    """Names without what differs between builds, signals and waits left out."""
    return [normalised(layer.name) for _, layer in profile.layers() if not layer.name.startswith("__mye")]


def by_name(profile: Profile) -> dict[str, float]:
    return {layer.name: layer.median_us for _, layer in profile.layers()}


def test_a_stored_module_is_profiled_without_being_built(tmp_path: Path) -> None:
    case = stored(resnet18, tmp_path / "artifact")
    inference = profile_recording.loaded(case, tmp_path / "artifact", "cuda")
    assert inference is not None
    found, built = of(case, inference).profile, record(resnet18).profile
    assert profile_checks.problems(found) == []
    assert sorted(names_of(found)) == sorted(names_of(built))
    assert (found.parts[0].engine_bytes, found.runtime) == (pytest.approx(built.parts[0].engine_bytes, rel=0.01), "cpp")
    assert found.attributed == pytest.approx(built.attributed, abs=0.02)
    assert found.sum_us == pytest.approx(built.sum_us, rel=0.1)


def test_a_stored_module_with_parts_in_pytorch_is_built_to_be_profiled(tmp_path: Path) -> None:
    case = stored(split, tmp_path / "artifact", min_block_size=1, torch_executed_ops=("aten.sigmoid",))
    assert profile_recording.loaded(case, tmp_path / "artifact", "cuda") is None


def test_resnet18_is_attributed_and_adds_up(tmp_path: Path) -> None:
    recorded = record(resnet18)
    profile = recorded.profile
    assert profile_checks.problems(profile) == []
    assert profile.attributed >= 0.9
    assert [part.verbosity for part in profile.parts] == ["detailed"]
    assert profile.breakdown is not None
    assert 0 < profile.breakdown.kernels_us <= profile.sum_us
    written = profile_files.write_folder(tmp_path, profile, recorded.information)
    assert profile_files.read(written[0]) == profile
    assert len(written) == 6


def test_all_runtimes_give_the_same_layers_and_about_the_same_times() -> None:
    found = {
        "cpp": record(resnet18).profile,
        "python": record(resnet18, runtime="python").profile,
        "own": record(resnet18, own=True).profile,
    }
    assert found["cpp"].runtime in ("cpp", "own")
    assert found["own"].runtime == "own"
    names = {who: sorted(names_of(profile)) for who, profile in found.items()}
    assert names["cpp"] == names["python"] == names["own"]
    sums = {who: profile.sum_us for who, profile in found.items()}
    assert max(sums.values()) / min(sums.values()) < 1.3, sums


def test_verbosity_does_not_change_the_engine() -> None:
    found = {
        name: record(resnet18, profiling_verbosity=name).profile for name in ("none", "layer_names_only", "detailed")
    }
    assert [profile.parts[0].verbosity for profile in found.values()] == list(found)
    latencies = [profile.device_us or 0.0 for profile in found.values()]
    assert max(latencies) / min(latencies) < 1.02, latencies
    assert names_of(found["layer_names_only"]) == names_of(found["detailed"])


def test_two_engines_and_a_segment_in_pytorch() -> None:
    profile = record(split, min_block_size=1, torch_executed_ops=("aten.sigmoid",)).profile
    assert [part.kind for part in profile.parts] == [TENSORRT, PYTORCH, TENSORRT]
    assert profile_checks.problems(profile) == []
    (sigmoid,) = profile.parts[1].layers
    assert (sigmoid.type, sigmoid.modules) == ("aten.sigmoid.default", ["2"])
    assert sigmoid.median_us > 0


def test_the_top_layers_are_the_same_in_another_build() -> None:
    tops = []
    for _ in range(2):
        ranked = sorted(by_name(record(resnet18).profile).items(), key=lambda item: -item[1])
        tops.append({name for name, us in ranked[:5] if us > STEADY_US})
    assert len(tops[0] & tops[1]) >= 4


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "suite_of_mine.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(INI)
    return tmp_path


def test_layers_are_recorded_compared_and_explain_a_regression(gate_run: Run, suite: Path) -> None:
    recorded = gate_run("suite_of_mine.py", "-m", "trtgate_profile or trtgate_latency", "--trtgate-update-baselines")
    assert recorded.returncode == 0, recorded.stdout
    (stored,) = (suite / "baselines").glob(f"*/profiles/{CASE}.json")
    before = stored.read_bytes()
    same = gate_run("suite_of_mine.py", "-m", "trtgate_profile", "--trtgate-strict-layers")
    assert same.returncode == 0, same.stdout
    assert (suite / ".trtgate" / "profiles" / CASE / "profile.json").is_file()
    deeper = gate_run("suite_of_mine.py", "-m", "trtgate_profile", "--trtgate-strict-layers", DEPTH="18")
    assert deeper.returncode == 1
    assert f"{CASE}: its layers changed: " in deeper.stdout
    slower = gate_run("suite_of_mine.py", "-m", "trtgate_latency", "--benchmark-compare", DEPTH="18")
    assert slower.returncode == 1
    assert "where: " in slower.stdout
    assert stored.read_bytes() == before
    times = [layer["median_us"] for layer in json.loads(before)["parts"][0]["layers"]]
    assert statistics.median(times) >= 0
