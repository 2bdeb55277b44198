"""How far do pairs of the gate itself lie apart in host latency, with both sides on one CPU and without?

    python studies/host_pairs.py [--pairs 6] [--quadruples 12] [--suite FILE] [CASE …]

Fresh pairs of a case beside itself measure quadruples as `trtgate ab` does; on a GPU, of the host alone. Pairs that
keep to one CPU and pairs that do not take turns. Prints the spread between quadruples of a pair and between pairs'
means (root mean square: of a module beside itself the true difference is 0), the machine and the versions. Needs a
machine that nothing else uses.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import random
import tempfile
from pathlib import Path

import msgspec
import numpy as np
from gpu_process import ROOT

from trtgate.common import machine
from trtgate.common.accelerator import detect
from trtgate.common.metrics import ENQUEUE, HOST
from trtgate.gate import judging, policy
from trtgate.launches.comparison_side import Side
from trtgate.launches.pair import BASE, CANDIDATE, Artifacts, Pair
from trtgate.launches.pair_session import PairSession
from trtgate.report.terminal_table import describe
from trtgate.suite.suite_source import SuiteSource

CASES = ("resnet18-eager-fp32-b1",)
HOW = ("as it comes", "on one CPU")
TIMEOUT_S = 300.0


def measured(pair: Pair, quadruples: int, *, one_cpu: bool) -> dict[str, np.ndarray]:
    """Return d of quadruples of a warm pair, by metric of the host."""
    turn = pair._turn
    if not one_cpu:
        pair._turn = lambda name, plan, rng: turn(name, msgspec.structs.replace(plan, cpu=None), rng)  # type: ignore[method-assign]
    rng = random.Random()
    for _ in range(quadruples):
        pair.quadruple(rng, device=False)
    primary = policy.primary_of([pair.quadruples])
    metrics = (HOST,) if primary == HOST else (HOST, ENQUEUE)
    return {metric: judging.pair_differences(pair.quadruples, metric, primary) for metric in metrics}


def read(session: PairSession, case_id: str, options: argparse.Namespace) -> dict[tuple[str, str], list[np.ndarray]]:
    """Return d of each pair, by how it was measured and metric."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    with contextlib.suppress(KeyboardInterrupt):  # what was measured until then is shown
        for number in range(options.pairs):
            for how in random.sample(HOW, len(HOW)):
                (pair,) = session.start(1)
                session.load([pair], case_id, Artifacts(base=None, candidate=None))
                pair.warm_up(random.Random())
                for metric, d in measured(pair, options.quadruples, one_cpu=how == HOW[1]).items():
                    found.setdefault((how, metric), []).append(d)
                session.end(pair)
            print(f"# {case_id}: pair {number + 1} of each", flush=True)
    return found


def main() -> None:
    """Measure all cases, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", default=CASES)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--quadruples", type=int, default=12)
    parser.add_argument("--suite", type=Path, default=ROOT / "benchmarks" / "suite.py")
    options = parser.parse_args()
    suite = options.suite.resolve()
    source = SuiteSource(root=str(suite.parent), suites=(suite.name,))
    base, candidate = (Side(name=name, source=source) for name in (BASE, CANDIDATE))
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        session = PairSession(base, candidate, detect(), Path(folder), timeout_s=TIMEOUT_S)
        try:
            for case_id in options.cases:
                lines += map(
                    functools.partial(line, case_id), *zip(*read(session, case_id, options).items(), strict=True)
                )
        finally:
            session.close()
    print(f"\n{describe(detect())}, {machine.cpus()} CPUs; {options.quadruples} quadruples a pair\n")
    print("| case | | metric | pairs | between quadruples | between pairs' means |\n|---|---|---|--:|--:|--:|")
    print("\n".join(lines))


def line(case_id: str, key: tuple[str, str], of: list[np.ndarray]) -> str:
    """Return a row of the table."""
    how, metric = key
    within = math.sqrt(float(np.mean([d.var(ddof=1) for d in of])))
    apart = math.sqrt(float(np.mean([d.mean() ** 2 for d in of])))
    return f"| {case_id} | {how} | {metric} | {len(of)} | {within:.2%} | {apart:.2%} |"


if __name__ == "__main__":
    main()
