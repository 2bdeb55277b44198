"""How long does `trtgate affected` take, on two CPUs, for the 16 dynamo cases of the suite's torchvision models?

    python studies/affected.py [--times 5] [--cpus 2] [--base HEAD]

Runs the command in a process of its own, on so many CPUs, and prints a row for each run as Markdown: wall time, and
the CPU time of all its processes. Where they took less CPU time than the CPUs had, others were at work on them: the
quotient says what a quiet machine would take at best. Needs no GPU, and a checkout that is as the base.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from trtgate.common import accelerator

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("resnet18", "resnet50", "mobilenet_v3_large", "vit_b_16")
CASES = 16


def main() -> None:
    """Run it, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--base", default="HEAD")
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))[: options.cpus]
    os.sched_setaffinity(0, cpus)
    versions = ", ".join(f"{name} {version}" for name, version in accelerator.installed().items())
    print(f"{accelerator.detect().name}, {len(cpus)} CPUs, Python {platform.python_version()}, {versions},")
    print(f"torchvision {metadata.version('torchvision')}\n")
    print("| run | wall time, s | CPU time, s | CPU time / CPUs, s | load before |\n|---|---|---|---|---|")
    for number in range(1, options.times + 1):
        load = os.getloadavg()[0]
        wall_s, cpu_s = timed(options.base)
        print(f"| {number} | {wall_s:.1f} | {cpu_s:.1f} | {cpu_s / len(cpus):.1f} | {load:.1f} |", flush=True)


def timed(base: str) -> tuple[float, float]:
    """Return the wall time and the CPU time of one run."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "trtgate", "affected", "--base", base, "--frontend", "dynamo", *MODELS],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall_s, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or f"nothing is touched: {CASES} cases" not in done.stdout:
        sys.exit(f"not as {base}:\n{done.stdout}{done.stderr}")
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
