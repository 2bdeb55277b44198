"""The process that `fault_kills.py` kills: pytest, `trtgate`, or one that fills the artifact cache.

    python -m fault_kill_point pytest|trtgate|cache ARGUMENTS

It counts the operations below the place that change a file; where it is told to, it kills itself just before one.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import faults
from trtgate import cli

PLACE, AT, COUNTED = "TRTGATE_FAULTS_PLACE", "TRTGATE_FAULTS_KILL_AT", "TRTGATE_FAULTS_COUNTED"
"""Environment variables: the folder, the number of the operation, the file that gets how many there were."""
OF_DESCRIPTORS = ("fsync", "pwrite", "ftruncate")
CACHE_ENTRIES = 20


def watch(place: Path, at: int) -> Callable[[], int]:
    """Kill this process before an operation; returns what says how many there were."""
    done = 0

    def counted(name: str, path: Path) -> None:
        nonlocal done
        if (name in faults.CHANGING or name.endswith("+")) and path.is_relative_to(place):
            if done == at:
                os.kill(os.getpid(), signal.SIGKILL)
            done += 1

    def of_descriptor(original: Any) -> Any:
        def operation(descriptor: int, *arguments: Any) -> Any:
            counted("unlink", Path(os.readlink(f"/proc/self/fd/{descriptor}")))
            return original(descriptor, *arguments)

        return operation

    patch = pytest.MonkeyPatch()
    for name in OF_DESCRIPTORS:
        patch.setattr(os, name, of_descriptor(getattr(os, name)))
    faults.watch(patch, counted)
    return lambda: done


def fill_cache(folder: Path) -> int:
    """Store and take entries of the artifact cache; returns 1 where one was not what was stored."""
    import cache_kills

    from trtgate.compiling.artifact_cache import ArtifactCache

    cache, said = ArtifactCache(folder, limit_bytes=cache_kills.LIMIT_BYTES), set()
    for number in range(CACHE_ENTRIES):
        with tempfile.TemporaryDirectory() as place:
            cache_kills.put(cache, number % cache_kills.KEYS, Path(place))
        with tempfile.TemporaryDirectory() as place:
            said.add(cache_kills.take(cache, number % cache_kills.KEYS, Path(place)))
    print(f"entries were {' '.join(sorted(said))}")
    return int(bool(said - {"taken", "absent"}))


def main() -> None:
    """Be the process."""
    _, program, *arguments = sys.argv
    count = watch(Path(os.environ[PLACE]), int(os.environ.get(AT, "-1")))
    if COUNTED in os.environ:
        counted = Path(os.environ[COUNTED])
        atexit.register(lambda: counted.write_text(str(count())))
    if program == "pytest":
        sys.exit(int(pytest.main(arguments)))
    if program == "cache":
        sys.exit(fill_cache(Path(arguments[0])))
    sys.argv = ["trtgate", *arguments]
    cli.main()


if __name__ == "__main__":
    main()
