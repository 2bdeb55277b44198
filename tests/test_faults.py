"""Faults of the environment: one readable line, no traceback, and nothing that was stored is lost."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import cpuinfo
import pytest
from typer.testing import CliRunner

from trtgate import cli
from trtgate.commands import history_text
from trtgate.coverage import coverage_baselines
from trtgate.gate import measurers
from trtgate.pytest_plugin.benchmark_json import PytestJson
from trtgate.records.coverage_record import Coverage
from trtgate.records.measurement import Capture, CaseMeasurement, Launch, Loaded, Turn

from . import faults
from .pytest_folder import LEAN, PytestFolder
from .suites import suite_text

OK, FAILED, REFUSED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.USAGE_ERROR
RECORD = ("suite.py", "--trtgate-launches=1", "--trtgate-update-baselines", "-p", "no:randomly")


class ScriptedSession:
    """Stands in for the workers: measures at once, in this process, what a test needs no clock for."""

    def __init__(self, *_where: Any, **_how: Any) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...

    def measure(self, case_id: str, *_others: Any) -> CaseMeasurement:
        captures = [Capture(blocks_us=[100.0 + number], replays=1) for number in range(4)]
        turn = Turn(clock="host", captures=captures, host_us=[], enqueue_us=[], canary_us={})
        launch = Launch(loaded=Loaded(seconds=1.0, gpu_memory_bytes=None), turns=[turn])
        return CaseMeasurement(case_id=case_id, launches=[launch], uuid="", seconds=2.0, build=None)


class Here:
    """Runs pytest in this process, in a folder with a suite, its workers scripted."""

    def __init__(self, path: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capture = capture

    def run(self, *arguments: str) -> tuple[int, str]:
        """Return the exit code and all that was printed."""
        self._capture.readouterr()
        status = pytest.main([*LEAN, "-p", "no:xdist", f"--rootdir={self.path}", *arguments])
        for name in [name for name, module in sys.modules.items() if self._holds(getattr(module, "__file__", None))]:
            del sys.modules[name]
        return int(status), "".join(self._capture.readouterr())

    def _holds(self, file: str | None) -> bool:
        return file is not None and Path(file).is_relative_to(self.path)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Here:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
    (checkout / "suite.py").write_text(suite_text(("alpha", "beta"), {}))
    monkeypatch.setattr(measurers, "Session", ScriptedSession)
    monkeypatch.setattr(cpuinfo, "get_cpu_info", dict)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(PytestJson, "commit_info", {})
    monkeypatch.chdir(checkout)
    return Here(checkout, capfd)


def test_every_file_operation_of_a_recording_may_fail(
    here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each in turn, while a baseline is there: it is a readable line, or the run goes on without; nothing is lost."""
    assert here.run(*RECORD)[0] == OK
    (baseline,) = here.path.glob("baselines/*/latency.json")
    asked = (*RECORD, "-k", "latency and alpha")
    recorded, before = baseline.read_bytes(), sessions_of(baseline)
    below = tmp_path
    operations: list[tuple[str, Path]] = []
    with monkeypatch.context() as context:
        faults.watch(
            context, lambda name, path: operations.append((name, path)) if _counts(name, path, below) else None
        )
        assert here.run(*asked)[0] == OK
    numbers = {(name, RANDOM.sub("", str(path))): number for number, (name, path) in enumerate(operations)}
    assert len(numbers) > 15
    problems = []
    for number in numbers.values():
        baseline.write_bytes(recorded)
        failed: list[tuple[str, Path]] = []
        with monkeypatch.context() as context:
            faults.watch(context, _failing(number, below, failed))
            status, said = here.run(*asked)
        problem = _what_is_wrong(status, said, failed)
        if not keeps(before, sessions_of(baseline)):
            problem = "sessions are lost"
        if list(baseline.parent.iterdir()) != [baseline]:
            problem = "something is left beside the baseline"
        if problem:
            problems.append((failed, problem, said))
    assert not problems, "\n\n".join(f"{failed}: {problem}\n{said}" for failed, problem, said in problems)


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


def sessions_of(baseline: Path) -> dict[str, list[Any]]:
    stored = json.loads(baseline.read_text())["benchmarks"]
    return {one["name"]: one["extra_info"]["trtgate"]["sessions"] for one in stored}


def keeps(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> bool:
    return all(after.get(name, [])[: len(sessions)] == sessions for name, sessions in before.items())


# A checkout that can't be written


def test_a_read_only_checkout_is_measured_and_its_files_go_to_the_users_folder(
    here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
    here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as context:
        faults.read_only(context, here.path)
        assert here.run("suite.py", "--trtgate-launches=1")[0] == OK
    assert history_text.folder_of(None).resolve().is_relative_to(tmp_path / "state")


def test_a_user_without_any_folder_to_write_gets_a_line(
    here: Here, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
    here: Here, monkeypatch: pytest.MonkeyPatch, what: str
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


@pytest.mark.parametrize("what", ["a pipe", "a folder", "a link to nothing", "below a file"])
def test_a_baseline_that_is_no_file(here: Here, what: str) -> None:
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
        baseline.parent.write_text("")
    status, said = here.run("suite.py", "--benchmark-compare")
    assert status == REFUSED
    (line,) = [line for line in said.splitlines() if line.startswith("ERROR: ")]
    assert str(baseline.relative_to(here.path)) in line


# The user's folders


def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "TRTGATE_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_no_home_directory(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        no_home(context)
        refused, line = here.run("suite.py")
        without, _ = here.run("suite.py", "--trtgate-no-cache")
        status, said = command("cache", "info")
    assert (refused, without) == (REFUSED, OK)
    assert "ERROR: trtgate: this user has no home directory: set XDG_CACHE_HOME" in line
    assert (status, said.count("\n")) == (REFUSED, 1)
    assert said.startswith("trtgate: error: this user has no home directory")


def test_no_temporary_folder_is_needed(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def gettempdir() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    with monkeypatch.context() as context:
        context.setattr(tempfile, "gettempdir", gettempdir)
        assert here.run("-s", *RECORD)[0] == OK


# Commands


def command(*arguments: str, charset: str = "utf-8") -> tuple[int, str]:
    """Run `trtgate` in this process; returns its exit code and what it printed."""
    result = CliRunner(charset=charset).invoke(cli.app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_any_problem_with_a_file_is_one_line_of_a_command(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    (here.path / "baselines").write_text("no folder\n")
    status, said = command("baseline", "show")
    assert (status, said.count("\n")) == (REFUSED, 1)
    assert said.startswith("trtgate: error: baselines: Not a directory: ")


def test_a_terminal_that_can_not_show_an_arrow(here: Here) -> None:
    for release in ("2.11.0", "2.14.0"):
        coverage = Coverage(
            min_block_size=1, total=1, supported=1, in_tensorrt=1, in_pytorch=0, left=[], engines=[], block_sizes=[]
        )
        coverage_baselines.store(here.path / "baselines", f"rtx-{release}", "net", "dynamo-fp16", coverage)
    status, said = command("coverage", "diff", "2.11.0", "2.14.0", charset="latin-1")
    assert (status, said) == (OK, "rtx-2.11.0 -> rtx-2.14.0: 1 unchanged\n")


def test_names_of_others_are_no_commands_of_a_terminal_or_of_ci(here: Here) -> None:
    assert here.run(*RECORD)[0] == OK
    (baseline,) = here.path.glob("baselines/*/latency.json")
    hostile = "::stop-commands::x\x1b[31m\n::error::y ##[group]z"
    baseline.write_text(baseline.read_text().replace("alpha-eager-fp32-b1", json.dumps(hostile)[1:-1]))
    other = here.path / "other.json"
    other.write_text(baseline.read_text())
    for asked in (("show",), ("diff", str(baseline), str(other)), ("accept", str(other)), ("remove", "::stop*")):
        status, said = command("baseline", *asked)
        assert status == OK
        assert "stop-commands" in said
        assert "\x1b" not in said
        assert "##[" not in said
        assert not [line for line in said.splitlines() if line.lstrip().startswith("::")]


def test_what_is_stored_is_no_command_in_a_runs_output_either(here: Here) -> None:
    assert here.run(*RECORD)[0] == OK
    (baseline,) = here.path.glob("baselines/*/latency.json")
    for hostile in ("::stop-commands::x", "gone\x1b[31m\n::error::y ##[group]z"):
        recorded = baseline.read_text()
        baseline.write_text(recorded.replace("alpha-eager-fp32-b1", json.dumps(hostile)[1:-1]))
        status, said = here.run("suite.py", "--benchmark-compare", "-q")
        assert status == FAILED
        assert "is in the baseline and was not measured" in said
        assert "\x1b" not in said
        assert "##[" not in said
        assert not [line for line in said.splitlines() if line.lstrip().startswith("::")]
        baseline.write_text(recorded)


def test_a_problem_with_a_file_is_no_failure_that_is_expected(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
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


# After a case was measured


@pytest.mark.parametrize("how", ["the samples", "teardown", "makereport"])
def test_a_test_that_fails_after_it_was_measured_costs_no_other_its_recording(here: Here, how: str) -> None:
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
    run = folder.start("test_after.py", "--trtgate-launches=1")
    workers: list[int] = []
    try:
        folder.wait_until(lambda: (folder.path / "measured").exists() or run.poll() is not None)
        workers = folder.workers_of(run)
    finally:
        run.kill()
        run.communicate()
        for pid in filter(folder.is_worker, workers):
            os.kill(pid, signal.SIGKILL)
    assert folder.saved_cases() == {"alpha-eager-fp32-b1"}
    (saved,) = folder.path.glob(".trtgate/runs/*.json")
    status, said = command("baseline", "accept", str(saved), "--baselines", str(folder.path / "baselines"))
    assert (status, said.count("alpha-eager-fp32-b1")) == (OK, 1)
    (baseline,) = folder.path.glob("baselines/*/latency.json")
    assert "unfinished" not in baseline.read_text()


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
