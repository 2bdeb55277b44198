"""File systems and environments that fail, for the campaign of `faults.py`.

Disks that are full or can't be written, operations that fail, links that lead nowhere, no home, no temporary folder, no
terminal. What fails by permission for most users is injected, since the campaign may run as root.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from fault_files import SOCKETS
from fault_runs import ALPHA, SLOW, Attempt, Came, Ended, Place, Result, groups, lost, pytest_main, trtgate_main

from tests import faults, forks
from tests.suites import suite_text

FAMILY = "file systems"
ACCEPT = "--trtgate-accept=*"
CACHE = "home/.cache/trtgate/artifacts"
MORE_FILES = 10
"""So many a process may open, where files are few."""


def _nothing(_place: Place) -> None: ...


class Fault(NamedTuple):
    """A fault: what is changed before, what fails in the process, and which commands are tried."""

    commands: tuple[str, ...]
    prepare: Callable[[Place], None] = _nothing
    inside: Callable[[Place], None] = _nothing
    environment: Callable[[Place], dict[str, str]] = lambda _place: {}


# Commands


def _record(place: Place) -> int:
    return pytest_main("-s", "suite.py", "--trtgate-launches=1", "--trtgate-update-baselines", ACCEPT)


def _compare(place: Place) -> int:
    os.environ[SLOW] = "alpha"
    return pytest_main("-s", "suite.py", "--trtgate-launches=1", "--benchmark-compare", "--trtgate-report=out/run.json")


def _sweep(place: Place) -> int:
    asked = ("--set", "frontend=eager", "--set", "precision=fp32", "--vary", "batch=3", "--launches=1", "--inputs=2")
    with forks.forked(SOCKETS):
        return trtgate_main("sweep", "alpha", *asked, "--timeout=30", "--json=out/sweep.json")


COMMANDS: dict[str, Callable[[Place], int]] = {
    "record": _record, "compare": _compare, "sweep": _sweep,
    "accept": lambda place: trtgate_main("baseline", "accept", str(place.kept_runs[1]), "*"),
    "remove": lambda place: trtgate_main("baseline", "remove", ALPHA),
    "show": lambda place: trtgate_main("baseline", "show"),
    "history": lambda place: trtgate_main("history", "*", "--json=out/history.json"),
    "report": lambda place: trtgate_main("report", "report.json", "--html=out/report.html"),
    "coverage diff": lambda place: trtgate_main("coverage", "diff", "rtx-2.11.0", "rtx-2.14.0"),
    "cache info": lambda place: trtgate_main("cache", "info"),
    "cache clear": lambda place: trtgate_main("cache", "clear"),
    "init": lambda place: trtgate_main("init", "--force"),
}  # fmt: skip


# Faults


def _raises(code: int, suits: Callable[[str, Path], bool]) -> None:
    """Let operations of ours fail: what pytest makes of its own is not the question."""

    def hook(name: str, path: Path) -> None:
        if suits(name, path) and faults.is_ours():
            raise OSError(code, os.strerror(code), str(path))

    faults.watch(pytest.MonkeyPatch(), hook)


def _writes(name: str) -> bool:
    return name in faults.CHANGING or name == "open+"


def _grows(name: str) -> bool:
    """Whether an operation takes space."""
    return name in ("mkdir", "link", "rename", "replace", "open+")


def _read_only(below: str) -> Callable[[Place], None]:
    return lambda place: _raises(
        errno.EROFS,
        lambda name, path: _writes(name) and path.is_relative_to(place.root / below),
    )


def _unreadable(below: str) -> Callable[[Place], None]:
    return lambda place: _raises(
        errno.EACCES, lambda name, path: path.is_relative_to(place.root / below) and path != place.root / below
    )


def _at_random(code: int, of: Callable[[str], bool]) -> Callable[[Place], None]:
    """Let one operation below the place fail, and all that follow it."""

    def inside(place: Place) -> None:
        count, at = itertools.count(), random.Random(os.environ["TRTGATE_FAULTS_SEED"]).randrange(25)
        _raises(code, lambda name, path: of(name) and path.is_relative_to(place.root) and next(count) >= at)

    return inside


def _largest(size: int) -> Callable[[Place], None]:
    def inside(_place: Place) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return inside


def _few_files(_place: Place) -> None:
    count = len(os.listdir("/proc/self/fd")) + MORE_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def _full_at_sync(_place: Place) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pytest.MonkeyPatch().setattr(os, "fsync", full)


def _no_home(_place: Place) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    pytest.MonkeyPatch().setattr(Path, "home", home)


def _no_temporary_folder(_place: Place) -> None:
    def gettempdir() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    patch = pytest.MonkeyPatch()
    patch.setattr(tempfile, "gettempdir", gettempdir)
    patch.setattr(tempfile, "gettempdirb", gettempdir)


def _no_proc(_place: Place) -> None:
    _raises(errno.ENOENT, lambda _name, path: path.parts[1:2] == ("proc",))


def _output_to(path: str) -> Callable[[Place], None]:
    def inside(_place: Place) -> None:
        descriptor = os.open(path, os.O_WRONLY)
        os.dup2(descriptor, 1)

    return inside


def _output_encoded(name: str) -> Callable[[Place], None]:
    def inside(_place: Place) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding=name, errors="strict")  # type: ignore[union-attr]

    return inside


def _closed(descriptor: int) -> Callable[[Place], None]:
    return lambda _place: os.close(descriptor)


def _in_a_folder_that_is_gone(place: Place) -> None:
    gone = place.root / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()


def _link(name: str, target: str = "") -> Callable[[Place], None]:
    """Put a link in a file's or folder's place, which goes to another name; a link to `target`, or to itself."""

    def prepare(place: Place) -> None:
        path = place.root / name
        if path.exists():
            path.rename(place.root / "moved-away")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(place.root / (target or name))

    return prepare


def _file(name: str) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        path = place.root / name
        if path.exists():
            path.rename(place.root / "moved-away")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine\n")

    return prepare


def _pipe(name: str) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        path = place.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.mkfifo(path)

    return prepare


def _folders_for_outputs(place: Place) -> None:
    for name in ("run.json", "sweep.json", "history.json"):
        (place.checkout / "out" / name).mkdir(parents=True)


def _long_names(place: Place) -> None:
    (place.checkout / "suite.py").write_text(suite_text(("alpha", "b" * 300), {}))


def _variables(**names: str) -> Callable[[Place], dict[str, str]]:
    return lambda place: {name: value.format(root=place.root) for name, value in names.items()}


ALL_WRITE = ("record", "compare", "sweep", "accept")
FAULTS: dict[str, Fault] = {
    # what can't be written
    "a read-only checkout": Fault((*ALL_WRITE, "remove", "history", "init"), inside=_read_only("checkout")),
    "read-only baselines": Fault(("record", "accept", "remove"), inside=_read_only("checkout/baselines")),
    "a read-only .trtgate": Fault(("record", "compare", "sweep"), inside=_read_only("checkout/.trtgate")),
    "a read-only home": Fault(("compare", "cache info", "cache clear"), inside=_read_only("home")),
    "nothing can be written": Fault(("record", "compare", "sweep", "cache info"), inside=_read_only("")),
    "unreadable baselines": Fault(("record", "compare", "show", "accept"), inside=_unreadable("checkout/baselines")),
    "an unreadable .trtgate": Fault(("record", "history", "sweep"), inside=_unreadable("checkout/.trtgate")),
    "an unreadable home": Fault(("compare", "cache info"), inside=_unreadable("home")),
    # full disks and failing operations
    "no byte left": Fault((*ALL_WRITE, "report"), inside=_largest(0)),
    "4 KiB left": Fault(ALL_WRITE, inside=_largest(4 << 10)),
    "12 KiB left": Fault(("record", "accept"), inside=_largest(12 << 10)),
    "full when synced": Fault((*ALL_WRITE, "remove"), inside=_full_at_sync),
    "full from some operation on": Fault(ALL_WRITE, inside=_at_random(errno.ENOSPC, _grows)),
    "a quota from some operation on": Fault(("record", "sweep"), inside=_at_random(errno.EDQUOT, _grows)),
    "a broken disk from some operation on": Fault(ALL_WRITE, inside=_at_random(
        errno.EIO, lambda name: name not in ("stat", "unlink"))),
    "a stale mount from some operation on": Fault(("record", "compare"), inside=_at_random(
        errno.ESTALE, lambda _name: True)),
    "few open files": Fault(("record", "compare", "sweep"), inside=_few_files),
    # what is something else
    ".trtgate is a link to nothing": Fault(("record", "history", "sweep"), _link("checkout/.trtgate", "nothing/there")),
    ".trtgate is a link to itself": Fault(("record", "history", "sweep"), _link("checkout/.trtgate")),
    ".trtgate is a file": Fault(("record", "history", "sweep"), _file("checkout/.trtgate")),
    "baselines are a link to nothing": Fault(
        ("record", "compare", "show"), _link("checkout/baselines", "nothing/there")),
    "baselines are a link to themselves": Fault(("record", "compare"), _link("checkout/baselines")),
    "baselines are a file": Fault(("record", "compare", "accept"), _file("checkout/baselines")),
    "baselines are elsewhere, by a link": Fault(("record", "compare"), _link("checkout/baselines", "moved-away")),
    "the cache is a link to nothing": Fault(("compare", "cache info"), _link(CACHE, "nothing/there")),
    "the cache is a file": Fault(("compare", "cache info", "cache clear"), _file(CACHE)),
    "logs are a pipe": Fault(("sweep",), _pipe("checkout/.trtgate/logs/sweep-0.log")),
    "builders' logs are a pipe": Fault(("sweep",), _pipe("checkout/.trtgate/logs/builder-0.log")),
    "an output is a folder": Fault(("compare", "sweep", "history"), _folders_for_outputs),
    "the output's folder is a file": Fault(("compare", "sweep", "report"), _file("checkout/out")),
    # the environment
    "no home": Fault(("record", "cache info", "history"), inside=_no_home),
    "a home that is no folder": Fault(("record", "cache info"), environment=_variables(HOME="/dev/null")),
    "a home that is not there": Fault(("record", "cache info"), environment=_variables(HOME="{root}/nothing/there")),
    "user folders that are files": Fault(("record", "cache info"), _file("tmp/file"), environment=_variables(
        XDG_CACHE_HOME="{root}/tmp/file", XDG_STATE_HOME="{root}/tmp/file")),
    "no temporary folder": Fault(ALL_WRITE, inside=_no_temporary_folder),
    "a temporary folder that is not there": Fault(("record", "sweep"), environment=_variables(TMPDIR="{root}/nothing")),
    "a lock folder that is not there": Fault(("sweep",), environment=_variables(TRTGATE_LOCK_DIR="{root}/nothing")),
    "a lock folder that is a file": Fault(("sweep",), _file("tmp/file"), environment=_variables(
        TRTGATE_LOCK_DIR="{root}/tmp/file")),
    "a cache folder of all users": Fault(("compare", "cache info"), lambda place: (
        place.root / CACHE).chmod(0o777)),
    "no /proc": Fault(("compare", "show"), inside=_no_proc),
    "a folder that is gone": Fault(("show", "history", "sweep"), inside=_in_a_folder_that_is_gone),
    "a full terminal": Fault(("show", "history", "cache info"), inside=_output_to("/dev/full")),
    "a closed output": Fault(("show", "history"), inside=_closed(1)),
    "a closed input": Fault(("record", "sweep"), inside=_closed(0)),
    "an ASCII terminal": Fault(
        ("compare", "show", "history", "sweep", "coverage diff"), inside=_output_encoded("ascii")),
    "a Latin-1 terminal": Fault(("compare", "show", "history", "coverage diff"), inside=_output_encoded("latin-1")),
    "names of 300 characters": Fault(("record", "compare", "sweep"), _long_names),
}  # fmt: skip


# Attempts


def pairs() -> list[tuple[str, str]]:
    """Return what a fault is about, and its name."""
    begin = {
        "a read-only checkout": "can't be written or read", "no byte left": "full or failing",
        ".trtgate is a link to nothing": "something else", "no home": "environment",
    }  # fmt: skip
    return groups(list(FAULTS), begin)


def tried(place: Place, attempt: Attempt) -> Result:
    """Let a fault meet its commands."""
    found = [_came(place, attempt, name) for name in FAULTS[attempt.how].commands]
    return Result(attempt, *max(found, key=lambda one: list(Came).index(one[0])))


def _came(place: Place, attempt: Attempt, command: str) -> tuple[Came, str]:
    fault = FAULTS[attempt.how]
    place.restore()
    fault.prepare(place)
    before, sessions = place.stored(), _sessions(place)

    def action() -> int:
        fault.inside(place)
        return COMMANDS[command](place)

    ended = place.forked(action, TRTGATE_FAULTS_SEED=str(attempt.seed), **fault.environment(place))
    came, why = _judged(place, command, ended, before, sessions)
    return came, f"{command}: {why}\n{ended.output}"


def _judged(place: Place, command: str, ended: Ended, before: dict[Path, bytes], sessions: int) -> tuple[Came, str]:
    bad = ended.broken()
    if bad is not None:
        return bad, f"exit code {ended.status}"
    gone = lost(
        place, before, removed=ALPHA * (command == "remove"), spared="home/.cache/*" * (command == "cache clear")
    )
    if gone:
        return Came.LOST, gone
    left = list(place.root.rglob(".*.json-????????"))
    if left:
        return Came.LEFT, f"{left[0].relative_to(place.root)} is left"
    told = any(REASON.search(line) for line in ended.lines)
    if ended.status == 0 and not (told and command not in STORING) and not _done(place, command, sessions):
        return Came.SILENT, "exit code 0 and not done"
    if command == "compare" and ended.status == 0 and not ended.says(ALPHA, "new"):
        return Came.SILENT, "twice as slow, exit code 0"
    good = ended.says(f"{ALPHA} is slower") if command == "compare" else ended.status == 0
    if not good and not told:
        return Came.SILENT, f"exit code {ended.status}, and no line says why"
    return (Came.LINE, "") if told else (Came.HELD, "")


REASON = re.compile(
    r"error: |can't|could not|No space|Permission|Read-only|no home|must be|is no |MISSING|no baseline|go to|NEW",
    re.IGNORECASE,
)
"""A line that says why something was not done."""


STORING = ("record", "accept", "remove")
"""What these were asked to store, they have stored if they end with 0: a line is not enough."""


def _sessions(place: Place) -> int:
    try:
        return place.baseline.read_bytes().count(b'"recorded"')
    except OSError:
        return -1


def _done(place: Place, command: str, sessions: int) -> bool:
    """Whether a command did what it was asked for."""
    if command in ("record", "accept"):
        return _sessions(place) > sessions
    if command == "remove":
        return ALPHA.encode() not in place.baseline.read_bytes()
    outputs = {"sweep": "sweep.json", "history": "history.json", "report": "report.html"}
    return command not in outputs or (place.checkout / "out" / outputs[command]).is_file()
