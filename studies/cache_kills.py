"""Does a process that is killed while it writes the artifact cache leave a broken entry, or a lock, behind?

    python studies/cache_kills.py [--kills 50] [--writers 4] [--seed 0]

Writers store and take entries of random size without a pause, and check what they take; one of them at a time is
ended with SIGKILL at a random moment, and another takes its place. Then every entry is taken once more, the lock is
asked for, and what killed writers left must be gone after the next entry is stored. Prints the machine and the counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from trtgate.common import sealed_folder
from trtgate.common.accelerator import detect
from trtgate.common.locks import folder_locked
from trtgate.common.text_columns import TextTable
from trtgate.compiling import artifact_cache
from trtgate.compiling.artifact_cache import ArtifactCache, key_of
from trtgate.compiling.sealed_store import SealedManifest
from trtgate.records.measurement import Build
from trtgate.report.terminal_table import describe

KEYS = 8
MOST_BYTES = 4 << 20
LIMIT_BYTES = 12 << 20
"""Less than all keys take: entries are thrown out too."""
LONGEST_S = 0.5


def content_of(number: int) -> bytes:
    """Return what the entry of that number holds: always the same."""
    rng = random.Random(number)
    return rng.randbytes(rng.randrange(1, MOST_BYTES))


def put(cache: ArtifactCache, number: int, folder: Path) -> str:
    """Store an entry; returns its key."""
    (folder / "compiled.pt2").write_bytes(content_of(number))
    made_from = {"number": str(number)}
    manifest = SealedManifest(
        case=f"case-{number}", made_from=made_from, created=artifact_cache.now(), build=Build(build_s=1.0),
        coverage=None, sha256=sealed_folder.digests(folder),
    )  # fmt: skip
    note = cache.put(key_of(made_from), folder, manifest)
    if note:
        raise RuntimeError(note)
    return key_of(made_from)


def take(cache: ArtifactCache, number: int, folder: Path) -> str:
    """Take an entry; returns "taken", "absent", "rejected" (found out and removed), or "corrupt" (handed out)."""
    manifest, problem = cache.take(key_of({"number": str(number)}), folder)
    if manifest is None:
        return "rejected" if problem else "absent"
    return "taken" if (folder / "compiled.pt2").read_bytes() == content_of(number) else "corrupt"


def write(folder: str, counts: dict[str, Synchronized[int]], seed: int) -> None:
    """Store and take until killed."""
    rng, cache = random.Random(seed), ArtifactCache(Path(folder), limit_bytes=LIMIT_BYTES)
    while True:
        number = rng.randrange(KEYS)
        with tempfile.TemporaryDirectory() as place:
            if rng.random() < 0.5:
                put(cache, number, Path(place))
                said = "stored"
            else:
                said = take(cache, number, Path(place))
        with counts[said].get_lock():
            counts[said].value += 1


def main() -> None:
    """Kill, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, context = random.Random(options.seed), multiprocessing.get_context("fork")
    # One counter a writer and outcome: a writer that is killed may hold its counter's lock for ever.
    counters: list[dict[str, Any]] = []

    def start(folder: Path) -> Any:
        counters.append({said: context.Value("i", 0) for said in ("stored", "taken", "absent", "rejected", "corrupt")})
        process = context.Process(target=write, args=(str(folder), counters[-1], len(counters)), daemon=True)
        process.start()
        return process

    print(describe(detect()))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "cache"
        writers = [start(folder) for _ in range(options.writers)]
        ended_by_themselves = 0
        for _ in range(options.kills):
            time.sleep(rng.uniform(0.0, LONGEST_S))
            number = rng.randrange(len(writers))
            ended_by_themselves += sum(not writer.is_alive() for writer in writers)
            os.kill(writers[number].pid, signal.SIGKILL)
            writers[number].join()
            writers[number] = start(folder)
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
        left = len(list(folder.glob("new-*")))
        with folder_locked(folder, timeout_s=5):
            pass
        cache, after = ArtifactCache(folder, limit_bytes=LIMIT_BYTES), dict.fromkeys(counters[0], 0)
        for number in range(KEYS):
            with tempfile.TemporaryDirectory() as place:
                after[take(cache, number, Path(place))] += 1
        with tempfile.TemporaryDirectory() as place:
            put(cache, KEYS, Path(place))
        rows = [("", "while writers are killed", "afterwards")]
        rows += [
            (said, str(sum(counter[said].value for counter in counters)), str(after[said])) for said in counters[0]
        ]
        print(TextTable(rows))
        print(f"{options.kills + options.writers} kills of {options.writers} writers; the lock is free")
        print(f"folders that killed writers left: {left}, after the next entry: {len(list(folder.glob('new-*')))}")
        print(f"writers that ended by themselves: {ended_by_themselves}")
        print(f"{KEYS} entries of at most {MOST_BYTES >> 20} MiB")


if __name__ == "__main__":
    main()
