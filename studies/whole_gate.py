"""How long a whole gate takes: built case by case, built ahead by several processes, and with all builds cached.

    python studies/whole_gate.py FOLDER [--passes serial,ahead,warm,loads] [--builders 8] [PYTEST OPTIONS]

Runs `pytest benchmarks` as a user does, with those cases of `benchmarks/suite.py` that pytest's options leave (such as
`-k "dynamo or eager and b1"`) and this machine can run, each pass in processes of its own:

serial   nothing cached, no builders: accuracy and latency tests, against a copy of this repository's baseline of this
         accelerator; where there is none, recording one in FOLDER
ahead    nothing cached, `--trtgate-prebuild`: accuracy tests, so that building is all there is; with a baseline, what
         took longest begins first
warm     with the caches of `ahead`: accuracy and latency tests against the same baseline
loads    every module that `serial` stored, built alone, loaded in one process; without `serial`, those of `ahead`

What serial building takes is the sum of its accuracy tests: each builds its case and compares it with eager.
Inductor's own cache is empty where ours is. Passes that FOLDER has are not run again, so that they may be run one at a
time; the tables are of all that are there. Prints the machine, the versions and the cases.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import gate_runs
import torch

from trtgate import building, frontends
from trtgate.accelerator import detect
from trtgate.artifact_cache import ArtifactCache
from trtgate.report.columns import aligned
from trtgate.report.terminal import describe
from trtgate.suite_source import SuiteSource

LAUNCHES = 3
ALL, BUILDS = "trtgate_accuracy or trtgate_latency", "trtgate_accuracy"


def options_of(name: str, builders: int, *, recorded: bool) -> list[str]:
    """Return pytest's options of a pass, where a baseline was recorded before or not."""
    ahead = f"--trtgate-prebuild={builders}"
    against = "--benchmark-compare" if recorded else "--trtgate-update-baselines"
    return {
        "serial": ["-m", ALL, against, f"--trtgate-launches={LAUNCHES}"],
        "ahead": ["-m", BUILDS, ahead, *([against] if recorded else [])],
        "warm": ["-m", ALL, "--benchmark-compare", f"--trtgate-launches={LAUNCHES}", ahead],
    }[name]


def loaded_in(cache: ArtifactCache) -> dict[str, tuple[float, float]]:
    """Return case → seconds that building it took and that loading it takes here, of what the cache has."""
    suite = SuiteSource(root=str(gate_runs.ROOT), suite="benchmarks/suite.py").load()
    device, seconds = "cuda" if torch.cuda.is_available() else "cpu", {}
    entries = {entry.manifest.case: entry for entry in cache.entries() if entry.manifest is not None}
    for case_id in [*list(entries)[:1], *entries]:  # the first loads the libraries too
        place, case = cache.folder / "entries" / entries[case_id].key, suite.cases[case_id]
        _, inputs = building.make(case, device)
        start = time.perf_counter()
        compiled = frontends.get(case.settings.frontend).load(place)
        took = time.perf_counter() - start
        with torch.no_grad():
            compiled.run(*inputs)
        manifest = entries[case_id].manifest
        assert manifest is not None
        seconds[case_id] = (manifest.build.build_s, took)
        del compiled
    return seconds


def show(passes: dict[str, gate_runs.GateRun], loads: dict[str, tuple[float, float]]) -> None:
    """Print what all passes took."""
    building_s = {name: one.ahead_s or sum(one.test_s[gate_runs.ACCURACY].values()) for name, one in passes.items()}
    table = [("pass", "all built after", "times faster", "whole run", "times faster", "verdicts")]
    for name, one in passes.items():
        serial = passes.get("serial")
        ready = f"{building_s['serial'] / building_s[name]:.2f}" if serial else ""
        whole = f"{serial.seconds / one.seconds:.2f}" if serial and name != "ahead" else ""
        said = ", ".join(f"{count} {verdict}" for verdict, count in Counter(one.verdicts.values()).items()) or "none"
        table.append((name, f"{building_s[name]:.1f} s", ready, f"{one.seconds:.1f} s", whole, said))
    print("\n".join(aligned(table)), end="\n\n")
    if loads:
        columns = [("stored module", "built in", "loaded in", "times faster")]
        for name in (*loads, "all"):
            built, loaded = map(sum, zip(*loads.values(), strict=True)) if name == "all" else loads[name]
            columns.append((name, f"{built:.2f} s", f"{loaded:.2f} s", f"{built / loaded:.2f}"))
        print("\n".join(aligned(columns)))
    both = [name for name in ("serial", "warm") if name in passes]
    if len(both) == 2:
        before, now = (passes[name].medians_us for name in both)
        moved = {case_id: us / before[case_id] - 1 for case_id, us in now.items() if case_id in before}
        name = max(moved, key=lambda case_id: abs(moved[case_id]), default="none")
        print(f"\nlatency of warm against serial: at most {moved.get(name, 0):+.3%} ({name}), of {len(moved)} cases")
        cold, cached = (passes[name].verdicts for name in both)
        others = {one: (word, cached.get(one)) for one, word in cold.items() if word != cached.get(one)}
        print(f"verdicts of serial and warm: {len(others)} of {len(cold)} differ: {others or 'none'}")


def main() -> None:
    """Run the passes that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passes", default="serial,ahead,warm,loads")
    parser.add_argument("--builders", type=int, default=8)
    options, more = parser.parse_known_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    device = detect()
    print(describe(device), flush=True)
    stored, copied = gate_runs.ROOT / "baselines" / device.key, folder / "baselines" / device.key
    if stored.exists() and not copied.exists():
        shutil.copytree(stored, copied)
    wanted = options.passes.split(",")
    passes = {}
    for name in ("serial", "ahead", "warm"):
        if name in wanted or (folder / f"{name}.json").exists():
            caches = folder / ("first" if name == "serial" else "second")
            given = options_of(name, options.builders, recorded=stored.exists())
            passes[name] = gate_runs.run(name, folder, caches, [*given, *more])
    kept = folder / "loads.json"
    if "loads" in wanted and not kept.exists():
        built = next(place for name in ("first", "second") if (place := folder / name / "artifacts").exists())
        kept.write_text(json.dumps(loaded_in(ArtifactCache(built))))
    cases = sorted({case_id for one in passes.values() for case_id in one.test_s[gate_runs.ACCURACY]})
    print(f"{len(cases)} cases, {len(os.sched_getaffinity(0))} CPUs: {', '.join(cases)}\n")
    show(passes, json.loads(kept.read_text()) if kept.exists() else {})


if __name__ == "__main__":
    main()
