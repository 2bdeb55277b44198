"""How far do sessions under load lie apart, and what passes for a leak?

    python studies/load.py [--sessions 6] [--most 2] [--launches 3] [--walks 20000]

Sessions record a module of eight linear layers anew each time: the standard deviation of the logs of their means, for
each metric. Simulated is memory that does not grow with every call: how often the interval says that it does, and how
often that of Theil and Sen's slope (scipy.stats.theilslopes). `server_faults.py` plants a real leak.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gate_runs
import numpy as np
from scipy import stats

from trtgate.common.accelerator import detect
from trtgate.common.metrics import OF_LOAD
from trtgate.report.terminal_table import describe
from trtgate.timing.memory_growth import MOST_CALLS, READINGS
from trtgate.verdict import grows_late, growth

SUITE = """
import torch
import trtgate
from trtgate.timing import canary, cpu_state

# Memory and load are asked for, whoever else is at work and however fast the machine is at the moment.
cpu_state.CpuMonitor.void_reason = lambda _monitor: ""
canary.cpu_canary = lambda: {"hash": 1000.0}


@trtgate.model(frontends=("eager",), precisions=("fp32",))
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(8)]).eval(), torch.randn(8, 256)
"""
RUN_TIMEOUT_S = 600


def sessions(count: int, most: int, launches: int) -> None:
    """Print how far sessions lie apart."""
    means: dict[str, list[float]] = {metric: [] for metric in OF_LOAD}
    for _ in range(count):
        with tempfile.TemporaryDirectory() as name:
            load = (f"--trtgate-load={most}", f"--trtgate-launches={launches}")
            gate_runs.of_suite(Path(name), SUITE, "--trtgate-update-baselines", *load, timeout_s=RUN_TIMEOUT_S)
            (file,) = Path(name).glob("baselines/*/latency.json")
            (entry,) = json.loads(file.read_text())["benchmarks"]
        (session,) = entry["extra_info"]["trtgate"]["sessions"]
        for metric, logs in means.items():
            logs.append(statistics.fmean(float(np.log(value)) for (value,) in session["metrics"][metric]))
    for metric, logs in means.items():
        typical = float(np.exp(statistics.fmean(logs)))
        print(f"| `{metric}` | {typical:,.1f} µs | {statistics.stdev(logs):.1%} | {max(logs) - min(logs):.1%} |")


def simulated(walks: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield kinds of memory that do not grow with every call, (walks, READINGS)."""
    rng = np.random.default_rng(0)
    yield "a random walk", np.cumsum(rng.normal(0, 1e6, (walks, READINGS)), axis=1)
    yield "steps up, five in a run on average", np.cumsum((rng.random((walks, READINGS)) < 5 / READINGS) * 4e6, axis=1)
    filled = rng.uniform(1, 15, (walks, 1))
    yield (
        "a cache that fills up",
        1e8 * (1 - np.exp(-np.arange(READINGS) / filled)) + rng.normal(0, 1e4, (walks, READINGS)),
    )
    yield "nothing but noise", rng.normal(0, 1e6, (walks, READINGS))


def simulation(walks: int) -> None:
    """Print how often what does not grow is taken for a leak."""
    calls = MOST_CALLS // READINGS
    for kind, readings in simulated(walks):
        lows = [growth(list(one), calls, 1 << 16) for one in readings]
        ours = sum(one is not None and one.low > 256 for one in lows) / walks
        fewer = readings[: walks // 20]
        at = calls * np.arange(READINGS)
        theil = sum(stats.theilslopes(one, at, 0.98).low_slope > 256 for one in fewer) / len(fewer)
        print(f"| {kind} | {ours:.2%} | {theil:.1%} |")
    twice = np.cumsum(np.random.default_rng(0).normal(0, 1e6, (walks, 2 * READINGS)), axis=1)
    print(f"a random walk that is read once more where it grows late: {sum(map(_alarms, twice)) / walks:.2%}")


def _alarms(walk: np.ndarray) -> bool:
    """Whether a walk is taken for a leak, as the process that reads memory does it: once more if it grows late."""
    first, second = (list(part) for part in np.split(walk, 2))
    calls = MOST_CALLS // READINGS
    found = growth(second if grows_late(first, calls, 1 << 16) else first, calls, 1 << 16)
    return found is not None and found.low > 256


def main() -> None:
    """Print all of it, simulation first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("sessions", 6), ("most", 2), ("launches", 3), ("walks", 20_000)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    print(describe(detect()))
    simulation(asked.walks)
    if asked.sessions > 1:
        sessions(asked.sessions, asked.most, asked.launches)


if __name__ == "__main__":
    main()
