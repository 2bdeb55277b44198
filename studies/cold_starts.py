"""How far do cold starts lie apart: those of one session, and sessions?

    python studies/cold_starts.py FOLDER [--sessions 3] [--starts 4] [PYTEST OPTIONS]

Every session is a run of the latency tests of `pytest benchmarks` that measures cold starts and records them, in a
folder of its own; builds are cached after the first. Seconds of a case are taken apart by their logs: starts of a
session, and means of sessions, each with its standard deviation. Prints the machine, the versions and a table.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import gate_runs
import numpy as np

from trtgate.common import machine
from trtgate.common.accelerator import detect
from trtgate.common.metrics import COLD_START, COLD_START_CACHED
from trtgate.common.text_columns import TextTable
from trtgate.report.terminal_table import describe

Seconds = dict[tuple[str, str], list[list[float]]]
"""Case, metric → the starts of each session, in seconds."""


def read(folder: Path, into: Seconds) -> dict[str, tuple[float, float | None]]:
    """Add the cold starts of a session that was recorded there; returns the host and GPU bytes of each case."""
    taken = {}
    for file in sorted(folder.rglob("latency.json")):
        for benchmark in json.loads(file.read_text())["benchmarks"]:
            entry = benchmark["extra_info"]["trtgate"]
            (session,) = entry["sessions"]
            for metric in (COLD_START, COLD_START_CACHED):
                if starts := session["metrics"].get(metric):
                    into.setdefault((entry["case"], metric), []).append([value for (value,) in starts])
            figures = entry["figures"]
            taken[entry["case"]] = (figures["cold_host_bytes"], figures.get("cold_gpu_bytes"))
    return taken


def spread(logs: list[float]) -> str:
    """Return the standard deviation of logs."""
    return f"{statistics.stdev(logs):.1%}" if len(logs) > 1 else "-"


def main() -> None:
    """Record the sessions, and print the table of those that there are, even where Ctrl-C ends it early."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--starts", type=int, default=4)
    options, more = parser.parse_known_args()
    print(f"{describe(detect())}, {machine.cpus()} CPUs", flush=True)
    asked = ["-m", "trtgate_latency", "--trtgate-launches=1", "--trtgate-update-baselines"]
    found: Seconds = {}
    try:
        for number in range(options.sessions):
            folder = options.folder.resolve() / f"session-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            starts = f"--trtgate-cold-starts={options.starts}"
            gate_runs.run("record", folder, options.folder.resolve() / "caches", [*asked, starts, *more])
            for case_id, (host, gpu) in read(folder / "baselines", found).items():
                print(f"# {case_id}: {host:.0f} bytes of host memory, {gpu or 0:.0f} of the GPU's", flush=True)
    except KeyboardInterrupt:
        print("# ended early")
    table = [("case", "metric", "seconds", "starts of a session", "sessions", "furthest apart")]
    for (case_id, metric), sessions in found.items():
        logs = [[float(np.log(value)) for value in one] for one in sessions]
        means = [statistics.fmean(one) for one in logs]
        apart = f"{max(means) - min(means):.1%}" if len(means) > 1 else "-"
        within = "-"
        if all(len(one) > 1 for one in logs):
            within = f"{np.sqrt(statistics.fmean(statistics.variance(one) for one in logs)):.1%}"
        typical = float(np.exp(statistics.fmean(means)))
        table.append((case_id, metric, f"{typical:.3f}", within, spread(means), apart))
    print(TextTable(table))


if __name__ == "__main__":
    main()
