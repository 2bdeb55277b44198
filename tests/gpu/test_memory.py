"""Memory of the device: freed between cases, and a case that needs more than there is fails alone."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Run

HEAD = """
import json
import os

import torch
import trtgate



def note(name):
    # What the GPU's memory holds before a case is made: what was left of those before it.
    import pynvml
    from trtgate.common import accelerator

    pynvml.nvmlInit()
    used = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(accelerator.detect().uuid)).used
    with open("memory", "a") as log:
        log.write(json.dumps([name, used]) + "\\n")


def builds(name):
    # Whether this process is the first to make the case: who builds it, not who measures it.
    try:
        open(name, "x").write(str(os.getpid()))
    except FileExistsError:
        return open(name).read() == str(os.getpid())
    return True


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
    note({name!r})
    {statement}
"""
DYNAMO = """
@trtgate.model(frontends=("dynamo",), precisions=("fp16",))
def {name}(batch):
    note({name!r})
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8192, 8192), torch.nn.ReLU(), torch.nn.Linear(8192, 8192)]
    return torch.nn.Sequential(*layers).eval(), torch.randn(batch, 8192)
"""
INI = "[pytest]\ntrtgate_suite = suite.py\n"
BIG = "return Big().eval(), torch.randn(batch, 64)"  # 2 GiB
SMALL = "return torch.nn.Linear(64, 64).eval(), torch.randn(batch, 64)"
MIB = 1 << 20


def test_memory_is_freed_between_cases(gate_run: Run, tmp_path: Path) -> None:
    names = "abcdefg"  # every second is built by TensorRT
    made = [
        EAGER.format(name=name, statement=BIG) if number % 2 else DYNAMO.format(name=name)
        for number, name in enumerate(names)
    ]
    (tmp_path / "suite.py").write_text(HEAD + "".join(made))
    (tmp_path / "pytest.ini").write_text(INI)
    done = gate_run("suite.py", "-m", "trtgate_latency", "--trtgate-launches=2", "--trtgate-no-cache")
    assert done.returncode == 0
    noted = [json.loads(line) for line in (tmp_path / "memory").read_text().splitlines()]
    before = {name: used / MIB for name, used in reversed(noted)}  # by who builds it, the first to make it
    print("GPU memory used before each case, MiB: " + ", ".join(f"{name} {used:.0f}" for name, used in before.items()))
    # Contexts and TensorRT's kernels come with the first cases that need them, and stay; then nothing is added, of
    # 2 GiB a case in three processes.
    assert abs(before["g"] - before["e"]) < 256
    assert abs(before["f"] - before["d"]) < 256


def test_a_case_without_enough_memory_fails_alone(gate_run: Run, tmp_path: Path) -> None:
    models = {
        "before": SMALL,
        "while_built": "return Hungry(1 << 40).eval(), torch.randn(batch, 64)",
        "while_measured": "return Hungry(64 if builds('built') else 1 << 40).eval(), torch.randn(batch, 64)",
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
