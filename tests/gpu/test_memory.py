"""Memory of the device: freed between cases, and a case that needs more than there is fails alone."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Run

HEAD = """
import os
import sys

import torch
import trtgate

IN_WORKER = os.path.basename(sys.argv[0]) == "worker.py"


class Big(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.zeros(1 << 30, dtype=torch.float16))

    def forward(self, x):
        return x + self.weight[:1]


class Hungry(torch.nn.Module):
    def __init__(self, size_bytes):
        super().__init__()
        self.size_bytes = size_bytes

    def forward(self, x):
        return x + torch.empty(self.size_bytes, dtype=torch.uint8, device=x.device)[:1].zero_()
"""
EAGER = """
@trtgate.model(frontends=("eager",), precisions=("fp16",))
def {name}(batch):
    {statement}
"""
DYNAMO = """
@trtgate.model(frontends=("dynamo",), precisions=("fp16",))
def {name}(batch):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8192, 8192), torch.nn.ReLU(), torch.nn.Linear(8192, 8192)]
    return torch.nn.Sequential(*layers).eval(), torch.randn(batch, 8192)
"""
INI = "[pytest]\ntrtgate_suite = suite.py\n"
BIG = "return Big().eval(), torch.randn(batch, 64)"  # 2 GiB
SMALL = "return torch.nn.Linear(64, 64).eval(), torch.randn(batch, 64)"
LOG = """
import json
import os

import pynvml
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    yield
    pynvml.nvmlInit()
    used = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used
    with open("memory", "a") as log:
        log.write(json.dumps([item.name, used]) + "\\n")
"""
MIB = 1 << 20


def test_memory_is_freed_between_cases(gate_run: Run, tmp_path: Path) -> None:
    models = [EAGER.format(name=name, statement=BIG) for name in ("a", "c", "e")]
    models[1:1] = [DYNAMO.format(name="b")]
    models[3:3] = [DYNAMO.format(name="d")]
    (tmp_path / "suite.py").write_text(HEAD + "".join(models))
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "conftest.py").write_text(LOG)
    done = gate_run("suite.py", "-m", "trtgate_latency", "--trtgate-launches=2")
    assert done.returncode == 0
    used = [json.loads(line)[1] / MIB for line in (tmp_path / "memory").read_text().splitlines()]
    print(f"GPU memory used after each of {len(used)} cases, MiB: {', '.join(f'{one:.0f}' for one in used)}")
    assert len(used) == 5
    # Contexts and TensorRT's kernels come with the first case that needs them, and stay; three processes hold them.
    assert abs(used[2] - used[0]) < 1536
    assert abs(used[4] - used[2]) < 128


def test_a_case_without_enough_memory_fails_alone(gate_run: Run, tmp_path: Path) -> None:
    models = {
        "before": SMALL,
        "while_built": "return Hungry(1 << 40).eval(), torch.randn(batch, 64)",
        "while_measured": "return Hungry(1 << 40 if IN_WORKER else 64).eval(), torch.randn(batch, 64)",
        "weights": "return torch.nn.Linear(1 << 20, 1 << 20, device='meta').half().to_empty(device='cuda'), "
        "torch.randn(batch, 1 << 20)",
        "after": SMALL,
    }
    suite = HEAD + "".join(EAGER.format(name=name, statement=statement) for name, statement in models.items())
    (tmp_path / "suite.py").write_text(suite)
    (tmp_path / "pytest.ini").write_text(INI)
    done = gate_run("suite.py", "-m", "trtgate_latency", "--trtgate-launches=2", "-rA")
    assert done.returncode == 1
    for name in ("before", "after"):
        assert f"PASSED suite.py::test_latency[{name}-eager-fp16-b1]" in done.stdout
    for name in ("while_built", "while_measured", "weights"):
        assert f"FAILED suite.py::test_latency[{name}-eager-fp16-b1]" in done.stdout
    assert "out of GPU memory" in done.stdout
