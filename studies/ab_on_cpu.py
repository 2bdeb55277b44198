"""How often is `trtgate ab` wrong on a CPU, beside pytest-benchmark's own gate on the same modules?

    python studies/ab_on_cpu.py [--unchanged 50] [--slower 20] [--json FILE]

Makes a repository of eight eager modules in a temporary folder and compares it with its own HEAD: unchanged, and with
one module 1.3 times as deep. After each unchanged `ab`, two runs of pytest-benchmark on the same modules, the second
with --benchmark-compare-fail=median:5%, so that both meet the same noise. Interrupted, it prints what it has. Prints
counts with Clopper-Pearson intervals, the machine and the versions.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from trtgate.common import git
from trtgate.common.accelerator import detect
from trtgate.report.terminal_table import describe

MODELS = 8
DEPTH, DEEPER = 10, 13
"""Equal layers: 1.3 times as many take 1.3 times as long."""
SLOWED = "net3"
CASE_TIMEOUT_S = 900

SUITE = f"""
import trtgate
from nets import DEPTHS, WIDTH, net

def factory(name):
    def make(batch):
        return net(DEPTHS[name], batch)
    return make

GRID = trtgate.grid(frontends=["eager"], precisions=["fp32"], batches=[16])
MODELS = [trtgate.Model(f"net{{n}}", factory(f"net{{n}}"), GRID) for n in range({MODELS})]
"""
NETS = """
import torch

WIDTH = 768
DEPTHS = {depths!r}

def net(depth, batch):
    torch.manual_seed(0)
    layers = [layer for _ in range(depth) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers).eval(), torch.randn(batch, WIDTH)
"""
PLAIN = """
import pytest
import torch
from nets import DEPTHS, net

@pytest.mark.parametrize("name", sorted(DEPTHS))
def test_net(benchmark, name):
    module, inputs = net(DEPTHS[name], 16)
    with torch.no_grad():
        benchmark(module, inputs)
"""


def depths(slowed: str = "") -> str:
    """Return the module of the nets, one of them deeper."""
    return NETS.format(depths={f"net{n}": DEEPER if f"net{n}" == slowed else DEPTH for n in range(MODELS)})


def repository(folder: Path) -> None:
    """Make the repository whose HEAD is the base."""
    (folder / "suite.py").write_text(SUITE)
    (folder / "nets.py").write_text(depths())
    (folder / "test_plain.py").write_text(PLAIN)
    (folder / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
    (folder / ".gitignore").write_text(".benchmarks/\n__pycache__/\n")
    person = ["-c", "user.name=study", "-c", "user.email=study@localhost"]
    for words in (["init", "-q"], ["add", "."], [*person, "commit", "-qm", "base"]):
        git.run(folder, *words).check_returncode()


def pytest_run(folder: Path, *arguments: str) -> tuple[int, str, float]:
    """Run pytest there; returns its exit code, what it printed, and the seconds it took."""
    start = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=CASE_TIMEOUT_S, check=False)
    return done.returncode, done.stdout, time.monotonic() - start


def ab(folder: Path) -> dict[str, Any]:
    """Compare with HEAD: the verdict of every case, and the exit code."""
    known = set(folder.glob(".trtgate/runs/*.json"))
    code, output, seconds = pytest_run(folder, "-m", "trtgate_latency", "suite.py", "--trtgate-base=HEAD")
    fresh = sorted(set(folder.glob(".trtgate/runs/*.json")) - known)
    if not fresh:
        raise SystemExit(f"the run saved nothing, exit code {code}:\n{output[-2000:]}")
    records = [b["extra_info"]["trtgate"] for b in json.loads(fresh[-1].read_text())["benchmarks"]]
    return {"code": code, "seconds": seconds, "verdicts": {r["case"].partition("-")[0]: r["verdict"] for r in records}}


def plain_gate(folder: Path) -> int:
    """Save a run of pytest-benchmark and compare another with it; returns the second one's exit code."""
    plain = ("-p", "no:trtgate.plugin", "test_plain.py", "--benchmark-max-time=0.5")
    pytest_run(folder, *plain, "--benchmark-save=base")
    return pytest_run(folder, *plain, "--benchmark-compare", "--benchmark-compare-fail=median:5%")[0]


def share(outcomes: Sequence[bool]) -> str:
    """Return k of n with its interval."""
    if not outcomes:
        return "not run"
    interval = stats.binomtest(sum(outcomes), len(outcomes)).proportion_ci()
    return f"{sum(outcomes)} of {len(outcomes)} ({interval.low:.1%} to {interval.high:.1%})"


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unchanged", type=int, default=50)
    parser.add_argument("--slower", type=int, default=20)
    parser.add_argument("--json", type=Path, help="also write all outcomes to this file")
    options = parser.parse_args()
    found: dict[str, list[Any]] = {"unchanged": [], "plain": [], "slower": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repository(folder)
        try:
            for number in range(max(options.unchanged, options.slower)):
                if number < options.unchanged:
                    found["unchanged"].append(ab(folder))
                    found["plain"].append(plain_gate(folder))
                if number < options.slower:
                    (folder / "nets.py").write_text(depths(SLOWED))
                    found["slower"].append(ab(folder))
                    (folder / "nets.py").write_text(depths())
                print(f"# {number + 1}: {[runs[-1] for runs in found.values() if runs]}", flush=True)
        except KeyboardInterrupt:
            print("# interrupted")
    if options.json:
        options.json.write_text(json.dumps(found))
    report(found)


def report(found: dict[str, list[Any]]) -> None:
    """Print what came of it."""
    print(f"\n{describe(detect())}\n{MODELS} eager modules, limit 10 %")
    print(f"unchanged, red runs of trtgate ab:       {share([run['code'] != 0 for run in found['unchanged']])}")
    print(f"unchanged, red runs of pytest-benchmark: {share([code != 0 for code in found['plain']])}")
    hit = [run["verdicts"].get(SLOWED) == "regressed" and run["code"] == 1 for run in found["slower"]]
    print(f"1.3 times slower, found:                 {share(hit)}")
    others = [
        verdict == "regressed" for run in found["slower"] for case, verdict in run["verdicts"].items() if case != SLOWED
    ]
    print(f"other cases of those runs called slower: {share(others)}")
    seconds = sorted(run["seconds"] for run in found["unchanged"])
    if seconds:
        print(f"an unchanged run takes {seconds[len(seconds) // 2]:.0f} s (median)")


if __name__ == "__main__":
    main()
