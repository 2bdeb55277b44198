"""What the campaign of `faults.py` is made of: a checkout with all that trtgate stores, runs in it, what came of it."""

from __future__ import annotations

import enum
import faulthandler
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec
import pytest

from tests import forks, in_process
from tests.pytest_folder import LEAN
from tests.suites import suite_text
from trtgate import cli
from trtgate.common.accelerator import detect
from trtgate.common.errors import PROBLEMS, sentence_of
from trtgate.gate.baseline_record import StoredSession
from trtgate.records.measurement import CaseMeasurement

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 90.0
"""Longest that a run may take on an idle machine, where it takes 5 s at most: then it hangs."""
DYING_S = 10.0
"""Longest that processes of a run that was killed may live on."""
ALPHA, BETA = "alpha-eager-fp32-b1", "beta-eager-fp32-b1"
MARK, SLOW = "TRTGATE_FAULTS_RUN", "TRTGATE_FAULTS_SLOW"
"""Environment variables: whose process it is; the model that is twice as slow as its baseline."""
SCRIPTED_US = 2100.0
"""As long as the suite's models really take, by their scripted clock."""
EXIT_CODES = (0, 1, 2, 4, 5)
"""Those of pytest and of the command; any other is one that nobody meant."""
CODE = re.compile(
    r"^(?:E  +\S|\S+\.py:\d+: )|Traceback \(most recent call last\)|INTERNALERROR|^Exception ", re.MULTILINE
)
"""What a user is shown of our code: a traceback, pytest's or Python's, or a warning with a line of source."""
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|^\s*::|##\[", re.MULTILINE)
"""What a terminal or a CI system would obey."""


class Came(enum.StrEnum):
    """What came of an attempt, the best first."""

    HELD = "held"
    LINE = "one line"
    LEFT = "left behind"
    SILENT = "silent"
    LOST = "lost"
    TRACEBACK = "traceback"
    HANG = "hang"


class Attempt(msgspec.Struct, frozen=True):
    """One fault: of which class, of what kind, and how exactly; another process finds it by its number."""

    number: int
    family: str
    kind: str
    how: str
    seed: int


class Result(msgspec.Struct, frozen=True):
    """What came of an attempt, and what shows it."""

    attempt: Attempt
    came: Came
    evidence: str = ""


class Ended(msgspec.Struct, frozen=True):
    """A run: its exit code, None where it hung, and all that it printed."""

    status: int | None
    output: str

    @property
    def lines(self) -> list[str]:
        return [line for line in self.output.splitlines() if line.strip()]

    def says(self, *words: str) -> bool:
        """Whether a line has all the words."""
        return any(all(word in line for word in words) for line in self.lines)

    def broken(self, ours: str = "") -> Came | None:
        """Return how a run ended as none may, whatever the fault was; a traceback counts if `ours` is in it."""
        if self.status is None:
            return Came.HANG
        code = CODE.search(self.output) or self.status not in EXIT_CODES
        if (code and ours in self.output) or CONTROL.search(self.output):
            return Came.TRACEBACK
        return None


def groups(names: Sequence[str], begin: dict[str, str]) -> list[tuple[str, str]]:
    """Return names with the groups that they are in; `begin` has the first name of each group."""
    found, group = [], ""
    for name in names:
        group = begin.get(name, group)
        found.append((group, name))
    return found


def _patience(seconds: float) -> float:
    """Return what some seconds of an idle machine are on this one now: processes wait in turn for its cores."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def worst(found: Sequence[tuple[Came, str]]) -> tuple[Came, str]:
    """Return the worst of what came of the runs of an attempt, and its evidence."""
    return max(found, key=lambda one: list(Came).index(one[0]), default=(Came.HELD, ""))


class Scripted(in_process.ScriptedSession):
    """As the session of tests; one model is twice as slow where the environment says so."""

    def measure(self, case_id: str, *others: Any) -> CaseMeasurement:
        self.latency_us = SCRIPTED_US * (2 if case_id.partition("-")[0] == os.environ.get(SLOW) else 1)
        return super().measure(case_id, *others)


class Place:
    """A checkout and the user's folders, made once and restored for each attempt; one process uses it."""

    def __init__(self, root: Path) -> None:
        self.root = root / "place"
        self.checkout = self.root / "checkout"
        self._template = root / "template"
        self._count = 0
        self.kept_runs: list[Path] = []
        """The saved runs that each attempt begins with, the oldest first."""
        self.checkout.mkdir(parents=True)
        for name in ("home", "tmp", "locks"):
            (self.root / name).mkdir()
        (self.checkout / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
        (self.checkout / "suite.py").write_text(suite_text(("alpha", "beta"), {}))

    def keep(self) -> None:
        """Make the place as it is now what each attempt begins with."""
        shutil.copytree(self.root, self._template, symlinks=True)
        self.kept_runs = self.runs()

    def restore(self) -> None:
        """Bring everything back."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self._template, self.root, symlinks=True)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a run here: a user's own folders are here too."""
        self._count += 1
        theirs = ("PYTEST_", "TRTGATE_", "XDG_", "GIT_", "GITHUB_")
        return {name: value for name, value in os.environ.items() if not name.startswith(theirs)} | {
            "HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp"),
            "TRTGATE_LOCK_DIR": str(self.root / "locks"), "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "160",
            "OMP_NUM_THREADS": "1", MARK: f"{os.getpid()}-{self._count}",
            **more,
        }  # fmt: skip

    # What is stored

    @property
    def baseline(self) -> Path:
        """The stored latencies."""
        return self.checkout / "baselines" / detect().key / "latency.json"

    def runs(self) -> list[Path]:
        """Return the saved runs, the oldest first."""
        return sorted(self.checkout.glob(".trtgate/runs/*.json"))

    def stored(self) -> dict[Path, bytes]:
        """Return all files that a user would miss."""
        folders = (self.checkout / "baselines", self.checkout / ".trtgate", self.root / "home")
        files = (path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        return {path: path.read_bytes() for path in files if not {"logs", "__pycache__"} & set(path.parts)}

    # Runs

    def gate(self, *arguments: str, **environment: str) -> Ended:
        """Run pytest on the suite in a fork, its measuring scripted."""
        return self.forked(lambda: pytest_main("suite.py", *arguments), **environment)

    def command(self, *arguments: str, **environment: str) -> Ended:
        """Run `trtgate` in a fork."""
        return self.forked(lambda: trtgate_main(*arguments), **environment)

    def forked(self, action: Callable[[], int], **environment: str) -> Ended:
        """Call a function in a fork of this process, in the checkout; it ends with the exit code that is returned."""
        variables = self.environment(**environment)
        printed, ours = os.pipe()  # no file: the disk may be full
        pid = os.fork()
        if pid == 0:
            os.close(printed)
            self._become(action, variables, ours)
        os.close(ours)
        with open(printed, "rb") as output:
            return _ended(pid, output)

    def _become(self, action: Callable[[], int], variables: dict[str, str], printed: int) -> NoReturn:
        status = 99
        try:
            os.setpgid(0, 0)
            os.dup2(printed, 1)
            os.dup2(printed, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
            faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
            os.environ.clear()
            os.environ.update(variables)
            tempfile.tempdir = None
            os.chdir(self.checkout)
            in_process.patch(pytest.MonkeyPatch(), self.root / "locks", Scripted)
            os.environ.update(variables)
            status = action()
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process of its own, with this interpreter, and a mark that its children inherit.

        It has a session of its own, but as a fork of a server: those of its workers would be none.
        """
        path = os.pathsep.join(str(folder) for folder in (ROOT / "src", ROOT / "studies", ROOT))
        variables = self.environment(PYTHONPATH=path, **environment)
        with (self.root / "printed").open("wb") as printed:
            return subprocess.Popen(
                [sys.executable, *command], cwd=self.checkout, env=variables, stdin=subprocess.DEVNULL, stdout=printed,
                stderr=printed, start_new_session=subprocess.Popen is forks.real_popen,
            )  # fmt: skip

    def ended(self, process: subprocess.Popen[bytes]) -> Ended:
        """Wait for a process that was started here; one that hangs is killed."""
        status: int | None
        try:
            status = process.wait(_patience(TIMEOUT_S))
        except subprocess.TimeoutExpired:
            status = None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
        return Ended(status, (self.root / "printed").read_bytes().decode(errors="replace"))

    def alive(self) -> list[int]:
        """Return the processes with the mark of the last run."""
        mark = f"{MARK}={os.getpid()}-{self._count}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def outlived(self) -> list[int]:
        """Return the processes of the last run that are still there after DYING_S, killed now."""
        deadline = time.monotonic() + _patience(DYING_S)
        while (found := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found


def _ended(pid: int, output: BinaryIO) -> Ended:
    """Wait for a fork; one that hangs is killed, after it has said where."""
    os.set_blocking(output.fileno(), False)
    content, deadline = b"", time.monotonic() + _patience(TIMEOUT_S)
    asked_where, status = False, 0
    while True:
        content += output.read() or b""
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline and not asked_where:
            asked_where = True
            os.kill(pid, signal.SIGUSR1)
        if time.monotonic() > deadline + 1:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    content += output.read() or b""
    return Ended(None if asked_where else os.waitstatus_to_exitcode(status), content.decode(errors="replace"))


def pytest_main(*arguments: str) -> int:
    """Run pytest in this process."""
    here = [*LEAN, "-p", "no:xdist", "-p", "no:randomly", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*here, *arguments]))


def trtgate_main(*arguments: str) -> int:
    """Run `trtgate` in this process."""
    sys.argv = ["trtgate", *arguments]
    cli.main()
    return 0


def told(action: Callable[[], Any]) -> int:
    """Call what a run calls, print what it returns, and end as a run does: a problem is a line and exit code 4."""
    try:
        print(action())
    except PROBLEMS as error:
        print(f"ERROR: {sentence_of(error)}")
        return 4
    return 0


# What is stored stays


def _parts(content: bytes) -> list[Any]:
    """Return all that a file of JSON stores one by one: sessions of cases, coverage of cases. Raises ValueError."""
    document, found = json.loads(content), []
    for entry in document.get("benchmarks", []):
        record = entry["extra_info"]["trtgate"]
        found += [[record["case"], _as_read(one)] for one in record["sessions"]]
    return found + [[name, one] for name, one in document.get("cases", {}).items()]


def _as_read(session: Any) -> Any:
    """Return a session without what trtgate does not know in it: damage may have given a key another name."""
    with suppress(msgspec.ValidationError):
        return msgspec.to_builtins(msgspec.convert(session, StoredSession))
    return session


def _holds(new: Any, old: Any) -> bool:
    """Whether a part of JSON has all that another has; it may have more keys."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(name in new and _holds(new[name], value) for name, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_holds, new, old))
    return bool(old == new)


def kept(path: Path, before: bytes, after: bytes | None, removed: str = "") -> bool:
    """Whether a file still has all that it held; `removed` is a case that was to be removed."""
    if after == before:
        return True
    if after is None:
        return False
    if path.suffix == ".jsonl":
        return after.startswith(before)
    try:
        old, new = _parts(before), _parts(after)
        return all(one[0] == removed or any(_holds(other, one) for other in new) for one in old)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return False


def lost(place: Place, before: dict[Path, bytes], *, removed: str = "", spared: str = "") -> str:
    """Return a stored file that is gone or holds less, but for those of the pattern `spared`."""
    now = place.stored()
    for path, content in before.items():
        name = str(path.relative_to(place.root))
        if not fnmatch.fnmatch(name, spared) and not kept(path, content, now.get(path), removed):
            return f"{name} {'is gone' if path not in now else 'holds less than before'}"
    return ""
