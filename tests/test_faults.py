"""Faults of the environment: one readable line, no traceback, and nothing that was stored is lost."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from trtgate.commands import history_answers
from trtgate.common import run_file

from . import faults
from .in_process import RECORD, InProcess, ScriptedSession, command, sessions_of
from .pytest_folder import PytestFolder

OK, FAILED, REFUSED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.USAGE_ERROR


def test_every_file_operation_of_a_run_may_fail(
    here: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each in turn, while a baseline is there: it is a readable line, or the run goes on without; nothing is lost."""
    assert here.run(*RECORD)[0] == OK
    (baseline,) = here.path.glob("baselines/*/latency.json")
    (here.path / "baselines" / "coverage" / "rtx-2.14.0").mkdir(parents=True)
    recorded, before = baseline.read_bytes(), sessions_of(baseline)
    tried: set[tuple[str, str]] = set()
    problems = []
    for asked in (RECORD, ("suite.py", "--benchmark-compare", "--trtgate-launches=1", "--trtgate-report=run.json")):
        asked = (*asked, "-k", "latency and alpha")
        operations = _operations(here, monkeypatch, asked, tmp_path)
        for key in operations.keys() - tried:
            baseline.write_bytes(recorded)
            failed: list[tuple[str, Path]] = []
            with monkeypatch.context() as context:
                faults.watch(context, _failing(operations[key], tmp_path, failed))
                status, said = here.run(*asked)
            problem = _what_is_wrong(status, said, failed)
            if not keeps(before, sessions_of(baseline)):
                problem = "sessions are lost"
            if list(baseline.parent.iterdir()) != [baseline]:
                problem = "something is left beside the baseline"
            if problem:
                problems.append((failed, problem, said))
        assert len(operations.keys() - tried) > 5
        tried |= operations.keys()
    assert not problems, "\n\n".join(f"{failed}: {problem}\n{said}" for failed, problem, said in problems)


def _operations(
    here: InProcess, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...], below: Path
) -> dict[tuple[str, str], int]:
    """Return the file operations of a run that nothing disturbs: name and path → the number of the last such."""
    operations: list[tuple[str, Path]] = []
    with monkeypatch.context() as context:
        faults.watch(
            context, lambda name, path: operations.append((name, path)) if _counts(name, path, below) else None
        )
        assert here.run(*asked)[0] == OK
    return {(name, RANDOM.sub("", str(path))): number for number, (name, path) in enumerate(operations)}


RANDOM = re.compile(r"(?<=-)\w{8}|\d{8}T\d{6}")


def _counts(name: str, path: Path, below: Path) -> bool:
    """Whether an operation is ours, and one that can fail in a folder that can be searched."""
    return name != "stat" and path.is_relative_to(below) and faults.is_ours()


def _failing(number: int, below: Path, failed: list[tuple[str, Path]]) -> faults.Hook:
    count = itertools.count()

    def hook(name: str, path: Path) -> None:
        if _counts(name, path, below) and next(count) == number:
            failed.append((name, path))
            code = errno.EACCES if name in ("open", *faults.READING) else errno.ENOSPC
            raise OSError(code, os.strerror(code), str(path))

    return hook


def _what_is_wrong(status: int, said: str, failed: list[tuple[str, Path]]) -> str:
    if not failed:
        return "nothing failed"
    if "Traceback" in said or "INTERNALERROR" in said:
        return "a traceback"
    if status not in (OK, FAILED, REFUSED):
        return f"exit code {status}"
    if status == OK:
        return ""
    reasons = ("No space left on device", "Permission denied")
    return "" if any(reason in line for line in said.splitlines() for reason in reasons) else "no reason"


def keeps(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> bool:
    return all(after.get(name, [])[: len(sessions)] == sessions for name, sessions in before.items())


# A checkout that can't be written


def test_a_read_only_checkout_is_measured_and_its_files_go_to_the_users_folder(
    here: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as context:
        faults.read_only(context, here.path)
        status, said = here.run("suite.py", "--trtgate-launches=1")
        assert status == OK
        (line,) = [line for line in said.splitlines() if "the files of this run go to" in line]
        assert f"{here.path / '.trtgate'} can't be written" in line
        (saved,) = (tmp_path / "state" / "trtgate").glob("runs/checkout-*/runs/*.json")
        assert str(saved.parents[1]) in line
        assert list(sessions_of(saved)) != []
        status, said = here.run(*RECORD)
        assert status == FAILED
        assert "latency.json could not be written (Read-only file system)" in said
        assert "Traceback" not in said
    assert not (here.path / ".trtgate").exists()


@pytest.mark.parametrize("what", ["a file", "a link to nothing", "logs are a link to nothing", "runs are a file"])
def test_a_run_folder_that_is_none(folder: PytestFolder, tmp_path: Path, what: str) -> None:
    folder.suite("alpha")
    place = folder.path / ".trtgate"
    if " are " in what:
        place.mkdir()
        place = place / what.partition(" ")[0]
    if "link" in what:
        place.symlink_to(tmp_path / "nothing" / "there")
    else:
        place.write_text("mine\n")
    result = folder.gate(XDG_STATE_HOME=tmp_path / "state")
    assert result.ret == OK
    result.stdout.fnmatch_lines([f"*{folder.path / '.trtgate'} can't be written*go to {tmp_path / 'state'}*"])
    assert list((tmp_path / "state").glob("trtgate/runs/*/runs/*.json"))
    assert place.is_symlink() or place.read_text() == "mine\n"


def test_history_is_where_the_runs_of_a_read_only_checkout_went(
    here: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as context:
        faults.read_only(context, here.path)
        assert here.run("suite.py", "--trtgate-launches=1")[0] == OK
    assert history_answers.folder_of(None).resolve().is_relative_to(tmp_path / "state")


def test_a_user_without_any_folder_to_write_gets_a_line(
    here: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as context:
        context.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))  # what tempfile found before
        faults.read_only(context, tmp_path)
        status, said = here.run("-s", "suite.py", "--trtgate-launches=1")
    assert status in (FAILED, REFUSED)
    assert "set XDG_STATE_HOME to one that can" in said
    assert "Traceback" not in said


# What is stored can't be read


@pytest.mark.parametrize("what", ["folder", "file", "key"])
def test_a_baseline_that_can_not_be_read_is_not_taken_for_none(
    here: InProcess, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    assert here.run(*RECORD)[0] == OK
    (baseline,) = here.path.glob("baselines/*/latency.json")
    denied = {"file": baseline, "key": baseline.parent, "folder": baseline.parents[1]}[what]

    def hook(name: str, path: Path) -> None:
        inside = path.is_relative_to(denied) and path != denied
        if faults.is_ours() and ((path == denied and name != "stat") or inside):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    for asked in (("suite.py", "--benchmark-compare"), RECORD):
        with monkeypatch.context() as context:
            faults.watch(context, hook)
            status, said = here.run(*asked)
        assert status == REFUSED
        (line,) = [line for line in said.splitlines() if line.startswith("ERROR: ")]
        assert str(baseline.relative_to(here.path)) in line
        assert "Permission denied" in line


@pytest.mark.parametrize(
    "what", ["a pipe", "a folder", "a link to nothing", "below a file", "below a link", "below two"]
)
def test_a_baseline_that_is_no_file(here: InProcess, what: str) -> None:
    assert here.run(*RECORD)[0] == OK
    (baseline,) = here.path.glob("baselines/*/latency.json")
    baseline.unlink()
    if what == "a pipe":
        os.mkfifo(baseline)
    elif what == "a folder":
        baseline.mkdir()
    elif what == "a link to nothing":
        baseline.symlink_to(here.path / "nothing")
    else:
        baseline.parent.rmdir()
    if what == "below a file":
        baseline.parent.write_text("")
    elif what == "below a link":
        baseline.parent.symlink_to(here.path / "nothing")
    elif what == "below two":
        shutil.rmtree(here.path / "baselines")
        (here.path / "baselines").symlink_to(here.path / "nothing")
    status, said = here.run("suite.py", "--benchmark-compare")
    assert status == REFUSED
    (line,) = [line for line in said.splitlines() if line.startswith("ERROR: ")]
    named = {"below a link": baseline.parent, "below two": here.path / "baselines"}.get(what, baseline)
    assert str(named.relative_to(here.path)) in line


def test_any_problem_with_a_file_is_one_line_of_a_command(here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    (here.path / "baselines").write_text("no folder\n")
    status, said = command("baseline", "show")
    assert (status, said.count("\n")) == (REFUSED, 1)
    assert said.startswith("trtgate: error: baselines: Not a directory: ")


def test_a_current_folder_that_is_gone_is_named(
    here: InProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for asked in (("baseline", "show"), ("history", "*"), ("init",), ("cache", "info")):
        status, said = command(*asked)
        assert status in (OK, REFUSED)
        assert status == OK or said.startswith("trtgate: error: the current folder: No such file or directory")


# The user's folders


def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "TRTGATE_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_no_home_directory(here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        no_home(context)
        refused, line = here.run("suite.py")
        without, _ = here.run("suite.py", "--trtgate-no-cache")
        status, said = command("cache", "info")
    assert (refused, without) == (REFUSED, OK)
    assert "ERROR: trtgate: this user has no home directory: set XDG_CACHE_HOME" in line
    assert (status, said.count("\n")) == (REFUSED, 1)
    assert said.startswith("trtgate: error: this user has no home directory")


def test_no_temporary_folder_is_needed(here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def gettempdir() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    with monkeypatch.context() as context:
        context.setattr(tempfile, "gettempdir", gettempdir)
        assert here.run("-s", *RECORD)[0] == OK


def test_a_problem_with_a_file_is_no_failure_that_is_expected(here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = 'frontends=("eager",), precisions=("fp32",), expected_failure=trtgate.expected_failure("no luck")'
    suite = here.path / "suite.py"
    suite.write_text(suite.read_text().replace('frontends=("eager",), precisions=("fp32",)', expected))

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/file")

    with monkeypatch.context() as context:
        context.setattr(ScriptedSession, "measure", full)
        status, said = here.run("suite.py", "-m", "trtgate_latency")
    assert status == FAILED
    assert "alpha-eager-fp32-b1: /some/file: No space left on device: free some space there" in said
    assert "Traceback" not in said


HIDES = {
    "expected": 'expected_failure=trtgate.expected_failure("no luck")',
    "quarantined": 'quarantine=trtgate.quarantine("no luck", until="2999-01-01")',
}
FULL = "raise OSError(28, os.strerror(28), '/some/file')"
DENIED = "raise ValueError('it has no weights') from PermissionError(13, os.strerror(13), '/weights')"


def suite_that(folder: PytestFolder, how: str, statement: str) -> None:
    """Write a suite of alpha, which is known to fail or in quarantine, and of beta."""
    folder.suite("beta", alpha=statement)
    suite = folder.path / "suite.py"
    head, alpha, tail = suite.read_text().partition("def alpha(")
    suite.write_text(head[: head.rindex("))")] + f"), {HIDES[how]})\n" + alpha + tail)


@pytest.mark.parametrize("how", HIDES)
@pytest.mark.parametrize(
    ("statement", "options", "said"),
    [
        (FULL, (), "/some/file: No space left on device: free some space there"),
        (FULL, ("--trtgate-prebuild=1",), "/some/file: No space left on device: free some space there"),
        (DENIED, (), "it has no weights (/weights: Permission denied: give this user the right to read and write it)"),
    ],
    ids=["full", "full, built ahead", "denied"],
)
def test_a_disk_that_a_build_finds_full_or_locked_is_no_failure_that_is_expected(
    folder: PytestFolder, how: str, statement: str, options: tuple[str, ...], said: str
) -> None:
    suite_that(folder, how, statement)
    result = folder.gate(*options)
    assert result.ret == FAILED
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines([f"*alpha-eager-fp32-b1*{said} (docs: file-fault)"])


@pytest.mark.parametrize(("how", "outcome"), [("expected", "xfailed"), ("quarantined", "skipped")])
def test_a_file_that_a_model_misses_is_a_failure_that_may_be_expected(
    folder: PytestFolder, how: str, outcome: str
) -> None:
    suite_that(folder, how, "open('weights.pt')")
    result = folder.gate()
    assert result.ret == OK
    result.assert_outcomes(passed=2, **{outcome: 2})


def test_a_worker_that_finds_no_space_to_measure_is_no_failure_that_is_expected(folder: PytestFolder) -> None:
    suite_that(folder, "expected", f"if measuring(): {FULL}")
    result = folder.gate("-m", "trtgate_latency")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(
        ["*alpha-eager-fp32-b1*/some/file: No space left on device: free some space there (docs: file-fault)"]
    )


def test_torch_that_can_not_write_a_file_says_so_without_an_errno(tmp_path: Path) -> None:
    """In a process of its own, whose files may have 4 KiB."""
    asked = [sys.executable, "-c", SAVES_TOO_MUCH, str(tmp_path / "weights.pt")]
    assert subprocess.run(asked, capture_output=True, text=True, timeout=120).stdout == "True\n"


SAVES_TOO_MUCH = """
import resource
import sys

import torch
from trtgate.common.errors import is_fault

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    torch.save(torch.zeros(100_000), sys.argv[1])
except RuntimeError as error:
    print(is_fault(error))
"""


# After a case was measured


@pytest.mark.parametrize("how", ["the samples", "teardown", "makereport"])
def test_a_test_that_fails_after_it_was_measured_costs_no_other_its_recording(here: InProcess, how: str) -> None:
    (here.path / "conftest.py").write_text(FAILS_ALPHA[how])
    status, said = here.run(*RECORD)
    assert status == FAILED
    assert "no luck" in said or "stored other samples" in said
    assert "KeyError" not in said
    (baseline,) = here.path.glob("baselines/*/latency.json")
    assert "beta-eager-fp32-b1" in " ".join(sessions_of(baseline))


def test_a_killed_run_keeps_what_it_measured_and_that_can_be_accepted(folder: PytestFolder) -> None:
    folder.suite("alpha")
    (folder.path / "test_after.py").write_text(
        "import time\n\ndef test_after():\n    open('measured', 'w').close()\n    time.sleep(600)\n"
    )
    run = folder.start("test_after.py", "--trtgate-launches=1", forked=True)
    folder.wait_until(lambda: (folder.path / "measured").exists() or run.poll() is not None)
    run.kill()
    run.communicate()
    assert folder.saved_cases() == {"alpha-eager-fp32-b1"}
    (saved,) = folder.path.glob(".trtgate/runs/*.json")
    status, said = command("baseline", "accept", str(saved), "--baselines", str(folder.path / "baselines"))
    assert (status, said.count("alpha-eager-fp32-b1")) == (OK, 1)
    (baseline,) = folder.path.glob("baselines/*/latency.json")
    assert "unfinished" not in baseline.read_text()


@pytest.mark.parametrize("left", ["{", "<<<<<<< HEAD\n"])
def test_what_a_kill_left_of_a_run_is_read_without_a_warning_of_pytest_benchmark(here: InProcess, left: str) -> None:
    """trtgate reads the lines that are whole; pytest-benchmark, which reads the same file, only all or nothing."""
    assert here.run("suite.py", "--trtgate-launches=1")[0] == OK
    (saved,) = here.path.glob(".trtgate/runs/*.json")
    document = json.loads(saved.read_text())
    entries = document.pop("benchmarks")
    growing = run_file.GrowingRun(saved, document)
    growing.add(entries)
    saved.write_bytes(saved.read_bytes().removesuffix(run_file.TAIL) + b",\n" + left.encode())
    status, said = here.run(f"--benchmark-compare={saved}", "suite.py", "--trtgate-launches=1")
    assert status == OK
    assert "2 cases: 2 underpowered" in said
    assert "Warning" not in said


FAILS_ALPHA = {
    "the samples": """
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

@pytest.fixture
def benchmark(benchmark):
    if "alpha" in benchmark.name:
        benchmark._timer = __import__("time").perf_counter
    return benchmark
""",
    "teardown": """
import pytest

@pytest.fixture(autouse=True)
def check(request):
    yield
    assert "alpha" not in request.node.name, "no luck"
""",
    "makereport": """
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if "alpha" in item.name and call.when == "call":
        report.outcome, report.longrepr = "failed", "no luck"
    return report
""",
}
