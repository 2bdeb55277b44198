"""How much faster is a suite ready when several processes build it, and when the artifact cache has it already?

    python studies/builds.py [--builders 8] [--batch 1]

Builds the cases of `benchmarks/suite.py` that this machine can run, at one batch size, three times in fresh processes:
one builder with empty caches, several with empty caches, several with what the second pass left. Then it loads each
stored module in this process. Inductor's own cache is empty where ours is. Prints the machine and the versions.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

from trtgate import building, frontends
from trtgate.accelerator import detect
from trtgate.artifact_cache import CacheRequest
from trtgate.cases import Case, Selection
from trtgate.prebuild import Prebuild, Prebuilt, order
from trtgate.report.columns import aligned
from trtgate.report.terminal import describe
from trtgate.suite_source import SuiteSource

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 600.0


class Passes:
    """Builds the same cases again and again, with caches in folders that go with it."""

    def __init__(self, source: SuiteSource, case_ids: list[str], folder: Path) -> None:
        self._source = source
        self._case_ids = case_ids
        self._folder = folder
        self._seconds: dict[str, float] = {}

    def run(self, name: str, builders: int, caches: str) -> tuple[float, dict[str, Prebuilt]]:
        """Return the seconds that one pass took, processes started and ended, and what came of it."""
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(self._folder / caches / "inductor")

        def folder_for(case_id: str) -> Path:
            made = self._folder / name / case_id
            made.mkdir(parents=True, mode=0o700)
            return made

        work = Prebuild(
            source=self._source, accelerators=[detect()], builders=builders,
            cache=CacheRequest(folder=str(self._folder / caches / "artifacts")), folder_for=folder_for,
            logs=self._folder / name / "logs", timeout_s=TIMEOUT_S,
        )  # fmt: skip
        start = time.perf_counter()
        found = {built.case_id: built for built in work.run(order(self._case_ids, self._seconds.get))}
        took = time.perf_counter() - start
        for built in found.values():
            if built.problem:
                print(f"{name}: {built.problem}")
            elif built.build is not None:
                self._seconds.setdefault(built.case_id, built.build.build_s)
        return took, found


def loaded_in(cases: list[Case], found: dict[str, Prebuilt], device: str) -> dict[str, float]:
    """Return the seconds that loading each stored module takes in this process, which has loaded one before."""
    seconds = {}
    for case in [cases[0], *cases]:
        artifact = found[case.id].artifact
        assert artifact is not None
        start = time.perf_counter()
        inference = building.load(case, artifact, device)
        seconds[case.id] = time.perf_counter() - start
        inference()
        del inference
    return seconds


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builders", type=int, default=8)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    device = detect()
    source = SuiteSource(root=str(ROOT), suite="benchmarks/suite.py")
    cases = [
        case
        for case in source.load().select(Selection(batches=(options.batch,)))
        if not (case.settings.gpu_only and device.kind != "gpu")
        and not frontends.get(case.settings.frontend).unavailable()
    ]
    print(describe(device))
    print(f"{len(cases)} cases, {len(os.sched_getaffinity(0))} CPUs: {', '.join(case.id for case in cases)}\n")
    with tempfile.TemporaryDirectory() as folder:
        passes = Passes(source, [case.id for case in cases], Path(folder))
        serial_s, serial = passes.run("serial", 1, "first")
        print(f"one builder, nothing cached: all ready in {serial_s:.1f} s", flush=True)
        for title, name, caches in (("nothing cached", "cold", "second"), ("all cached", "warm", "second")):
            took, found = passes.run(name, options.builders, caches)
            faster = f"{serial_s / took:.2f} times faster"
            print(f"{options.builders} builders, {title}: all ready in {took:.1f} s, {faster}", flush=True)
        stored = [case for case in cases if found[case.id].artifact is not None and serial[case.id].build is not None]
        if not stored:
            return
        load_s = loaded_in(stored, found, "cuda" if torch.cuda.is_available() else "cpu")
        built_s = {case.id: serial[case.id].build.build_s for case in stored}  # type: ignore[union-attr]
        table = [("stored module", "built in", "loaded in", "times faster")]
        for name in (*built_s, "all"):
            built, loaded = (sum(of.values()) if name == "all" else of[name] for of in (built_s, load_s))
            table.append((name, f"{built:.2f} s", f"{loaded:.2f} s", f"{built / loaded:.2f}"))
        print()
        print("\n".join(aligned(table)))


if __name__ == "__main__":
    main()
