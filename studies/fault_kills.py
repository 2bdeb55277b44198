"""Kills for the campaign of `faults.py`: SIGKILL for real runs of all that writes, at random, and what they leave.

Each run is a process of its own with workers and builders of their own. It is killed at a random moment of the time
that it takes, or just before a random one of its file operations, in which windows of microseconds are met. After each:
no file is half written, no stored session is lost, all processes are gone, and the same run works again and leaves
nothing of the killed one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from fault_kill_point import AT, COUNTED, PLACE
from fault_runs import ALPHA, BETA, Attempt, Came, Ended, Place, Result, lost, worst

from tests.pytest_folder import LEAN
from trtgate.common import git
from trtgate.common.errors import TrtgateError
from trtgate.gate import baselines

FAMILY = "kills"
LAUNCHES = "--trtgate-launches=1"
RECORD = ("--trtgate-update-baselines", "--trtgate-accept=*", LAUNCHES)
SWEEP = ("--set", "frontend=eager", "--set", "precision=fp32", "--vary", "batch=3,5", "--launches=1", "--inputs=2")
PYTEST = ("pytest", *LEAN, "suite.py")
SCENARIOS: dict[str, tuple[str, ...]] = {
    "record": (*PYTEST, *RECORD), "record, built ahead": (*PYTEST, *RECORD, "--trtgate-prebuild=1"),
    "compare": (*PYTEST, "--benchmark-compare", "--trtgate-report=run.json", "--trtgate-launches=2"),
    "sweep": ("trtgate", "sweep", "alpha", *SWEEP), "ab": (*PYTEST, "-m", "trtgate_latency", "--trtgate-base=HEAD"),
    "cache": ("cache", "filled"), "accept": ("trtgate", "baseline", "accept", "RUN", "*"),
}  # fmt: skip
MOMENT, WORKER, ALL, OPERATION = (
    "at a moment",
    "a worker, at a moment",
    "all processes, at a moment",
    "at a file operation",
)
HOWS = (MOMENT, WORKER, ALL, OPERATION, OPERATION)
WORKERLESS = ("cache", "accept")
LEFT = (
    "checkout/.trtgate/artifacts-*", "checkout/.trtgate/base-*", "checkout/.trtgate/try-*", "checkout/filled/new-*",
    "**/.*.json-????????", "tmp/trtgate-*",
)  # fmt: skip
"""What only a killed run leaves."""


class Rehearsal(NamedTuple):
    """A run that nobody killed."""

    status: int | None
    seconds: float
    operations: int


_rehearsals: dict[str, Rehearsal] = {}
"""Those of this process."""


def pairs() -> list[tuple[str, str]]:
    """Return which run is killed, and how; at a file operation twice as often."""
    return [(name, how) for name in SCENARIOS for how in HOWS if name not in WORKERLESS or how in (MOMENT, OPERATION)]


def tried(place: Place, attempt: Attempt) -> Result:
    """Kill a run, look at what it left, and run it again."""
    expected = _rehearsed(place, attempt.kind)
    place.restore()
    before, rng = place.stored(), random.Random(attempt.seed)
    ended, when = _killed(place, attempt, expected, rng)
    found = [_judged_run(place, attempt, ended)]
    outlived = place.outlived()
    if outlived:
        found.append((Came.LEFT, f"processes outlived it: {outlived}"))
    found += _judged_files(place, before)
    again = place.ended(_start(place, attempt.kind))
    found += _judged_again(place, expected, again) + _judged_files(place, before)
    came, why = worst(found)
    return Result(attempt, came, f"{when}\n{why}")


def _rehearsed(place: Place, kind: str) -> Rehearsal:
    if kind not in _rehearsals:
        place.restore()
        start = time.monotonic()
        ended = place.ended(_start(place, kind, **{COUNTED: str(place.root / "counted")}))
        seconds = time.monotonic() - start
        if ended.status != 0:
            raise RuntimeError(ended.output)
        _rehearsals[kind] = Rehearsal(ended.status, seconds, int((place.root / "counted").read_text()))
    return _rehearsals[kind]


def _start(place: Place, kind: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [str(place.kept_runs[1]) if word == "RUN" else word for word in SCENARIOS[kind]]
    return place.start("-m", "fault_kill_point", *command, **{PLACE: str(place.root)}, **environment)


def _killed(place: Place, attempt: Attempt, expected: Rehearsal, rng: random.Random) -> tuple[Ended, str]:
    if attempt.how == OPERATION:
        at = rng.randrange(expected.operations)
        return place.ended(_start(place, attempt.kind, **{AT: str(at)})), f"before operation {at}"
    process = _start(place, attempt.kind)
    moment = rng.uniform(0.0, expected.seconds)
    with suppress(subprocess.TimeoutExpired):
        process.wait(moment)
    pids = [process.pid]
    if attempt.how != MOMENT:
        workers = [pid for pid in place.alive() if _is_worker(pid)]
        pids = [*workers, process.pid] if attempt.how == ALL else [rng.choice(workers)] if workers else pids
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return place.ended(process), f"after {moment:.2f} s of {expected.seconds:.2f}"


def _is_worker(pid: int) -> bool:
    try:
        return b"trtgate.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _judged_run(place: Place, attempt: Attempt, ended: Ended) -> tuple[Came, str]:
    """Judge how a run ended: by itself, where a worker was killed."""
    if ended.status == -signal.SIGKILL:
        return Came.HELD, ""
    bad = ended.broken()
    if bad is not None:
        return bad, ended.output
    if ended.status == 0 and attempt.kind.partition(",")[0] in ("record", "compare", "ab"):
        measured = baselines.read(place.runs()[-1]).cases
        if not {ALPHA, BETA} <= measured.keys():
            return Came.SILENT, f"exit code 0 without a case\n{ended.output}"
    return (Came.HELD if ended.status == 0 else Came.LINE), ended.output


def _judged_files(place: Place, before: dict[Path, bytes]) -> list[tuple[Came, str]]:
    gone = lost(place, before)
    if gone:
        return [(Came.LOST, gone)]
    for path, content in place.stored().items():
        problem = _half_written(path, content)
        if problem:
            return [(Came.LOST, f"{path.relative_to(place.root)} is half written: {problem}")]
    return []


def _half_written(path: Path, content: bytes) -> str:
    if path.suffix != ".json":
        return ""
    try:
        if path.parent.name == "runs" or path.name == baselines.FILE_NAME:
            baselines.read(path)
        else:
            json.loads(content)
    except TrtgateError as error:
        return "" if "holds no case" in str(error) else str(error)  # a run that was killed before its first case
    except (ValueError, msgspec.MsgspecError) as error:
        return str(error)
    return ""


def _judged_again(place: Place, expected: Rehearsal, again: Ended) -> list[tuple[Came, str]]:
    bad = again.broken()
    if bad is not None or again.status != expected.status:
        return [(bad or Came.LEFT, f"the next run does not work\n{again.output}")]
    left = [path for pattern in LEFT for path in place.root.glob(pattern)]
    trees = git.run(place.checkout, "worktree", "list")
    if len(trees.stdout.splitlines()) != 1:
        left += [Path(trees.stdout)]
    found = [(Came.LEFT, f"it left {', '.join(map(str, left))}")] if left else []
    outlived = place.outlived()
    return [*found, (Came.LEFT, f"processes outlived the next run: {outlived}")] if outlived else found
