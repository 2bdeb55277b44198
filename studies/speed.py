"""How long does it take to compare 10,000 cases with 20 stored launches each?

    python studies/speed.py [--cases 10000] [--sessions 4] [--repeat 3]

Times `verdict.judge_stored`, once a case as the gate calls it (4 sessions of 5 launches against one of 3), and
`verdict.compare_stored`, which takes all at once. The fastest of the repetitions counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

import numpy as np
import scipy

from trtgate import verdict
from trtgate.verdict.stored_sessions import within_session_sd

LAUNCHES, NOW = 5, 3


def main() -> None:
    """Time both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=4, help=f"stored sessions, of {LAUNCHES} launches each")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    cases, rng, prior = options.cases, np.random.default_rng(1), verdict.PRIORS["device", True]
    stored = rng.normal(5.0, 0.001, (cases, options.sessions, LAUNCHES))
    now = rng.normal(5.0, 0.001, (cases, NOW))

    def one_by_one() -> None:
        for case in range(cases):
            verdict.judge_stored("device", now[case], list(stored[case]), prior, limit=0.01, tests=cases)

    def at_once() -> None:
        within = within_session_sd([*np.moveaxis(stored, 1, 0), now], NOW)
        means = np.mean(stored, axis=-1)
        verdict.compare_stored(np.mean(now, axis=-1), means, within, prior, limit=0.01, tests=cases)

    print(f"{cases:,} cases x {options.sessions * LAUNCHES} stored launches, fastest of {options.repeat}:")
    print(f"judge_stored, case by case  {fastest(one_by_one, options.repeat):.2f} s")
    print(f"compare_stored, all at once {fastest(at_once, options.repeat):.3f} s")
    print(
        f"NumPy {np.__version__}, SciPy {scipy.__version__}, Python {platform.python_version()}, "
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs"
    )


def fastest(work: Callable[[], None], repeat: int) -> float:
    """Return the seconds of the fastest of `repeat` calls."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
