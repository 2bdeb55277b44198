"""Does the memory of a long session grow with the number of its cases?

    python studies/memory.py [--cases 60] [--frontend eager] [--width 2048] [PYTEST OPTIONS]

Runs the gate over that many cases, each a small network of its own with 4 x width^2 weights, and reads the resident
memory of the pytest process and of its workers after every case (on a GPU its used memory too, from NVML). Prints the
machine, what they were after every tenth of the cases, and by how much a case makes them grow: the slope of a line
through the second half.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from trtgate.common.accelerator import detect
from trtgate.common.text_columns import TextTable
from trtgate.report.terminal_table import describe

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
TIMEOUT_S = 3600.0
SUITE = """
from functools import partial

import trtgate


def net(number, batch):
    import torch

    torch.manual_seed(number)
    layers = [torch.nn.Linear({width}, {width}) for _ in range(4)]
    return torch.nn.Sequential(*layers).eval(), torch.randn(batch, {width})


GRID = trtgate.grid(frontends=["{frontend}"], precisions=["{precision}"], batches=[1])
MODELS = [trtgate.Model(f"net{{number:03}}", partial(net, number), GRID) for number in range({cases})]
"""
CONFTEST = """
import json
import os
from pathlib import Path

import pytest


def resident(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def workers():
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            ours = parent == os.getpid() and b"trtgate.worker" in (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if ours:
            found.append(int(entry.name))
    return found


def gpu_used():
    try:
        import pynvml

        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)
    except Exception:
        return 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    yield
    used = [resident(os.getpid()), max(map(resident, workers()), default=0), gpu_used()]
    with open(os.environ["MEMORY_LOG"], "a") as log:
        log.write(json.dumps(used) + "\\n")
"""


def main() -> None:
    """Run the gate, and print what its memory did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--frontend", default="eager")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--width", type=int, default=2048)
    options, more = parser.parse_known_args()
    print(describe(detect()), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
        (folder / "suite.py").write_text(SUITE.format(**vars(options)))
        (folder / "conftest.py").write_text(CONFTEST)
        environment = {
            **os.environ, "MEMORY_LOG": str(folder / "memory"), "TRTGATE_CACHE_DIR": str(folder / "cache"),
            "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}",
        }  # fmt: skip
        command = [
            sys.executable, "-m", "pytest", "-p", "trtgate.plugin", "-p", "no:cacheprovider", "-q", "suite.py",
            "-m", "trtgate_latency", "--trtgate-launches=1", *more,
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=folder, env=environment, timeout=TIMEOUT_S, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        print(done.stdout.decode(errors="replace").strip().splitlines()[-1])
        used = np.array([json.loads(line) for line in (folder / "memory").read_text().splitlines()]) / MIB
    names = ("pytest process", "worker", "GPU used")
    shown = sorted({0, *(round(share * (len(used) - 1)) for share in np.linspace(0, 1, 11))})
    table = [("after case", *(f"{name}, MiB" for name in names))]
    table += [(str(number + 1), *(f"{value:.0f}" for value in used[number])) for number in shown]
    half = used[len(used) // 2 :]
    slopes = [np.polyfit(np.arange(len(half)), column, 1)[0] for column in half.T]
    table.append(("growth a case", *(f"{slope:+.3f}" for slope in slopes)))
    print(TextTable(table))
    weights = 4 * options.width**2 * (2 if options.precision == "fp16" else 4) / MIB
    print(f"a case's weights take {weights:.0f} MiB")


if __name__ == "__main__":
    main()
