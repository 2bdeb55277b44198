"""What a large suite costs beside its measuring: saving each case as it comes, and reading saved runs again.

    python studies/large_suites.py --cases 2000        # a recording of so many cases, neither built nor measured
    python studies/large_suites.py --history 200       # `trtgate history` over so many runs of --cases cases

What is built and measured is scripted, so that the time is pytest's, pytest-benchmark's and ours. The first prints what
saving a case takes, at the beginning and at the end of the run, and how long the whole takes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from trtgate.commands import history_answers
from trtgate.common.accelerator import detect
from trtgate.common.text_columns import TextTable
from trtgate.gate import baselines, measurers
from trtgate.gate.saved_runs import Asked
from trtgate.launches.prebuild import Prebuilt
from trtgate.pytest_plugin.built_case import BuiltCase
from trtgate.pytest_plugin.gate_run import GateRun
from trtgate.records.measurement import Build, Capture, CaseMeasurement, Launch, Loaded, Turn
from trtgate.report.terminal_table import describe
from trtgate.timing.host_clock import HostClock

SUITE = """
import torch
import trtgate


for number in range({cases}):
    def tiny(batch):
        return torch.nn.Identity(), torch.ones(batch, 4)

    tiny.__name__ = f"net{{number}}"
    globals()[tiny.__name__] = trtgate.model(tiny, frontends=("eager",), precisions=("fp32",))
"""


class ScriptedSession:
    """Stands in for the workers."""

    def __init__(self, *_where: Any, **_how: Any) -> None: ...

    def start(self) -> None:
        """Start nothing."""

    def stop(self) -> None:
        """Stop nothing."""

    def close(self) -> None:
        """End nothing."""

    def measure(self, case_id: str, *_others: Any) -> CaseMeasurement:
        """Return as many numbers as a run with three launches has."""
        captures = [Capture(blocks_us=[100.0 + 0.1 * number], replays=1) for number in range(4)]
        turn = Turn(clock=HostClock.name, captures=captures, host_us=[], enqueue_us=[], canary_us={})
        launches = [Launch(loaded=Loaded(seconds=1.0, gpu_memory_bytes=None), turns=[turn]) for _ in range(3)]
        return CaseMeasurement(case_id=case_id, launches=launches, uuid="", seconds=2.0, build=None)


def recording(folder: Path, cases: int) -> None:
    """Record so many cases, and print what saving them took."""
    (folder / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
    (folder / "suite.py").write_text(SUITE.format(cases=cases))
    os.chdir(folder)
    took: list[float] = []
    save = GateRun.save_case

    def timed(run: GateRun, benchmark: Any) -> None:
        start = time.perf_counter()
        save(run, benchmark)
        took.append(time.perf_counter() - start)

    def built(case: BuiltCase) -> Prebuilt:
        return Prebuilt(case_id=case.case.id, build=Build(build_s=0.1))

    start = time.perf_counter()
    printed = io.StringIO()
    record = ["-q", "-s", "-p", "no:cacheprovider", "-m", "trtgate_latency", "--trtgate-update-baselines", "."]
    with (
        contextlib.redirect_stdout(printed),
        patch.object(GateRun, "save_case", timed),
        patch.object(measurers, "Session", ScriptedSession),
        patch.object(BuiltCase, "check", built),
        patch("cpuinfo.get_cpu_info", dict),
    ):
        status = pytest.main(record)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(printed.getvalue()[-2000:])
    first, last = took[1:101], took[-100:]
    print(TextTable([
        ("cases", str(len(took))),
        ("saving one, median of the first hundred", f"{statistics.median(first) * 1e3:.2f} ms"),
        ("saving one, median of the last hundred", f"{statistics.median(last) * 1e3:.2f} ms"),
        ("saving one, the longest but for the first", f"{max(took[1:]) * 1e3:.2f} ms"),
        ("the whole run", f"{seconds:.0f} s, {seconds / len(took) * 1e3:.0f} ms a case"),
    ], titled=False))  # fmt: skip


def history(folder: Path, runs: int, cases: int) -> None:
    """Read so many saved runs, and print the time and the memory that takes."""
    accelerator = {"kind": "cpu", "name": "study", "cpus": 2}
    for number in range(runs):
        recorded = f"2026-{1 + number // 28:02}-{1 + number % 28:02}T12:00:00+00:00"
        entries = [entry(f"net{case}-eager-fp32-b1", recorded, 100.0 + number % 7) for case in range(cases)]
        document = {"trtgate": {"schema": baselines.SCHEMA}, "machine_info": {"accelerator": accelerator}}
        text = json.dumps({**document, "benchmarks": entries})
        (folder / f"{number:04}.json").write_text(text)
    before, start = peak_mib(), time.perf_counter()
    found = history_answers.find(["net7-*"], folder, Asked(key="cpu-study-2-cpus"))
    (case, *_) = found.histories["cpu-study-2-cpus"]
    print(TextTable([
        ("runs, and cases of each", f"{len(case.series[0].points)}, {cases}"),
        ("all files", f"{sum(file.stat().st_size for file in folder.iterdir()) / 2**20:.0f} MiB"),
        ("read and analysed in", f"{time.perf_counter() - start:.1f} s"),
        ("most memory, before and after", f"{before:.0f} and {peak_mib():.0f} MiB"),
    ], titled=False))  # fmt: skip


def entry(case: str, recorded: str, us: float) -> dict[str, Any]:
    """Return a case as a saved run has it: three launches, two metrics."""
    metrics = {"host": [[us + 0.1 * number for number in range(8)]] * 3}
    session = {"recorded": recorded, "uuid": "", "clock": "host", "metrics": metrics}
    record = {"case": case, "settings": {"frontend": "eager"}, "verdict": "unchanged", "sessions": [session]}
    stats = dict.fromkeys(("min", "max", "mean", "stddev", "median", "iqr", "q1", "q3", "total"), us * 1e-06)
    return {"fullname": f"suite.py::{case}", "name": case, "stats": stats, "extra_info": {"trtgate": record}}


def peak_mib() -> float:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--history", type=int, metavar="RUNS", help="read so many runs instead")
    options = parser.parse_args()
    print(describe(detect()))
    with tempfile.TemporaryDirectory() as folder:
        if options.history:
            history(Path(folder), options.history, options.cases)
        else:
            recording(Path(folder), options.cases)


if __name__ == "__main__":
    main()
