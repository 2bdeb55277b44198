"""A folder in which a test runs pytest, and what is often asserted of that."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .suites import PLAIN_HEAD, PLAIN_TEST, suite_text

TIMEOUT_S = 120
"""Longest that a pytest of a test may take; it is killed then."""

LEAN = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio")
"""No cache in a test's folder, and no plugins of ours that take a second to import."""


class PytestFolder:
    """A folder in which pytest runs: with pytest-benchmark alone (`plain`), or with trtgate and a suite (`gate`)."""

    def __init__(
        self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, recorded: Callable[[bool], Path],
        *, real_time: bool,
    ):  # fmt: skip
        self.path = pytester.path
        self.pytester = pytester
        self.real_time = real_time
        self._monkeypatch = monkeypatch
        self._recorded = recorded

    # Files

    def plain_tests(self, *names: str) -> None:
        """Write one benchmark for each name."""
        text = PLAIN_HEAD + "".join(PLAIN_TEST.format(name=name) for name in names)
        (self.path / "test_plain.py").write_text(text)

    def suite(self, *names: str, more: str = "", **statements: str) -> None:
        """Write an ini file and its suite: models whose forward begins with a statement, models that sleep, more."""
        (self.path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
        (self.path / "suite.py").write_text(suite_text(names, statements, real_time=self.real_time) + more)

    def baseline(self, *names: str) -> Path:
        """Put the recorded baseline of alpha and beta here, or of one of the two."""
        recorded = self._recorded(self.real_time)
        file = self.path / "baselines" / recorded.parent.name / recorded.name
        file.parent.mkdir(parents=True)
        file.write_text(recorded.read_text())
        with edited(file) as document:
            document["benchmarks"] = [entry for entry in document["benchmarks"] if _model_of(entry) in names]
        return file

    def edited(self, file: Path) -> AbstractContextManager[Any]:
        """Within: a file's JSON as objects, written back at the end; NaN as Python's json writes it."""
        return edited(file)

    def plain_runs(self) -> list[Path]:
        """Return what pytest-benchmark saved, the oldest first."""
        return sorted(self.path.glob(".benchmarks/*/*.json"), key=lambda file: file.name)

    def saved_cases(self) -> set[str]:
        """Return the cases of all runs that trtgate saved."""
        runs = [json.loads(file.read_text()) for file in self.path.glob(".trtgate/runs/*.json")]
        return {entry["extra_info"]["trtgate"]["case"] for run in runs for entry in run["benchmarks"]}

    def stored_entries(self) -> dict[str, dict[str, Any]]:
        """Return case → what the one baseline that was recorded here has of it."""
        (file,) = self.path.glob("baselines/*/latency.json")
        found = [entry["extra_info"]["trtgate"] for entry in json.loads(file.read_text())["benchmarks"]]
        return {entry["case"]: entry for entry in found}

    # Runs

    def plain(self, *arguments: str, **environment: object) -> pytest.RunResult:
        """Run the benchmarks without trtgate."""
        return self.pytest("-p", "no:trtgate.plugin", "test_plain.py", *arguments, **environment)

    def gate(self, *arguments: str, **environment: object) -> pytest.RunResult:
        """Run the suite."""
        return self.pytest("suite.py", "--trtgate-launches=1", *arguments, **environment)

    def pytest(self, *arguments: str, **environment: object) -> pytest.RunResult:
        """Run pytest with environment variables."""
        shutil.rmtree(self.path / "__pycache__", ignore_errors=True)  # it tells files apart by size and whole seconds
        with self._monkeypatch.context() as context:
            for name, value in environment.items():
                context.setenv(name, str(value))
            return self.pytester.runpytest_subprocess(*LEAN, *arguments, timeout=TIMEOUT_S)

    def start(self, *arguments: str, forked: bool = False) -> subprocess.Popen[str]:
        """Start a run of the suite and return at once: in real processes, or as a fork whose workers are forks."""
        made = {} if forked else {"preexec_fn": _takes_ctrl_c}
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *LEAN, "suite.py", *arguments],
            cwd=self.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **made,  # type: ignore[call-overload]
        )  # fmt: skip

    # What is asserted often

    def output_of(self, result: pytest.RunResult) -> str:
        return f"{result.stdout.str()}\n{result.stderr.str()}"

    def refused(self, result: pytest.RunResult, *words: str) -> None:
        """Assert that a run ended with exit code 4 and one line that has all the words, and did nothing else."""
        output = self.output_of(result)
        errors = re.findall(r"^ERROR: .*$", output, re.MULTILINE)
        assert (result.ret, len(errors)) == (pytest.ExitCode.USAGE_ERROR, 1)
        assert [word for word in words if word not in errors[0]] == []
        assert "Traceback" not in output
        assert "MISSING" not in output  # nothing was going to be run

    # Processes

    def wait_until(self, so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not so():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.05)

    def workers_of(self, run: subprocess.Popen[str]) -> list[int]:
        """Return the process ids of the workers that a run started; of a fork, those of its folder."""
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        server = _parent(run.pid)
        if server == os.getpid():
            return [pid for pid in pids if self.is_worker(pid) and _parent(pid) == run.pid]
        forks = [pid for pid in pids if pid != run.pid and _parent(pid) == server]
        return [pid for pid in forks if _folder_of(pid) == self.path.resolve()]

    def is_worker(self, pid: int) -> bool:
        """Whether a process is a worker, and alive."""
        try:
            return b"trtgate.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for one that is dead
        except OSError:
            return False


def is_alive(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # empty for one that nobody has waited for
    except OSError:
        return False


def _folder_of(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def _takes_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and so would this


@contextmanager
def edited(file: Path) -> Iterator[Any]:
    document = json.loads(file.read_text())
    yield document
    file.write_text(json.dumps(document))


def _model_of(entry: Mapping[str, Any]) -> str:
    case: str = entry["extra_info"]["trtgate"]["case"]
    return case.partition("-")[0]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
