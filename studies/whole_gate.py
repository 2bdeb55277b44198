"""How long a whole gate takes: built case by case, built ahead by several processes, and with all builds cached.

    python studies/whole_gate.py FOLDER [--passes serial,ahead,warm,loads] [--builders 8] [--batch 1] [PYTEST OPTIONS]

Runs `pytest benchmarks` as a user does, with the cases of `benchmarks/suite.py` at one batch size that this machine
can run, each pass in processes of its own:

serial   nothing cached, no builders: accuracy and latency tests, recording a baseline in FOLDER
ahead    nothing cached, `--trtgate-prebuild`: accuracy tests, so that building is all there is
warm     with the caches of `ahead`: accuracy and latency tests against the baseline of `serial`
loads    every stored module loaded in one process

What serial building takes is the sum of its accuracy tests: each builds its case and compares it with eager.
Inductor's own cache is empty where ours is. Passes that FOLDER has are not run again, so that they may be run one at a
time; the table is of all that are there. Prints the machine, the versions and the cases.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import torch

from trtgate import building, frontends
from trtgate.accelerator import detect
from trtgate.artifact_cache import ArtifactCache
from trtgate.report import document
from trtgate.report.columns import aligned
from trtgate.report.terminal import describe
from trtgate.suite_source import SuiteSource

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 1500.0
LAUNCHES = 3
TESTS = {"ahead": "trtgate_accuracy"}
BOTH = "trtgate_accuracy or trtgate_latency"


class Pass(msgspec.Struct, kw_only=True):
    """What one pass took, in seconds, and what came of it."""

    name: str
    seconds: float
    """From the start of its process to its end."""
    build_s: dict[str, float] = {}
    """Case → its accuracy test."""
    ahead_s: float = 0.0
    """Until the first test could begin, where builders were at work."""
    verdicts: dict[str, str] = {}
    exit_status: int = 0


def run(name: str, folder: Path, builders: int, more: list[str]) -> Pass:
    """Run one pass of the gate, and say what it took."""
    caches = folder / ("first" if name == "serial" else "second")
    report, junit = folder / f"{name}-report.json", folder / f"{name}.xml"
    judging = {"serial": ["--trtgate-update-baselines"], "warm": ["--benchmark-compare"], "ahead": []}[name]
    command = [
        sys.executable, "-m", "pytest", "-p", "trtgate.plugin", "-p", "no:cacheprovider", "benchmarks",
        "-m", TESTS.get(name, BOTH), "-o", f"trtgate_baselines={folder / 'baselines'}",
        f"--trtgate-launches={LAUNCHES}", f"--trtgate-report={report}", f"--junit-xml={junit}",
        *([] if name == "serial" else [f"--trtgate-prebuild={builders}"]), *judging, *more,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "TRTGATE_CACHE_DIR": str(caches / "artifacts"),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}",
    }
    start = time.perf_counter()
    with (folder / f"{name}.log").open("w") as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, timeout=TIMEOUT_S)
    took = Pass(name=name, seconds=time.perf_counter() - start, exit_status=done.returncode)
    for case in ElementTree.parse(junit).iter("testcase"):
        kind, _, case_id = case.get("name", "").removesuffix("]").partition("[")
        if kind == "test_accuracy" and not list(case.iter("skipped")):
            took.build_s[case_id] = float(case.get("time", "nan"))
    found = document.read(report)
    took.verdicts = {case.case_id: case.said for case in found.cases if case.outcome != "skipped" or case.judgements}
    lines = [line for line in found.lines if line.startswith("built ahead:")]
    took.ahead_s = float(lines[0].split(" in ")[1].split(" s")[0]) if lines else 0.0
    return took


def loaded_in(cache: ArtifactCache) -> dict[str, tuple[float, float]]:
    """Return case → seconds that building it took and that loading it takes here, of what the cache has."""
    suite = SuiteSource(root=str(ROOT), suite="benchmarks/suite.py").load()
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


def show(passes: dict[str, Pass], loads: dict[str, tuple[float, float]]) -> None:
    """Print what all passes took."""
    serial = passes.get("serial")
    building_s = sum(serial.build_s.values()) if serial else float("nan")
    table = [("pass", "all built after", "times faster", "whole run", "times faster", "verdicts")]
    for one in passes.values():
        ready = one.ahead_s or sum(one.build_s.values())
        whole = "" if one.name == "ahead" or serial is None else f"{serial.seconds / one.seconds:.2f}"
        said = ", ".join(f"{count} {verdict}" for verdict, count in Counter(one.verdicts.values()).items())
        table.append(
            (one.name, f"{ready:.1f} s", f"{building_s / ready:.2f}", f"{one.seconds:.1f} s", whole, said or "none")
        )
    print("\n".join(aligned(table)), end="\n\n")
    if loads:
        columns = [("stored module", "built in", "loaded in", "times faster")]
        for name in (*loads, "all"):
            built, loaded = map(sum, zip(*loads.values(), strict=True)) if name == "all" else loads[name]
            columns.append((name, f"{built:.2f} s", f"{loaded:.2f} s", f"{built / loaded:.2f}"))
        print("\n".join(aligned(columns)))


def main() -> None:
    """Run the passes that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passes", default="serial,ahead,warm,loads")
    parser.add_argument("--builders", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1)
    options, more = parser.parse_known_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    more.append(f"--trtgate-batches={options.batch}")
    print(describe(detect()), flush=True)
    for name in options.passes.split(","):
        kept = folder / f"{name}.json"
        if kept.exists():
            continue
        if name == "loads":
            kept.write_text(json.dumps(loaded_in(ArtifactCache(folder / "second" / "artifacts"))))
            continue
        found = run(name, folder, options.builders, more)
        kept.write_bytes(msgspec.json.encode(found))
        print(f"{name}: {found.seconds:.1f} s, exit status {found.exit_status}", flush=True)
    passes = {
        name: msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=Pass)
        for name in ("serial", "ahead", "warm") if (folder / f"{name}.json").exists()
    }  # fmt: skip
    cases = sorted({case_id for one in passes.values() for case_id in one.build_s})
    print(f"{len(cases)} cases, {len(os.sched_getaffinity(0))} CPUs: {', '.join(cases)}\n")
    loads = folder / "loads.json"
    show(passes, json.loads(loads.read_text()) if loads.exists() else {})


if __name__ == "__main__":
    main()
