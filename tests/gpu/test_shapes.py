"""Shapes on a real GPU: one build for all of a dynamic module's, right at each, timed by the clock that is right."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.common.accelerator import detect
from trtgate.common.errors import TrtgateError
from trtgate.compiling import availability, building, reference
from trtgate.compiling.artifact_cache import ArtifactCache
from trtgate.compiling.build_or_load import build_or_load
from trtgate.compiling.inference import Inference
from trtgate.torch_trt import dynamic_engines, releases

from .conftest import Run
from .timed import timed

SEQ = {"seq": (16, 128, 512)}
SHAPES = (16, 128, 512)
WIDTH = 256


def encoder(batch: int, seq: int) -> Any:
    """Return two layers of attention written out, and ids of a sequence: it has no other dynamic axis."""

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))
            self.norm = torch.nn.LayerNorm(WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights = (self.query(x) @ self.key(x).transpose(1, 2) / math.sqrt(WIDTH)).softmax(-1)
            return self.norm(x + self.out(weights @ self.value(x)))

    torch.manual_seed(0)
    return torch.nn.Sequential(Layer(), Layer()).eval(), torch.randn(batch, seq, WIDTH)


def case_of(seq: int, **settings: Any) -> Case:
    given = {"frontend": "dynamo", "precision": "fp16", "batch": 2, "shape": {"seq": seq}, "dynamic": SEQ, **settings}
    own = Settings(**given)
    reason = availability.unavailable(own, detect())
    if reason:
        print(f"{own.suffix}: unavailable: {reason}")
        pytest.skip(reason)
    return Case(Model("encoder", encoder, [own]), own)


def clock_of(case: Case) -> str:
    return "cuda_events" if dynamic_engines.not_capturable(case.settings) else "cuda_graph_one_stream"


def test_dynamo_builds_once_and_is_right_and_timed_at_each_shape(tmp_path: Path) -> None:
    cached, latencies = [], []
    for seq in SHAPES:
        case, folder = case_of(seq), tmp_path / str(seq)
        folder.mkdir(mode=0o700)
        made = build_or_load(
            case, "cuda", folder, None, lambda _step: None, shared=ArtifactCache(tmp_path / "shared")
        )  # which compares with eager at this shape
        assert made.inference().shape == (2, seq, WIDTH)
        assert made.stored
        us, clock, _ = timed(made.inference)
        assert clock == clock_of(case)
        cached.append(made.build.cached)
        latencies.append(us)
        loaded = reference.load_checked(case, folder, "cuda")  # as a launch does
        assert timed(loaded).clock == clock
        building.end_case()
    assert cached == [False, True, True]
    assert latencies[0] < latencies[2]


class Upscaler(torch.nn.Module):
    """An image, and one of twice its sides beside it: `2 * side` and, after a margin, `2 * side + 2`."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = (torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

    def forward(self, image: torch.Tensor, large: torch.Tensor, framed: torch.Tensor) -> torch.Tensor:
        doubled = torch.nn.functional.interpolate(self.small(image).relu(), scale_factor=2.0)
        return self.large(doubled + large) + framed[..., 1:-1, 1:-1]


def upscaler(batch: int, side: int) -> Any:
    torch.manual_seed(0)
    sides = (side, 2 * side, 2 * side + 2)
    return Upscaler().eval(), tuple(torch.randn(batch, 8, one, one) for one in sides)


def test_sizes_that_derive_from_a_dimension_are_of_one_build_and_right_at_each(tmp_path: Path) -> None:
    built = []
    for side in (8, 32, 64):
        given = {"precision": "fp16", "batch": 1, "shape": {"side": side}, "dynamic": {"side": (8, 32, 64)}}
        own = Settings(frontend="dynamo", min_block_size=1, **given)  # type: ignore[arg-type]
        case, folder = Case(Model("upscaler", upscaler, [own]), own), tmp_path / str(side)
        folder.mkdir(mode=0o700)
        made = build_or_load(
            case, "cuda", folder, None, lambda _step: None, shared=ArtifactCache(tmp_path / "shared")
        )  # which compares with eager at this size
        assert made.inference().shape == (1, 8, 2 * side, 2 * side)
        assert made.build.engines >= 1
        assert timed(made.inference).clock == clock_of(case)
        built.append(made.build.cached)
        building.end_case()
    assert built == [False, True, True]


@pytest.mark.xfail(
    releases.version().startswith("2.11"), reason="2.11 takes no dynamic axis of a nested input", raises=TrtgateError
)
def test_torch_compile_compiles_once_and_is_right_and_timed_at_each_shape() -> None:
    for seq in SHAPES:
        case = case_of(seq, frontend="torch_compile")
        inference, build = reference.checked(case, "cuda", lambda _step: None)  # a second compilation is an error
        assert build.engines >= 1
        assert len(inference.compiled.modules) == 1
        found = timed(inference)  # a size is an input of the engine, and is copied to the GPU in every call
        assert found.clock == "cuda_events"
        assert "Cannot copy between CPU and CUDA tensors during CUDA graph capture" in found.note
        building.end_case()


@pytest.mark.parametrize("frontend", ["inductor", "aot_eager"])
def test_torch_compile_without_tensorrt_takes_each_shape(frontend: str) -> None:
    for seq in (16, 512):
        inference, _ = reference.checked(case_of(seq, frontend=frontend), "cuda", lambda _step: None)
        assert inference().shape == (2, seq, WIDTH)


def test_static_shapes_are_cases_with_engines_of_their_own() -> None:
    sizes = []
    for seq in SHAPES:
        case = case_of(seq, dynamic={})
        inference, build = reference.checked(case, "cuda", lambda _step: None)
        assert inference().shape == (2, seq, WIDTH)
        assert timed(inference).clock == "cuda_graph_one_stream"
        sizes.append(build.engine_bytes)
        building.end_case()
    assert all(size > 0 for size in sizes)


def strategies_of(inference: Inference) -> set[str]:
    found = set()
    for part in inference.compiled.run.modules():  # type: ignore[attr-defined]
        if hasattr(part, "runtime_settings"):
            found.add(part.runtime_settings.dynamic_shapes_kernel_specialization_strategy)
    return found


@pytest.mark.parametrize("strategy", ["eager", "lazy", "none"])
def test_the_strategy_reaches_the_engines_and_decides_the_clock(strategy: str) -> None:
    case = case_of(512, specialization=strategy)
    if releases.flavour() != "rtx":
        pytest.skip("kernels are specialized by TensorRT-RTX alone")
    inference, _ = reference.checked(case, "cuda", lambda _step: None)
    chosen = dynamic_engines.strategy(case.settings)
    assert strategies_of(inference) in ({chosen}, set())  # a release without the setting has no such attribute
    _, clock, note = timed(inference)
    if chosen == "lazy":
        assert clock == "cuda_events"
        assert "swaps kernels of a dynamic shape while it runs" in note
    else:
        assert clock == "cuda_graph_one_stream"
    building.end_case()


def test_each_shape_runs_by_its_optimization_profile(tmp_path: Path) -> None:
    for seq in (8, 300):
        case = case_of(seq, dynamic={"seq": ((4, 8, 16), (17, 128, 512))})
        folder = tmp_path / str(seq)
        folder.mkdir(mode=0o700)
        made = build_or_load(case, "cuda", folder, None, lambda _step: None, shared=ArtifactCache(tmp_path / "shared"))
        assert made.build.cached == (seq == 300)
        assert reference.load_checked(case, folder, "cuda")().shape == (2, seq, WIDTH)
        timed(made.inference)
        building.end_case()


SUITE = """
import trtgate

@trtgate.model(
    frontends=("dynamo", "eager"), precisions=("fp16",), dynamic={"seq": (16, 128, 512)},
    at=[{"seq": 16}, {"seq": 512, "limits": {"device": "5%"}}],
)
def net(batch, seq):
    import torch
    torch.manual_seed(0)
    layers = [torch.nn.Linear(256, 256), torch.nn.GELU(), torch.nn.Linear(256, 256), torch.nn.LayerNorm(256)]
    return torch.nn.Sequential(*layers).eval(), torch.randn(batch, seq, 256)
"""
IDS = [f"net-dynamo-fp16-b1-seq16..128..512@{seq}-mbs5" for seq in (16, 512)]


def test_the_gate_records_and_judges_each_shape(gate_run: Run, tmp_path: Path) -> None:
    (tmp_path / "suite_of_mine.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite_of_mine.py\ntrtgate_require = gpu\n")
    recorded = gate_run("suite_of_mine.py", "--trtgate-update-baselines", "--trtgate-no-cache")
    assert recorded.returncode == 0
    (baseline,) = (tmp_path / "baselines").glob("*/latency.json")
    records = {
        one["extra_info"]["trtgate"]["case"]: one["extra_info"]["trtgate"]
        for one in json.loads(baseline.read_text())["benchmarks"]
    }
    assert set(IDS) <= set(records)
    for case_id in IDS:
        record = records[case_id]
        assert record["settings"]["specialization"] == "eager"
        expected = "cuda_events" if dynamic_engines.not_capturable(case_of(16).settings) else "cuda_graph_one_stream"
        assert {session["clock"] for session in record["sessions"]} == {expected}
    same = gate_run("suite_of_mine.py", "-m", "trtgate_latency", "--benchmark-compare", "--trtgate-shapes", "seq=512")
    assert same.returncode == 0
    assert f"{IDS[1]}" in same.stdout
    assert IDS[0] not in same.stdout
