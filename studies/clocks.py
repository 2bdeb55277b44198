"""How steady is the device clock between launches, and how does it compare with other ways to time a module?

    python studies/clocks.py [--launches 20] [--streams one] [--json FILE] [CASE …]

Builds each case once; as many processes load it and take turns on the GPU in random order. Each times it with trtgate's
clock and in the usual ways, nvbench too if `cuda-bench` is installed. Prints a table for each case with versions and
machine. A standard deviation is that of the logs of launches, with its 95 % interval (chi-squared). With `--pairs N` N
fresh pairs of processes compare each case with itself: `d` should centre on zero. With `--plans N` each launch measures
N turns by each plan of PLANS instead, in random order: what do fewer captures and a shorter warm-up change? Needs a GPU
that nothing else uses.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gpu_process import Remote, case_source, gate_states, remotes
from scipy import stats
from states import MODELS, Study
from states_tables import deviation

PLANS: dict[str, dict[str, float]] = {
    "24 captures, 0.3 s": {"captures": 24, "warmup_s": 0.3},
    "16 captures, 0.2 s": {"captures": 16, "warmup_s": 0.2},
    "12 captures, 0.3 s": {"captures": 12, "warmup_s": 0.3},
    "12 captures, 0.15 s": {"captures": 12, "warmup_s": 0.15, "window_s": 0.05},
    "12 captures, 0.1 s": {"captures": 12, "warmup_s": 0.1, "window_s": 0.05},
}
"""Captures, and the least that a turn warms up → the plan. The second is that of a launch."""
WAYS = ("trtgate", "nvbench", "do_bench_cudagraph", "do_bench", "pytest-benchmark's way")


def main() -> None:
    """Build, load in all launches, let them measure one after the other, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", default=list(MODELS.values()))
    parser.add_argument("--launches", type=int, default=20)
    parser.add_argument("--streams", choices=("one", "many"), default="one")
    parser.add_argument("--only-trtgate", action="store_true", help="not the other ways")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="fresh pairs that compare a case with itself")
    parser.add_argument("--plans", type=int, default=0, metavar="N", help="turns of each launch by each plan, instead")
    parser.add_argument("--builds", help="folder of what an earlier run built, and this one builds")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    options = parser.parse_args()
    study = Study(
        argparse.Namespace(full=True, repeats=1, processes=options.launches, builds=options.builds, seed=None)
    )
    folders = study.built(options.cases)
    document: dict[str, Any] = {"streams": options.streams, "launches": {}, "pairs": {}, "plans": {}}
    with_launches(options, folders, document)
    if options.pairs:
        document["pairs"] = against_itself(folders, options.pairs)
    if options.json:
        options.json.write_text(json.dumps(document))
    report(document)


def with_launches(options: argparse.Namespace, folders: dict[str, str], document: dict[str, Any]) -> None:
    """Measure every case in every launch; a process that sets the GPU's state beside them."""
    with gate_states() as switcher:
        for case_id, folder in folders.items():
            found = launched(options, case_id, folder, switcher, document)
            document["plans" if options.plans else "launches"][case_id] = found
            print(f"# {case_id}: {options.launches} launches", flush=True)


def launched(
    options: argparse.Namespace, case_id: str, folder: str, switcher: str, document: dict[str, Any]
) -> list[dict[str, Any]]:
    """Measure a case in processes of its own, since nvbench runs once in a process; returns what each measured."""
    with remotes(options.launches, switcher=switcher, streams=options.streams) as launches:
        document["versions"] = launches[0].ask("versions")
        for remote in launches:
            remote.send("load", case_id=case_id, folder=folder)
        for remote in launches:
            remote.receive()
        if options.plans:
            return by_plans(launches, options.plans)
        return [
            remote.ask("clocks", seed=random.getrandbits(30), others=not options.only_trtgate)
            for remote in random.sample(launches, len(launches))
        ]


def by_plans(remotes: list[Remote], turns: int) -> list[dict[str, Any]]:
    """Return what turns by each plan gave: the order is random, and launches take turns as in a run."""
    rows = []
    for _ in range(turns):
        each = [(number, name) for number in range(len(remotes)) for name in PLANS]
        for number, name in random.sample(each, len(each)):
            read = remotes[number].ask("clocks", seed=random.getrandbits(30), others=False, plan=PLANS[name])
            rows.append({"launch": number, "plan": name, **read})
    return rows


def plan_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a table of plans: what each gives, and how far that lies from the first within the same launches."""
    yield "| plan | µs | against the first (95 %) | sd between turns of a launch | between launches | seconds a turn |"
    yield "|---|--:|--:|--:|--:|--:|"
    launches = sorted({row["launch"] for row in rows})
    means: dict[str, list[float]] = {}
    for name in PLANS:
        own_rows = [row for row in rows if row["plan"] == name]
        of = [[math.log(row["trtgate"]) for row in own_rows if row["launch"] == one] for one in launches]
        means[name] = [statistics.fmean(one) for one in of]
        within = math.sqrt(statistics.fmean(statistics.variance(one) for one in of))
        apart = [own - first for own, first in zip(means[name], next(iter(means.values())), strict=True)]
        half = float(stats.t.ppf(0.975, len(apart) - 1)) * statistics.stdev(apart) / math.sqrt(len(apart))
        seconds = statistics.fmean(row["seconds"] for row in own_rows)
        yield (
            f"| {name} | {math.exp(statistics.fmean(means[name])):.2f} | {statistics.fmean(apart):+.3%} ± {half:.3%} "
            f"| {within:.3%} | {deviation(means[name])} | {seconds:.2f} |"
        )


def against_itself(folders: dict[str, str], pairs: int) -> dict[str, dict[str, list[float]]]:
    """Return d of each fresh pair that compares a case with itself, and the standard deviation of its quadruples."""
    from trtgate.common.accelerator import detect
    from trtgate.common.metrics import DEVICE
    from trtgate.gate import judging
    from trtgate.launches.comparison_side import Side
    from trtgate.launches.pair import BASE, CANDIDATE, Artifacts
    from trtgate.launches.pair_session import PairSession
    from trtgate.verdict import QUADRUPLES_A_PAIR

    found: dict[str, dict[str, list[float]]] = {case_id: {"d": [], "sd": [], "seconds": []} for case_id in folders}
    source = case_source()
    logs = Path(tempfile.mkdtemp())
    session = PairSession(
        Side(name=BASE, source=source), Side(name=CANDIDATE, source=source), detect(), logs, timeout_s=300
    )
    enough: Callable[[Any], bool] = lambda pair: len(pair.quadruples) >= QUADRUPLES_A_PAIR  # noqa: E731
    try:
        for _ in range(pairs):
            with session.fresh() as pair:
                for case_id in random.sample(list(folders), len(folders)):
                    folder = Path(folders[case_id])
                    session.load([pair], case_id, Artifacts(base=folder, candidate=folder))
                    began = time.perf_counter()
                    session.measure(pair, enough, lambda _step: None)
                    d = judging.pair_differences(pair.quadruples, DEVICE, DEVICE)
                    found[case_id]["d"].append(float(np.mean(d)))
                    found[case_id]["sd"].append(float(np.std(d, ddof=1)))
                    found[case_id]["seconds"].append(time.perf_counter() - began)
                    pair.unload()
    finally:
        session.close()
    return found


def report(document: dict[str, Any]) -> None:
    """Print the tables."""
    versions = ", ".join(f"{name} {value}" for name, value in document["versions"].items())
    print(f"\n{versions}; {document['streams']} stream(s)")
    for case_id, rows in document["launches"].items():
        print(f"\n{case_id}, {len(rows)} launches of one build")
        print("| clock | median µs | sd between launches (95 %) |\n|---|---|---|")
        for way in WAYS:
            values = [row[way] for row in rows if row.get(way) and not math.isnan(row[way])]
            if values:
                print(f"| {way} | {statistics.median(values):.2f} | {deviation(list(map(math.log, values)))} |")
        print(f"| trtgate, at equal SM clock | | {at_equal_clock(rows)} |")
        within = [statistics.stdev(map(math.log, row["captures_us"])) for row in rows]
        seconds, mhz = ([row[name] for row in rows] for name in ("seconds", "spin_mhz"))
        void = [reason for row in rows for reason in row["void"]]
        print(
            f"captures of a launch: sd {statistics.fmean(within):.3%}; {len(void)} void blocks: {sorted(set(void))[:2]}"
        )
        print(f"seconds a launch: {statistics.fmean(seconds):.2f}, most {max(seconds):.2f}")
        print(f"SM clock {min(mhz):.0f} to {max(mhz):.0f} MHz; notes: {sorted({row['note'] for row in rows} - {''})}")
    for case_id, rows in document["plans"].items():
        print(f"\n{case_id}", *plan_lines(rows), sep="\n")
    for case_id, found in document["pairs"].items():
        d = found["d"]
        half = (
            float(stats.t.ppf(0.975, len(d) - 1)) * statistics.stdev(d) / math.sqrt(len(d)) if len(d) > 1 else math.nan
        )
        print(
            f"{case_id} against itself, {len(d)} fresh pairs: d = {statistics.fmean(d):+.4%} ± {half:.4%}, sd between "
            f"pairs {statistics.stdev(d) if len(d) > 1 else math.nan:.4%}, between a pair's quadruples "
            f"{statistics.fmean(found['sd']):.4%}; {statistics.fmean(found['seconds']):.1f} s a pair"
        )


def at_equal_clock(rows: list[dict[str, Any]]) -> str:
    """Return the spread between launches that is left when the slope over the launches' SM clock is taken out."""
    log_us = np.log([row["trtgate"] for row in rows])
    log_mhz = np.log([row["spin_mhz"] or 1.0 for row in rows])
    if len(rows) < 4 or np.ptp(log_mhz) == 0:
        return ""
    slope = np.polyfit(log_mhz - log_mhz.mean(), log_us, 1)[0]
    left = log_us - slope * (log_mhz - log_mhz.mean())
    return f"{deviation(list(left))}, slope {slope:.2f}"


if __name__ == "__main__":
    main()
