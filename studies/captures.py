"""How many captures does a launch need? Asks sessions that are stored, in which each launch has all of them.

    python studies/captures.py [FOLDER …] [--counts 24,16,12,8,6] [--draws 400]

FOLDER has a `latency.json` (default: all of `baselines/`). Of each launch of a session so many captures are drawn
without replacement, and their trimmed mean is the launch's, as the gate takes it; printed is the standard deviation
between launches of a session, pooled over sessions of a clock (root mean square), and how far the mean of three
launches moves by leaving captures out. Only sessions whose launches all have the most captures count.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections import defaultdict
from pathlib import Path

import numpy as np

from trtgate.common.text_columns import TextTable
from trtgate.verdict import launch_mean

ROOT = Path(__file__).resolve().parent.parent
METRIC, GATED = "device", 3


def sessions(file: Path, most: int) -> dict[tuple[str, str], list[np.ndarray]]:
    """Return (clock, case) → sessions of a file, logs (launches, captures)."""
    found = defaultdict(list)
    for benchmark in json.loads(file.read_text())["benchmarks"]:
        record = benchmark["extra_info"]["trtgate"]
        for session in record["sessions"]:
            launches = session["metrics"].get(METRIC, [])
            if len(launches) >= GATED and all(len(one) == most for one in launches):
                found[session["clock"], record["case"]].append(np.log(launches))
    return found


def spread(logs: np.ndarray, count: int, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the variance between launches by `count` captures of each, and that of three launches' mean by the draw.

    `logs` is (launches, captures); both are means over `draws`.
    """
    whole = np.mean([launch_mean(one) for one in logs[:GATED]])
    variances, moved = [], []
    for _ in range(draws if count < logs.shape[1] else 1):
        means = [launch_mean(rng.permutation(one)[:count]) for one in logs]
        variances.append(np.var(means, ddof=1))
        moved.append((np.mean(means[:GATED]) - whole) ** 2)
    return float(np.mean(variances)), float(np.mean(moved))


def line(name: str, logs: list[np.ndarray], counts: list[int], draws: int, rng: np.random.Generator) -> list[str]:
    """Return a row of the table, of sessions (launches, captures): root mean squares over them."""
    captures = math.sqrt(np.mean([np.var(one, axis=1, ddof=1).mean() for one in logs]))
    drawn = np.asarray([[spread(one, count, draws, rng) for one in logs] for count in counts])
    between, moved = np.sqrt(drawn.mean(axis=1)).T
    figures = [captures, *between, *moved[1:]]
    return [name, str(len(logs)), *(f"{one:.3%}" for one in figures)]


def main() -> None:
    """Print a table of each file and clock."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--counts", default="24,16,12,8,6")
    parser.add_argument("--draws", type=int, default=400)
    options = parser.parse_args()
    counts = [int(one) for one in options.counts.split(",")]
    rng = np.random.default_rng(1)
    columns = [f"{one} captures" for one in counts] + [f"moved, {one}" for one in counts[1:]]
    for folder in options.folders or sorted(path.parent for path in ROOT.glob("baselines/*/latency.json")):
        found = sessions(folder / "latency.json", max(counts))
        for clock in sorted({clock for clock, _ in found}):
            cases = {case: logs for (own, case), logs in found.items() if own == clock}
            groups = {
                "dynamo": [one for case, logs in cases.items() if "-dynamo-" in case for one in logs],
                "eager": [one for case, logs in cases.items() if "-eager-" in case for one in logs],
                **cases,
            }
            rows = [line(name, logs, counts, options.draws, rng) for name, logs in groups.items() if logs]
            print(TextTable([[f"{folder.name}, {clock}", "sessions", "between captures", *columns], *rows]), end="\n\n")
    print(f"Seed 1, NumPy {np.__version__}, Python {platform.python_version()}.")


if __name__ == "__main__":
    main()
