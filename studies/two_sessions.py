"""Do two gates on one GPU, and a process that keeps the artifact cache busy, move each other's latencies?

    python studies/two_sessions.py FOLDER [--caches FOLDER] [PYTEST OPTIONS]

Runs the latency tests of `pytest benchmarks` once to have everything built and cached, twice alone, and then twice at
the same time while a third process stores and takes entries of the same cache without a pause. Four builders load and
check what is cached before the tests begin, so that two sessions also build beside who measures, if the lock lets them.
Each case's latency is compared with the mean of the two runs alone, which differ from each other too. Prints the
machine, the versions and the table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import tempfile
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import gate_runs
import msgspec

from trtgate.common import machine, sealed_folder
from trtgate.common.accelerator import detect
from trtgate.common.text_columns import TextTable
from trtgate.compiling import artifact_cache
from trtgate.compiling.artifact_cache import ArtifactCache, key_of
from trtgate.compiling.sealed_store import SealedManifest
from trtgate.records.measurement import Build
from trtgate.report.terminal_table import describe

LATENCY = ["-m", "trtgate_latency", "--trtgate-launches=3", "--trtgate-prebuild=4"]
KEYS = 8
ENTRY_BYTES = 32 << 20


def hammer(folder: Path, done: Synchronized[int]) -> None:
    """Store and take entries until this process is ended."""
    cache = ArtifactCache(folder)
    while True:
        key = key_of({"hammer": str(random.randrange(KEYS))})
        place = Path(tempfile.mkdtemp(prefix="hammer-"))
        try:
            (place / "file").write_bytes(os.urandom(ENTRY_BYTES))
            manifest = SealedManifest(
                case="hammer", made_from={}, created=artifact_cache.now(), build=Build(build_s=1.0), coverage=None,
                sha256=sealed_folder.digests(place),
            )  # fmt: skip
            cache.put(key, place, manifest)
            (place / "file").unlink()
            cache.take(key, place)
        finally:
            shutil.rmtree(place)
        with done.get_lock():
            done.value += 1


def main() -> None:
    """Run the gates, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--caches", type=Path)
    options, more = parser.parse_known_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    caches = (options.caches or folder / "caches").resolve()
    print(f"{describe(detect())}, {machine.cpus()} CPUs", flush=True)
    arguments = [*LATENCY, *more]
    gate_runs.run("building", folder, caches, ["-m", "trtgate_accuracy", "--trtgate-prebuild=auto", *more])
    alone = [gate_runs.run(f"alone-{number}", folder, caches, arguments) for number in (1, 2)]
    done: Any = multiprocessing.Value("q", 0)
    busy = multiprocessing.Process(target=hammer, args=(caches / "artifacts", done), daemon=True)
    busy.start()
    started = [gate_runs.Started(f"together-{number}", folder, caches, arguments) for number in (1, 2)]
    together = [one.wait() for one in started]
    busy.kill()
    busy.join()
    for one in together:
        (folder / f"{one.name}.json").write_bytes(msgspec.json.encode(one))
        print(f"{one.name}: {one.seconds:.1f} s, exit status {one.exit_status}")
    print(f"the third process stored and took {done.value} entries of {ENTRY_BYTES >> 20} MiB meanwhile\n")
    table = [("case", "alone", "again alone", "first of two", "second of two")]
    moved = []
    for case_id, us in alone[0].medians_us.items():
        cells = []
        for one in (alone[1], *together):
            if case_id not in one.medians_us or case_id not in alone[1].medians_us:
                cells.append("not measured")
                continue
            change = one.medians_us[case_id] / (us if one is alone[1] else (us + alone[1].medians_us[case_id]) / 2) - 1
            moved += [change] if one is not alone[1] else []
            cells.append(f"{change:+.3%}")
        again, first, second = cells
        table.append((case_id, f"{us:.2f} us", again, first, second))
    print(TextTable(table))
    print(f"\nlargest change beside another: {max(moved, key=abs, default=float('nan')):+.3%} of {len(moved)}")


if __name__ == "__main__":
    main()
