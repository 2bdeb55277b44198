"""What comes of faults: runs that are killed, files that are damaged, file systems that fail, and cases that hide.

    python studies/faults.py [--seed 0] [--only kills files system hiding] [--kills 100] [--files 300] [--findings]
    python studies/faults.py --only files --like 'latency.json, a pipe'
    python studies/faults.py --again 'files 17'      # one attempt, with all that it printed

Needs no GPU. Prints a table for each class and a summary, as Markdown; with `--findings` also
what shows each fault that did not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import multiprocessing
import os
import platform
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"  # before torch: what forks must have no threads
from tests import fork_server, forks  # noqa: E402

for name in fork_server.IMPORTED:
    importlib.import_module(name)

import fault_files  # noqa: E402
import fault_hiding  # noqa: E402
import fault_kills  # noqa: E402
import fault_system  # noqa: E402
from fault_runs import Attempt, Came, Place, Result  # noqa: E402

from trtgate.common.accelerator import detect, installed  # noqa: E402

FAMILIES = {"kills": fault_kills, "files": fault_files, "system": fault_system, "hiding": fault_hiding}
DEFAULTS = {"kills": 100, "files": 300, "system": len(fault_system.FAULTS), "hiding": len(fault_hiding.WAYS)}
LANES = 2
"""How many attempts are under way at a time."""
_places: list[Place] = []
"""The place of this process, once it has one."""


# One attempt after another, in a process that has a place of its own


def _begin(folder: str, sockets: dict[str, str]) -> None:
    fault_files.SOCKETS.update(sockets)
    place = Place(Path(folder) / f"lane-{os.getpid()}")
    fault_files.fill(place)
    place.keep()
    _places.append(place)


def _tried(attempt: Attempt) -> Result:
    tried: Callable[[Place, Attempt], Result] = FAMILIES[attempt.family].tried
    return tried(_places[0], attempt)


def planned(seed: int, counts: dict[str, int]) -> list[Attempt]:
    """Return all attempts, each pair of kind and way before one comes again; a seed gives the same ones."""
    found = []
    for family, count in counts.items():
        rng = random.Random(f"{seed} {family}")
        pairs = FAMILIES[family].pairs()
        rng.shuffle(pairs)
        for number, (kind, how) in enumerate(pairs[number % len(pairs)] for number in range(count)):
            found.append(Attempt(number, family, kind, how, rng.getrandbits(32)))
    return found


def carried_out(attempts: Sequence[Attempt], lanes: int, *, findings: bool) -> list[Result]:
    """Try all, `lanes` at a time."""
    context = multiprocessing.get_context("fork")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-"))
        sockets = {forks.TORCH: stack.enter_context(forks.served(Path(folder), forks.TORCH))}
        pool = stack.enter_context(
            ProcessPoolExecutor(lanes, mp_context=context, initializer=_begin, initargs=(folder, sockets))
        )
        results = []
        for number, result in enumerate(pool.map(_tried, attempts), 1):
            results.append(result)
            print(f"{number} of {len(attempts)}: {_said(result)}", file=sys.stderr, flush=True)
            if findings and result.came not in (Came.HELD, Came.LINE):
                print(f"{result.evidence[-3000:]}\n", file=sys.stderr, flush=True)
        return results


# What is shown


def _said(result: Result) -> str:
    one = result.attempt
    return f"{one.family} {one.number}, {one.kind}, {one.how}: {result.came}"


def table(results: Sequence[Result]) -> list[str]:
    """Return what came of one family, a row for each kind."""
    kinds = list(dict.fromkeys(result.attempt.kind for result in results))
    counts = {kind: Counter(result.came for result in results if result.attempt.kind == kind) for kind in sorted(kinds)}
    rows = [[kind, str(sum(found.values())), *(str(found[came]) for came in Came)] for kind, found in counts.items()]
    return _markdown(["", "number", *Came], rows)


def summary(results: Sequence[Result]) -> list[str]:
    """Return a row for each family."""
    shown = (Came.TRACEBACK, Came.HANG, Came.LOST, Came.SILENT, Came.LEFT)
    families = list(dict.fromkeys(result.attempt.family for result in results))
    rows = []
    for family in families:
        found = Counter(result.came for result in results if result.attempt.family == family)
        rows.append([FAMILIES[family].FAMILY, str(sum(found.values())), *(str(found[came]) for came in shown)])
    return _markdown(["class", "number", "tracebacks", "hangs", "lost", "silent", "left behind"], rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["--:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def machine() -> str:
    """Return what it ran on, and with which versions."""
    found = detect()
    versions = [f"{name} {version}" for name, version in installed(("pytest", "numpy", "msgspec")).items()]
    libraries = [f"{name} {version}" for name, version in found.libraries.items()]
    return f"{found.name}, {found.cpus} cores; Python {platform.python_version()}, {', '.join([*libraries, *versions])}"


def _cpu_s() -> float:
    """Return the CPU time of this process and of all that it has waited for."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Carry out the campaign."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--findings", action="store_true", help="show what did not hold")
    parser.add_argument("--again", metavar="'CLASS NUMBER'", help="one attempt, with all that it printed")
    parser.add_argument("--like", default="", metavar="TEXT", help="only attempts whose kind or way contains it")
    parser.add_argument("--lanes", type=int, default=LANES)
    for name, count in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    attempts = planned(options.seed, {name: getattr(options, name) for name in options.only})
    attempts = [one for one in attempts if options.like in f"{one.kind}, {one.how}"]
    if options.again:
        family, number = options.again.split()
        (again,) = [one for one in attempts if (one.family, one.number) == (family, int(number))]
        (result,) = carried_out([again], 1, findings=False)
        print(result.evidence)
        return
    start = time.monotonic()
    results = carried_out(attempts, options.lanes, findings=options.findings)
    minutes = (time.monotonic() - start) / 60
    print(f"{machine()}; seed {options.seed}; {minutes:.0f} min, {_cpu_s() / 60:.0f} min of CPU time\n")
    for family in options.only:
        found = [result for result in results if result.attempt.family == family]
        print(f"### {FAMILIES[family].FAMILY.capitalize()}\n\n" + "\n".join(table(found)) + "\n")
    print("\n".join(summary(results)))


if __name__ == "__main__":
    main()
