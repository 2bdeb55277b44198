"""What the plugin costs a run that uses none of it, and how long collecting this repository's suite takes.

    python studies/overhead.py [--runs 15]

Alternates the commands, so that a busy machine meets all alike, and prints medians and the fastest.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]


def main() -> None:
    """Time the commands and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder)
        (empty / "test_nothing.py").write_text("def test_nothing():\n    assert True\n")
        (empty / "pytest.ini").write_text("[pytest]\n")
        commands = {
            "a run without the plugin": ([*PYTEST, "-p", "no:trtgate.plugin"], empty),
            "a run with the plugin installed, unused": (PYTEST, empty),
            "pytest benchmarks --collect-only -q": ([*PYTEST, "benchmarks", "--collect-only"], ROOT),
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, (command, cwd) in commands.items():
                seconds[name].append(timed(command, cwd))
    libraries = ", ".join(f"{name} {version(name)}" for name in ("pytest", "pytest-benchmark", "torch"))
    print(f"Python {platform.python_version()}, {libraries}; {os.cpu_count()} CPUs, {runs} runs each")
    print(f"{'command':45}{'median s':>10}{'least s':>10}")
    for name, values in seconds.items():
        print(f"{name:45}{statistics.median(values):10.3f}{min(values):10.3f}")
    without, with_plugin, _ = seconds.values()
    added = statistics.median(b - a for a, b in zip(without, with_plugin, strict=True))
    print(f"the unused plugin adds {added:.3f} s (median of paired runs)")


def timed(command: list[str], cwd: Path) -> float:
    """Return the wall time of a command in seconds. Raises CalledProcessError when it fails."""
    start = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
