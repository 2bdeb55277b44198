"""Cold starts on a real GPU: stored, judged, and the memory of the device that they take."""

from __future__ import annotations

import json
from pathlib import Path

from trtgate.torch_trt import runtime_cache

from .conftest import Run

SUITE = """
import os

import torch
import trtgate

KEPT = []


def save(run, folder):
    torch.save(run.state_dict(), folder / "weights.pt")


def load(folder):
    module = torch.nn.Linear(8192, 8192, bias=False, dtype=torch.half, device="cuda")
    module.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    for _ in range(int(os.environ.get("TWICE", "0"))):
        KEPT.append(torch.ones(256 << 20, dtype=torch.uint8, device="cuda"))
    return module


@trtgate.model(frontends=("own",), needs_gpu=True, save=save, load=load)
def linear():
    torch.manual_seed(0)
    module = torch.nn.Linear(8192, 8192, bias=False, dtype=torch.half, device="cuda").eval()
    return trtgate.Compiled(module, reference=module), torch.randn(1, 8192, dtype=torch.half, device="cuda")


@trtgate.model(frontends=("dynamo",), precisions=("fp16",), min_block_size=1)
def engine():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)]
    return torch.nn.Sequential(*layers).eval(), torch.randn(1, 8, 32, 32)
"""
INI = "[pytest]\ntrtgate_suite = suite_of_mine.py\ntrtgate_require = gpu\n"
WEIGHTS = 8192 * 8192 * 2


def test_they_are_stored_repeat_and_fail_where_a_start_takes_more_memory(gate_run: Run, tmp_path: Path) -> None:
    (tmp_path / "suite_of_mine.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(INI)
    cold = ("suite_of_mine.py", "-m", "trtgate_latency", "--trtgate-launches=1", "--trtgate-cold-starts=2")
    shared = tmp_path / "temporary"
    shared.mkdir()
    assert gate_run(*cold, "--trtgate-update-baselines", TMPDIR=str(shared)).returncode == 0
    assert not list(shared.rglob("runtime_cache.bin*"))  # torch_tensorrt's own, for all processes
    (baseline,) = (tmp_path / "baselines").glob("*/latency.json")
    entries = [one["extra_info"]["trtgate"] for one in json.loads(baseline.read_text())["benchmarks"]]
    for entry in entries:
        launches = entry["sessions"][0]["metrics"]["cold_start"]
        print(entry["case"], launches, {name: of for name, of in entry["figures"].items() if name.startswith("cold")})
        assert len(launches) == 2
        assert all(0 < seconds < 60 for (seconds,) in launches)
    engine = next(one for one in entries if one["case"].startswith("engine-dynamo"))
    cached = engine["sessions"][0]["metrics"].get("cold_start_cached", [])
    assert len(cached) == 2 * runtime_cache.is_supported()
    assert engine["sessions"][0]["runtime_cache"] == runtime_cache.by_default()
    (linear,) = [one["figures"] for one in entries if one["case"] == "linear-own-as_is"]
    assert WEIGHTS <= linear["cold_gpu_bytes"] < 4 * WEIGHTS

    compare = (*cold, "--benchmark-compare", "-k", "linear")
    assert gate_run(*compare).returncode == 0
    more = gate_run(*compare, TWICE="2")
    assert more.returncode == 1
    assert "GPU memory of a cold start" in more.stdout
