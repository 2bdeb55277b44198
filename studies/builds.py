"""How far apart lie two builds of the same program? TensorRT may choose other tactics each time.

    python studies/builds.py [--builds 5] [--launches 4] [--in-turn] [--json FILE] [CASE …]

Builds each case several times, one process a build, all at once or, with `--in-turn`, one after the other on a GPU that
does nothing else. Then as many processes as `--launches` load every build and take turns on the GPU, builds in random
order. Prints for each case the build times as the gate judges them, the standard deviation between builds and between
loads of one build (one-way analysis of variance with random effects; e.g. Box, Hunter and Hunter, Statistics for
Experimenters, ch. 4), F with its p, and the mean of each build with a letter for the set of kernels that it runs.
Ctrl-C ends it early, with the cases that were done. Needs a GPU that nothing else uses.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import string
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gpu_process import Remote, gate_states, remotes
from scipy import stats
from states import MODELS


class Components(NamedTuple):
    """Standard deviations of logs, and the test whether builds differ at all."""

    between: float
    within: float
    f: float
    p: float


def components(groups: Sequence[Sequence[float]]) -> Components:
    """Return the variance components of groups of equal size: what groups add, and what lies within them."""
    values = np.asarray(groups, dtype=float)
    count, size = values.shape
    within = float(values.var(axis=1, ddof=1).mean())
    means = float(values.mean(axis=1).var(ddof=1)) * size
    f = means / within if within else math.inf
    p = float(stats.f.sf(f, count - 1, count * (size - 1)))
    return Components(math.sqrt(max(0.0, (means - within) / size)), math.sqrt(within), f, p)


def main() -> None:
    """Build, load, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", default=list(MODELS.values()))
    parser.add_argument("--builds", type=int, default=5)
    parser.add_argument("--launches", type=int, default=4)
    parser.add_argument("--in-turn", action="store_true", help="build one after the other")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    options = parser.parse_args()
    places, build_s = built(options.cases, options.builds, Path(tempfile.mkdtemp()), in_turn=options.in_turn)
    document: dict[str, Any] = {"cases": {}}
    with gate_states() as switcher, remotes(options.launches, switcher=switcher) as launches:
        document["versions"] = launches[0].ask("versions")
        with contextlib.suppress(KeyboardInterrupt):
            for case_id, folders in places.items():
                document["cases"][case_id] = {**measured(case_id, folders, launches), "build_s": build_s[case_id]}
    if options.json:
        options.json.write_text(json.dumps(document))
    report(document)


def built(
    cases: Sequence[str], builds: int, root: Path, *, in_turn: bool
) -> tuple[dict[str, list[str]], dict[str, list[float]]]:
    """Build each case so often, all builds of a case at once or in turn; returns their folders, and their seconds."""
    places: dict[str, list[str]] = {}
    build_s: dict[str, list[float]] = {}
    for case_id in cases:
        folders, seconds = [root / f"{case_id}-{number}" for number in range(builds)], list[float]()
        with remotes(builds) as builders:
            for builder in builders:
                builder.send("versions")  # it imports meanwhile
            for builder in builders:
                builder.receive()
            for builder, folder in zip(builders, folders, strict=True):
                folder.mkdir(mode=0o700)
                builder.send("build", case_id=case_id, folder=str(folder))
                if in_turn:
                    seconds.append(builder.receive())
            if not in_turn:
                seconds += [builder.receive() for builder in builders]
        places[case_id], build_s[case_id] = [str(folder) for folder in folders], seconds
    return places, build_s


def measured(case_id: str, folders: Sequence[str], launches: Sequence[Remote]) -> dict[str, Any]:
    """Return log µs of each build in each launch, and the names of the kernels of each build."""
    log_us: dict[str, list[float]] = {folder: [] for folder in folders}
    kernels: dict[str, list[str]] = {}
    for folder in random.sample(list(folders), len(folders)):
        for remote in launches:
            remote.send("load", case_id=case_id, folder=folder)
        for remote in launches:
            remote.receive()
        for remote in random.sample(list(launches), len(launches)):
            read = remote.ask("clocks", seed=random.getrandbits(30), others=False)
            log_us[folder].append(math.log(read["trtgate"]))
        launches[0].ask("capture_loaded", seeds=[1])
        kernels[folder] = launches[0].ask("kernels", name="capture 0")["names"]
    return {"log_us": list(log_us.values()), "kernels": list(kernels.values())}


def report(document: dict[str, Any]) -> None:
    """Print the table."""
    print(", ".join(f"{name} {value}" for name, value in document["versions"].items()))
    print("| case | built in s | µs | between builds | between loads of a build | F | p | builds, µs, set of kernels |")
    print("|---|---|---|---|---|---|---|---|")
    for case_id, found in document["cases"].items():
        of = components(found["log_us"])
        us = math.exp(float(np.mean(found["log_us"])))
        sets = list(dict.fromkeys(tuple(names) for names in found["kernels"]))
        each = [math.exp(float(np.mean(loads))) for loads in found["log_us"]]
        letters = [string.ascii_uppercase[sets.index(tuple(names))] for names in found["kernels"]]
        builds = ", ".join(f"{mean:.2f} {letter}" for mean, letter in sorted(zip(each, letters, strict=True)))
        built_in = " ".join(f"{one:.1f}" for one in found["build_s"])
        spread = f"{of.between:.3%} | {of.within:.3%} | {of.f:.1f} | {of.p:.3f}"
        print(f"| {case_id} | {built_in} | {us:.2f} | {spread} | {builds} |")


if __name__ == "__main__":
    main()
