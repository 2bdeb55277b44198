"""What a call asks the GPU for is counted, the same in every process; what there is more of fails, with its place."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Run

SUITE = """
import os

import torch
import trtgate

MORE = bool(os.environ.get("MORE"))


class Net(torch.nn.Module):
    def __init__(self, before):
        super().__init__()
        self.before = before
        self.layers = torch.nn.Sequential(*[torch.nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)])

    def forward(self, x):
        return self.layers(self.before(x))


def waiting(x):
    if MORE:
        torch.cuda.synchronize()
    return x


def copying(x):
    return torch.empty_like(x).copy_(x) if MORE else x


def looping(x):
    for _ in range(1000 * MORE):  # about 50 us
        pass
    return x


def made_of(before):
    torch.manual_seed(0)
    return Net(before).eval(), torch.randn(1, 8, 32, 32)


@trtgate.model(frontends=("eager",), precisions=("fp16",))
def waits():
    return made_of(waiting)


@trtgate.model(frontends=("eager",), precisions=("fp16",))
def copies():
    return made_of(copying)


@trtgate.model(frontends=("eager",), precisions=("fp16",))
def loops():
    return made_of(looping)


@trtgate.model(frontends=("dynamo",), precisions=("fp16",), min_block_size=1)
def engine():
    return made_of(lambda x: x)
"""
INI = "[pytest]\ntrtgate_suite = suite_of_mine.py\ntrtgate_require = gpu\n"


def calls_of_newest_run(folder: Path) -> dict[str, dict[str, int]]:
    newest = sorted((folder / ".trtgate" / "runs").glob("*.json"))[-1]
    entries = [entry["extra_info"]["trtgate"] for entry in json.loads(newest.read_text())["benchmarks"]]
    return {entry["case"]: entry["calls"]["counts"] for entry in entries}


def test_counts_repeat_and_a_wait_a_copy_and_a_loop_fail_where_they_are(gate_run: Run, tmp_path: Path) -> None:
    (tmp_path / "suite_of_mine.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(INI)
    latency = ("suite_of_mine.py", "-m", "trtgate_latency", "--trtgate-launches=1")
    assert gate_run(*latency, "--trtgate-update-baselines").returncode == 0
    recorded = calls_of_newest_run(tmp_path)
    print(recorded)
    assert all(counts["kernel_launches"] > 0 for counts in recorded.values())
    gate_run(*latency, "--benchmark-compare")
    assert calls_of_newest_run(tmp_path) == recorded

    more = gate_run(*latency, "--benchmark-compare", MORE="1")
    assert more.returncode == 1
    said = {case: next(line for line in more.stdout.splitlines() if line.startswith(f"{case}-eager-fp16 ")) for case in
            ("waits", "copies", "loops")}  # fmt: skip
    assert "waits for the device a call" in said["waits"]
    assert "Synchronize in suite_of_mine.py: waiting" in said["waits"]
    assert "aten::copy_ in suite_of_mine.py: copying" in said["copies"]
    assert "suite_of_mine.py: looping" in said["loops"]
    assert calls_of_newest_run(tmp_path)["engine-dynamo-fp16-mbs1"] == recorded["engine-dynamo-fp16-mbs1"]
