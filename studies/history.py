"""How often does `trtgate history` call a flat series changed, and which steps and drifts does it find?

    python studies/history.py [--series 4000] [--changed 500] [--runs 30] [--seed 1]

Draws series of latencies with noise of several kinds and gives each to `trtgate.gate.history.analysed`. Noise is given
as its standard deviation around the level, a share of the latency. A flat series is called changed when a step or a
drift is found in it. In the others a step counts as found when one was placed within a run of where it is, and a drift
when it was called one. Intervals are Clopper and Pearson's, 95 %. Takes about a minute; prints the machine and the
versions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib import metadata

import numpy as np
from scipy import signal, stats

from trtgate.common.accelerator import detect
from trtgate.common.text_columns import TextTable
from trtgate.gate.history import HistoryPoint, Series, analysed
from trtgate.report.terminal_table import describe

Noise = Callable[[np.random.Generator, int, float], np.ndarray]
"""Draws so many values with a standard deviation."""

DOF = 3
WARM_UP = 100
"""Values drawn before those that are taken, so that what depends on the one before has forgotten its start."""
NOISE = 0.002
"""Of series with a step or a drift."""
STEPS = (0.004, 0.006, 0.008, 0.010, 0.015)
DRIFTS = (0.0003, 0.0005, 0.001, 0.002, 0.003)
"""A run."""
DRIFTING = 10


def normal(rng: np.random.Generator, runs: int, sd: float) -> np.ndarray:
    return rng.normal(0.0, sd, runs)


def with_outliers(rng: np.random.Generator, runs: int, sd: float) -> np.ndarray:
    """Return Student's t of DOF degrees of freedom, scaled to the standard deviation."""
    return rng.standard_t(DOF, runs) * sd / np.sqrt(DOF / (DOF - 2))


def correlated(share: float) -> Noise:
    """Return noise of which each run keeps a share of the run before: an autoregressive process of first order."""

    def draw(rng: np.random.Generator, runs: int, sd: float) -> np.ndarray:
        fresh = rng.normal(0.0, sd * np.sqrt(1 - share**2), WARM_UP + runs)
        return np.asarray(signal.lfilter([1.0], [1.0, -share], fresh)[WARM_UP:])

    return draw


FLAT: tuple[tuple[str, Noise, float], ...] = (
    ("normal, 0.1 %", normal, 0.001),
    ("normal, 0.2 %", normal, 0.002),
    ("normal, 0.3 %", normal, 0.003),
    ("correlation 0.3 with the run before, 0.2 %", correlated(0.3), 0.002),
    ("correlation 0.6 with the run before, 0.2 %", correlated(0.6), 0.002),
    (f"outliers (Student's t, {DOF} degrees of freedom), 0.2 %", with_outliers, 0.002),
)


def looked_through(logs: np.ndarray) -> Series:
    """Return what is found in a series, given as logarithms."""
    points = [
        HistoryPoint(
            recorded=f"{run:06}", run=f"{run}", commit="", branch="", dirty=False, latency_us=us, verdict="unchanged"
        )
        for run, us in enumerate(100 * np.exp(logs))
    ]
    return analysed("device", "cuda_graph", "GPU-1", points)


def rate(hits: int, of: int) -> str:
    """Format a proportion in per cent, with its interval."""
    low, high = stats.binomtest(hits, of).proportion_ci(0.95, method="exact")
    return f"{100 * hits / of:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def flat(series: int, runs: int, seed: int) -> list[tuple[str, ...]]:
    """Return a row for each kind of noise, and one for all that is independent and normal."""
    rows, of_normal = [], np.zeros(3, dtype=int)
    for number, (name, noise, sd) in enumerate(FLAT):
        rng = np.random.default_rng([seed, 0, number])
        found = [looked_through(noise(rng, runs, sd)) for _ in range(series)]
        said = np.array([(bool(one.steps or one.drift), bool(one.steps), one.drift is not None) for one in found])
        counts = np.count_nonzero(said, axis=0)
        rows.append(_flat_row(name, counts, series))
        if noise is normal:
            of_normal += counts
    normals = sum(noise is normal for _, noise, _ in FLAT)
    rows.insert(normals, _flat_row("normal, all of them", of_normal, normals * series))
    return [("flat, noise", "series", "called changed, %", "a step, %", "a drift, %"), *rows]


def _flat_row(name: str, counts: np.ndarray, series: int) -> tuple[str, ...]:
    return (name, f"{series:,}", *(rate(int(count), series) for count in counts))


def changed(series: int, runs: int, seed: int) -> list[tuple[str, ...]]:
    """Return a row for each step and each drift."""
    rows: list[tuple[str, ...]] = []
    began = 2 * runs // 3
    for number, size in enumerate(STEPS):
        logs = np.log1p(size) * (np.arange(runs) >= began)
        found = _found(logs, series, np.random.default_rng([seed, 1, number]))
        placed = sum(any(abs(step.first - began) <= 1 for step in one.steps) for one in found)
        rows.append((f"step of {100 * size:.1f} %, {runs - began} runs ago", *_changed_row(found, placed)))
    for number, size in enumerate(DRIFTS):
        logs = np.log1p(size) * np.maximum(np.arange(runs) - (runs - DRIFTING - 1), 0)
        found = _found(logs, series, np.random.default_rng([seed, 2, number]))
        drifted = sum(one.drift is not None for one in found)
        rows.append((f"drift of {100 * size:.2f} % a run over {DRIFTING} runs", *_changed_row(found, drifted)))
    return [(f"noise {100 * NOISE:.1f} %", "series", "found as what it is, %", "found at all, %"), *rows]


def _found(logs: np.ndarray, series: int, rng: np.random.Generator) -> list[Series]:
    return [looked_through(logs + normal(rng, len(logs), NOISE)) for _ in range(series)]


def _changed_row(found: list[Series], right: int) -> tuple[str, ...]:
    anything = sum(bool(one.steps or one.drift) for one in found)
    return f"{len(found):,}", rate(right, len(found)), rate(anything, len(found))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=4000, help="flat series of each kind")
    parser.add_argument("--changed", type=int, default=500, help="series with each step and drift")
    parser.add_argument("--runs", type=int, default=30, help="runs in a series")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.perf_counter()
    print(describe(detect()))
    print(f"apache-otava {metadata.version('apache-otava')}, seed {options.seed}, {options.runs} runs in a series\n")
    print(TextTable(flat(options.series, options.runs, options.seed)), flush=True)
    print()
    print(TextTable(changed(options.changed, options.runs, options.seed)))
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
