"""What the plugin costs a run that uses none of it, how long collecting the suite takes, and a small gate.

    python studies/overhead.py [--runs 15] [--before 22e4add]

Alternates the commands, so that a busy machine meets all alike, and prints medians and the fastest. With `--before`
each also runs with trtgate as it was at that commit, in turn with this tree's, and the ratio of each pair is told: its
median is what counts on a machine that others use. The gate is of eight eager modules, each measured by three launches
on a CPU, with nothing to compare with.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from gate_runs import ROOT, worktree

from trtgate.common.text_columns import TextTable

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
SUITE = """
import torch
import trtgate


def net(width):
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, width, 3), torch.nn.ReLU(), torch.nn.Conv2d(width, width, 3), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers).eval(), torch.randn(1, 3, 64, 64)


MODELS = [
    trtgate.Model(f"net{width}", lambda width=width: net(width), trtgate.grid(["eager"])) for width in range(8, 16)
]
"""
WITHOUT, WITH, COLLECTING = (
    "a run without the plugin",
    "a run with the plugin installed, unused",
    "collecting the suite",
)
GATE = "a gate of eight eager modules"


def main() -> None:
    """Time the commands and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--before", help="a commit whose trtgate is timed too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        trees = {"now": ROOT}
        if given.before:
            trees[given.before] = stack.enter_context(worktree(given.before))
        seconds = timings(Path(folder), trees, given.runs)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("pytest", "pytest-benchmark", "torch"))
    print(f"Python {platform.python_version()}, {libraries}; {os.cpu_count()} CPUs, {given.runs} runs each")
    rows = [
        (name, tree, f"{statistics.median(values):.3f}", f"{min(values):.3f}")
        for (name, tree), values in seconds.items()
    ]
    print(TextTable([("command", "trtgate", "median s", "least s"), *rows]))
    for tree in trees:
        pairs = zip(seconds[WITHOUT, tree], seconds[WITH, tree], strict=True)
        print(f"the unused plugin ({tree}) adds {statistics.median(b - a for a, b in pairs):.3f} s (paired, median)")
    if given.before:
        for name in (WITHOUT, WITH, COLLECTING, GATE):
            pairs = zip(seconds[name, "now"], seconds[name, given.before], strict=True)
            print(f"{name}: now {statistics.median(a / b for a, b in pairs):.3f} times as long (median of paired runs)")


def timings(folder: Path, trees: dict[str, Path], runs: int) -> dict[tuple[str, str], list[float]]:
    """Run every command with every tree so many times; returns the seconds by command and tree."""
    empty, small = folder / "empty", folder / "small"
    empty.mkdir()
    (empty / "test_nothing.py").write_text("def test_nothing():\n    assert True\n")
    (empty / "pytest.ini").write_text("[pytest]\n")
    small.mkdir()
    (small / "suite.py").write_text(SUITE)
    (small / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(runs):
        for tree, root in trees.items():
            commands = {
                WITHOUT: ([*PYTEST, "-p", "no:trtgate.plugin"], empty),
                WITH: (PYTEST, empty),
                COLLECTING: ([*PYTEST, "benchmarks", "--collect-only"], root),
                GATE: ([*PYTEST, "suite.py", "-m", "trtgate_latency", "--benchmark-compare"], small),
            }
            for name, (command, cwd) in commands.items():
                found.setdefault((name, tree), []).append(timed(command, cwd, root / "src"))
    return found


def timed(command: list[str], cwd: Path, source: Path) -> float:
    """Return the wall time of a command in seconds. Raises CalledProcessError when it fails."""
    environment = {**os.environ, "PYTHONPATH": str(source), "CUDA_VISIBLE_DEVICES": ""}
    start = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
