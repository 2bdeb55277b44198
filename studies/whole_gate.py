"""How long a whole gate takes: built case by case, built ahead by several processes, and with all builds cached.

    python studies/whole_gate.py FOLDER [--passes record,ahead,serial,warm,again,third,changed,loads] [PYTEST OPTIONS]
    python studies/whole_gate.py FOLDER --passes ab-serial,ab,ab-auto,ab-built,ab-slower [--base-python PATH] [OPTIONS]

Runs `pytest benchmarks` as a user does, with those cases of `benchmarks/suite.py` that pytest's options leave (such as
`-k "dynamo or eager and b1"`) and this machine can run, each pass in processes of its own:

record   nothing cached, built ahead: latency tests, which record this very card's baseline in FOLDER; without
         this pass the others are held against a copy of this repository's baseline of the accelerator
ahead    nothing cached, built ahead: accuracy tests, so that building is all there is; with a baseline that
         knows what each case took, the longest begin first
serial   nothing cached, no builders: accuracy and latency tests, compared; where there is no baseline, recording one
warm     with the caches of `ahead`, or else of `record`: accuracy and latency tests against the same baseline
again    `warm` once more: what differs between these two is chance
third    the same a third time
changed  latency tests with `--trtgate-changed`, after the weights of resnet18 were edited
loads    every module that `serial` stored, built alone, loaded in one process; without `serial`, those of `ahead`

ab-serial   beside the same code as another revision: each case built and loaded when its turn comes
ab          the same, both sides built ahead in turn and loaded ahead, as a user gets it on a GPU; on a CPU, where
            that must be asked for, by the builders
ab-auto     the same, built several at once
ab-built    `ab` with what it built, or else with what `record` built
ab-slower   the same after an edit that makes resnet18 slower: what confirming costs

With `--base-python` the base of these is that interpreter's environment instead of a revision. The revision is that of
a repository that is made in FOLDER of the suite as it is here, so the machine needs git, and no checkout. Their table
is the last.

What serial building takes is the sum of its accuracy tests: each builds its case and compares it with eager.
Inductor's own cache, and CUDA's of what the driver compiled, are empty where ours is. Passes that FOLDER has are not
run again, so that they may be run one at a time; the tables are of all that are there. Prints the machine, the versions
and the cases.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gate_runs
import torch

from trtgate import frontends
from trtgate.common import git, machine
from trtgate.common.accelerator import detect
from trtgate.common.text_columns import TextTable
from trtgate.compiling import building
from trtgate.compiling.artifact_cache import ArtifactCache
from trtgate.report.terminal_table import describe
from trtgate.suite.suite_source import SuiteSource
from trtgate.torch_trt.patching import replaced

LAUNCHES = 3
ALL, BUILDS, TIMED = "trtgate_accuracy or trtgate_latency", "trtgate_accuracy", "trtgate_latency"
PASSES = ("record", "ahead", "serial", "warm", "again", "third", "changed")
BESIDE_BASE = ("ab-serial", "ab", "ab-auto", "ab-built", "ab-slower")
CACHES = {"record": "recorded", "serial": "first"}
"""Pass → the folder of its caches, where it is not that of `ahead`."""
RETURNED = "return module.eval(), "
EDITS = {
    "changed": "module.fc.bias.data.add_(0.01)",
    "ab-slower": "module = torch.nn.Sequential(module, *[torch.nn.Softmax(-1) for _ in range(8)])",
}
"""Pass → what is done to resnet18 before it is returned."""


def caches_of(name: str, folder: Path) -> Path:
    """Return the folder of a pass's caches."""
    if name in BESIDE_BASE:
        built = "ab" if (folder / "ab").exists() else "recorded"
        return folder / (built if name in ("ab-built", "ab-slower") else name)
    second = folder / "second"
    return folder / CACHES.get(name, "recorded" if name != "ahead" and not second.exists() else "second")


def builders_option(builders: str) -> list[str]:
    """Return pytest's option of how many build ahead, none for what a user gets by default."""
    return [f"--trtgate-prebuild={builders}"] if builders else []


def options_of(name: str, builders: str, *, recorded: bool) -> list[str]:
    """Return pytest's options of a pass, where a baseline was recorded before or not."""
    ahead, launches = builders_option(builders), f"--trtgate-launches={LAUNCHES}"
    against = "--benchmark-compare" if recorded else "--trtgate-update-baselines"
    warm = ["-m", ALL, "--benchmark-compare", launches, *ahead]
    return {
        "record": ["-m", TIMED, "--trtgate-update-baselines", *ahead],
        "ahead": ["-m", BUILDS, *ahead, *([against] if recorded else [])],
        "serial": ["-m", ALL, against, launches, "--trtgate-prebuild=0"],
        "warm": warm,
        "again": warm,
        "third": warm,
        "changed": ["-m", TIMED, "--benchmark-compare", "--trtgate-changed", launches, *ahead],
    }[name]


def options_beside_base(name: str, builders: str, python: str) -> list[str]:
    """Return pytest's options of a pass beside a base: a revision, or another interpreter."""
    asked = {"ab-serial": "0", "ab-auto": "auto"}.get(name, "" if torch.cuda.is_available() else builders or "auto")
    base = f"--trtgate-base-python={python}" if python else "--trtgate-base=HEAD"
    return ["-m", TIMED, base, *builders_option(asked)]


def repository(folder: Path, name: str) -> Path:
    """Return a repository of the suite as it is here, made in a folder unless it is there, with the edit of a pass."""
    made = folder / "repository"
    if not made.exists():
        shutil.copytree(
            gate_runs.ROOT / "benchmarks", made / "benchmarks", ignore=shutil.ignore_patterns("__pycache__")
        )
        for file in ("pytest.ini", "conftest.py"):
            shutil.copy(gate_runs.ROOT / file, made)
        (made / ".gitignore").write_text(".trtgate/\n__pycache__/\n")
        person = ["-c", "user.name=study", "-c", "user.email=study@localhost"]
        for words in (["init", "-q"], ["add", "."], [*person, "commit", "-qm", "base"]):
            git.run(made, *words).check_returncode()
    text = (gate_runs.ROOT / "benchmarks" / "suite.py").read_text()
    if name in EDITS:
        assert RETURNED in text
        text = text.replace(RETURNED, f'if name == "resnet18":\n        {EDITS[name]}\n    {RETURNED}')
    (made / "benchmarks" / "suite.py").write_text(text)
    return made


def show_beside_base(passes: dict[str, gate_runs.GateRun]) -> None:
    """Print what comparisons with a base took."""
    serial = passes.get("ab-serial")
    table = [("pass", "all built after", "tests", "whole run", "times faster", "verdicts")]
    for name, one in passes.items():
        tests_s = sum(one.test_s.get(gate_runs.LATENCY, {}).values())
        whole = f"{serial.seconds / one.seconds:.2f}" if serial else ""
        ready = f"{one.ahead_s:.1f} s" if one.ahead_s else "-"
        table.append((name, ready, f"{tests_s:.1f} s", f"{one.seconds:.1f} s", whole, verdicts_of(one)))
    print(TextTable(table))


def verdicts_of(one: gate_runs.GateRun) -> str:
    """Return how often each verdict was given."""
    return ", ".join(f"{count} {verdict}" for verdict, count in Counter(one.verdicts.values()).items()) or "none"


def loaded_in(cache: ArtifactCache) -> dict[str, tuple[float, float, float]]:
    """Return what loading each case of the cache takes.

    Case → seconds: that building took, that loading takes here, and that the constructors of its engines take of that.
    """
    suite = SuiteSource(root=str(gate_runs.ROOT), suites=("benchmarks/suite.py",)).load()
    device, seconds = "cuda" if torch.cuda.is_available() else "cpu", {}
    entries = {entry.manifest.case: entry for entry in cache.entries() if entry.manifest is not None}
    for case_id in [*list(entries)[:1], *entries]:  # the first loads the libraries too
        place, case = cache.folder / "entries" / entries[case_id].key, suite.cases[case_id]
        _, inputs = building.make(case, device)
        with engines_timed() as engines_s:
            start = time.perf_counter()
            compiled = frontends.get(case.settings.frontend).load(place)
            took = time.perf_counter() - start
        with torch.no_grad():
            inputs.call(compiled.run)
        manifest = entries[case_id].manifest
        assert manifest is not None
        assert manifest.build is not None
        seconds[case_id] = (manifest.build.build_s, took, sum(engines_s))
        del compiled
        if len(seconds) == 1:  # as workers do when they have imported
            gc.collect()
            gc.freeze()
    return seconds


@contextlib.contextmanager
def engines_timed() -> Iterator[list[float]]:
    """Within: what each constructor of an engine takes is added to the list, in seconds."""
    frontends.get("dynamo").import_libraries()
    seconds, made = [], torch.classes.tensorrt.Engine

    def timed(information: list[Any]) -> Any:
        start = time.perf_counter()
        engine = made(information)
        seconds.append(time.perf_counter() - start)
        return engine

    with replaced(torch.classes.tensorrt, "Engine", timed):
        yield seconds


def show(passes: dict[str, gate_runs.GateRun], loads: dict[str, tuple[float, float, float]]) -> None:
    """Print what all passes took."""
    accuracy_s = {name: sum(one.test_s.get(gate_runs.ACCURACY, {}).values()) for name, one in passes.items()}
    building_s = {name: one.ahead_s or accuracy_s[name] for name, one in passes.items()}
    table = [("pass", "all built after", "times faster", "whole run", "times faster", "verdicts")]
    for name, one in passes.items():
        serial = passes.get("serial")
        ready = f"{building_s['serial'] / building_s[name]:.2f}" if serial else ""
        whole = f"{serial.seconds / one.seconds:.2f}" if serial and name in ("serial", "warm", "again", "third") else ""
        table.append((name, f"{building_s[name]:.1f} s", ready, f"{one.seconds:.1f} s", whole, verdicts_of(one)))
    print(TextTable(table), end="\n\n")
    if loads:
        columns = [("stored module", "built in", "loaded in", "of it the engines", "times faster")]
        for name in (*loads, "all"):
            built, loaded, engines = map(sum, zip(*loads.values(), strict=True)) if name == "all" else loads[name]
            columns.append((name, f"{built:.2f} s", f"{loaded:.2f} s", f"{engines:.2f} s", f"{built / loaded:.2f}"))
        print(TextTable(columns))
    for before, now in (("serial", "warm"), ("warm", "again"), ("again", "third")):
        if before in passes and now in passes:
            hold_together(passes[before], passes[now])


def hold_together(before: gate_runs.GateRun, now: gate_runs.GateRun) -> None:
    """Print how latencies and verdicts of two passes differ."""
    moved = {name: us / before.medians_us[name] - 1 for name, us in now.medians_us.items() if name in before.medians_us}
    most = max(moved, key=lambda name: abs(moved[name]), default="none")
    print(f"\n{now.name} against {before.name}: latency moved by at most {moved.get(most, 0):+.3%} ({most})")
    others = {one: (word, now.verdicts.get(one)) for one, word in before.verdicts.items()}
    others = {one: words for one, words in others.items() if len(set(words)) == 2}
    print(f"{len(others)} of {len(before.verdicts)} verdicts differ: {others or 'none'}")


def main() -> None:
    """Run the passes that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passes", default="ahead,serial,warm,loads")
    parser.add_argument(
        "--builders", default="", help="--trtgate-prebuild of passes that build ahead; else as by default"
    )
    parser.add_argument("--base-python", default="")
    options, more = parser.parse_known_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    device = detect()
    print(describe(device), flush=True)
    stored, ours = gate_runs.ROOT / "baselines" / device.key, folder / "baselines" / device.key
    if stored.exists() and not ours.exists():
        shutil.copytree(stored, ours)
    wanted = options.passes.split(",")
    passes = {}
    for name in PASSES:
        done = (folder / f"{name}.json").exists()
        if name == "record" and name in wanted and not done:
            shutil.rmtree(ours, ignore_errors=True)
        if name in wanted or done:
            given = [*options_of(name, options.builders, recorded=ours.exists()), *more]
            checkout = repository(folder, name) if name in EDITS else gate_runs.ROOT
            passes[name] = gate_runs.run(name, folder, caches_of(name, folder), given, checkout)
    kept = folder / "loads.json"
    if "loads" in wanted and not kept.exists():
        built = next(
            place for name in ("first", "second", "recorded") if (place := folder / name / "artifacts").exists()
        )
        kept.write_text(json.dumps(loaded_in(ArtifactCache(built))))
    beside = {}
    for name in BESIDE_BASE:
        if name in wanted or (folder / f"{name}.json").exists():
            given = options_beside_base(name, options.builders, options.base_python)
            checkout = repository(folder, name)
            beside[name] = gate_runs.run(name, folder, caches_of(name, folder), [*given, *more], checkout)
    ran = {**passes, **beside}
    cases = sorted({case_id for one in ran.values() for tests in one.test_s.values() for case_id in tests})
    print(f"{len(cases)} cases, {machine.cpus()} CPUs: {', '.join(cases)}\n")
    print(gate_runs.spent_table(list(ran.values())), end="\n\n")
    if passes:
        show(passes, json.loads(kept.read_text()) if kept.exists() else {})
    if beside:
        show_beside_base(beside)


if __name__ == "__main__":
    main()
