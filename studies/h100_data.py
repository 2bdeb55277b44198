"""Do the verdicts hold on what an H100 measured? Screening and confirmation on the stored blocks of two models.

    python studies/h100_data.py [--limit 0.005]

The files in tests/data hold launches of one H100, 20 rounds each, every arm once a round. Arms `a` and `a2` are two
captures of one module, `+1%` … `+5%` captures with a spin kernel appended. An arm is held against `a` of its own
launch: a launch is taken as a pair (both arms share the process), two consecutive rounds as a quadruple. Each arm is
one capture, so its own effect, which a run averages over many, stays in the difference: `a` and `a2` differ, always.

Screening is shown at the looks that 10 quadruples allow. Confirmation wants 6 pairs, and there are 5 and 4 launches:
its interval is shown for as many as there are, at the alpha of its first look.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

from trtgate import verdict

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
FILES = ("h100_resnet18_blocks.json", "h100_resnet50_b8_blocks.json")
ARMS = ("a2", "+1%", "+2%", "+3%", "+5%")
TESTS = 100


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=0.005, help="minimal effect, a fraction")
    limit = parser.parse_args().limit
    looks = [look for look in verdict.LOOKS if look <= 10]
    heads = ["model", "arm", "change, launch by launch", f"cleared at {verdict.FIRST_LOOK}"]
    heads += [*(f"flagged at {look}" for look in looks), "cleared"]
    heads += ["lower bound over launches", "confirmed"]
    print(f"Minimal effect {limit:.2%}, one of {TESTS} tests.\n")
    print("| " + " | ".join(heads) + " |")
    print("|" + "---|" * len(heads))
    for name in FILES:
        launches = json.loads((DATA / name).read_text())["launches"]
        for arm in ARMS:
            d = np.stack([quadruples(launch["a"], launch[arm]) for launch in launches])
            print(
                "| " + " | ".join([name.removeprefix("h100_").removesuffix("_blocks.json"), arm, *row(d, limit)]) + " |"
            )


def quadruples(base: list[float], candidate: list[float]) -> np.ndarray:
    """Return the differences of quadruples made of two consecutive rounds each."""
    a, b = (np.asarray(rounds).reshape(-1, 2) for rounds in (base, candidate))
    return verdict.differences(a, b)


def row(d: np.ndarray, limit: float) -> list[str]:
    """Return the cells of an arm with the differences `d` (launches, quadruples)."""
    launches, measured = d.shape
    looks = [verdict.screen(d[:, :look], limit) for look in verdict.LOOKS if look <= measured]
    first, means = verdict.screen(d[:, : verdict.FIRST_LOOK], limit), np.mean(d, axis=1)
    found = verdict.confirm(means, limit, TESTS)
    return [
        ", ".join(f"{math.expm1(mean):+.2%}" for mean in means),
        f"{np.count_nonzero(first.cleared)} of {launches}",
        *(f"{np.count_nonzero(look.flagged)} of {launches}" for look in looks),
        f"{np.count_nonzero(looks[-1].cleared)} of {launches}",
        f"{math.expm1(found.low):+.2%}",
        "yes" if found.confirmed else "no",
    ]


if __name__ == "__main__":
    main()
