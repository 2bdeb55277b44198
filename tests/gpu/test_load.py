"""Load, growth of memory and a cold L2 on a real GPU: stored, unchanged, and red with a leak and with a lock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trtgate.common.metrics import OF_LOAD

from .conftest import Run

ENGINE = """
import torch
import trtgate
from trtgate.timing import memory_growth

memory_growth.SECONDS = 4.0


@trtgate.model(frontends=("dynamo",), precisions=("fp16",), min_block_size=1)
def engine():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(64, 64, 3, padding=1) for _ in range(8)]
    return torch.nn.Sequential(*layers).eval(), torch.randn(1, 64, 56, 56)
"""
PLANTED = """
import os
import threading
import time

import torch
import trtgate
from trtgate.timing import memory_growth

memory_growth.SECONDS = 4.0
KEPT, LOCK = [], threading.Lock()


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1024, 1024)

    def forward(self, x):
        if os.environ.get("LEAK"):
            KEPT.append(bytearray(2048))
            KEPT.append(x.new_empty(1024))
        if os.environ.get("LOCKED"):
            with LOCK:
                time.sleep(0.002)
        else:
            time.sleep(0.002)
        return self.layer(x)


@trtgate.model(frontends=("eager",), precisions=("fp32",), needs_gpu=True)
def net():
    torch.manual_seed(0)
    return Net().eval(), torch.randn(8, 1024)
"""
INI = "[pytest]\ntrtgate_suite = suite_of_mine.py\ntrtgate_require = gpu\n"
LATENCY = ("suite_of_mine.py", "-v", "-m", "trtgate_latency", "--trtgate-launches=1")


def recorded(tmp_path: Path) -> dict[str, Any]:
    (baseline,) = (tmp_path / "baselines").glob("*/latency.json")
    (entry,) = [one["extra_info"]["trtgate"] for one in json.loads(baseline.read_text())["benchmarks"]]
    print({name: value for name, value in entry["figures"].items() if not name.startswith("cold_start")})
    print(entry["sessions"][0]["metrics"])
    found: dict[str, Any] = entry
    return found


def test_an_engine_under_load_is_stored_and_repeats(gate_run: Run, tmp_path: Path) -> None:
    """Each thread has an engine of its own: nothing of another call is in its way but the GPU."""
    (tmp_path / "suite_of_mine.py").write_text(ENGINE)
    (tmp_path / "pytest.ini").write_text(INI)
    assert gate_run(*LATENCY, "--trtgate-update-baselines", "--trtgate-load=2").returncode == 0
    entry = recorded(tmp_path)
    metrics, figures = entry["sessions"][0]["metrics"], entry["figures"]
    assert {*OF_LOAD, "cold_l2"} <= metrics.keys()
    assert all(value > 0 for name in OF_LOAD for (value,) in metrics[name])
    for launch in metrics["cold_l2"]:
        warm_us = sorted(us for one in metrics["device"] for us in one)
        assert min(launch) > warm_us[len(warm_us) // 2]
    for name in ("host_memory_growth", "torch_memory_growth"):
        assert figures[f"{name}_low_bytes"] < 256
    assert gate_run(*LATENCY, "--benchmark-compare", "--trtgate-load=2").returncode == 0


def test_a_lock_around_calls_and_a_leak_are_found_and_named(gate_run: Run, tmp_path: Path) -> None:
    (tmp_path / "suite_of_mine.py").write_text(PLANTED)
    (tmp_path / "pytest.ini").write_text(INI)
    assert gate_run(*LATENCY, "--trtgate-update-baselines", "--trtgate-load=4").returncode == 0
    recorded(tmp_path)
    worse = gate_run(*LATENCY, "--benchmark-compare", "--trtgate-load=4", LOCKED="1", LEAK="1")
    assert worse.returncode == 1
    line = PLANTED.splitlines().index("            KEPT.append(bytearray(2048))") + 1
    sentence = worse.stdout.partition("net-eager-fp32 is slower")[2].partition("\n")[0]
    for said in (
        "throughput of threads at once", "growth of host memory", "growth of memory that PyTorch allocated on the GPU",
        f"suite_of_mine.py:{line}",
    ):  # fmt: skip
        assert said in sentence
    assert "throughput of processes" not in sentence
