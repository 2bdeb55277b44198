"""Runs of pytest and of `trtgate` in a test's own process: at once, and with what the test has replaced there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: F401 - at once: pytester forgets what was imported in a test, and torch can't be imported again
from typer.testing import CliRunner

from trtgate import cli
from trtgate.common.errors import PROBLEMS, sentence_of
from trtgate.compiling import build_or_load, lifecycle
from trtgate.gate import measurers
from trtgate.launches import messages
from trtgate.launches.worker_handle import LaunchError
from trtgate.pytest_plugin.benchmark_json import PytestJson
from trtgate.records.measurement import Capture, CaseMeasurement, Launch, Loaded, Turn
from trtgate.suite.suite_source import SuiteSource
from trtgate.timing.host_clock import HostClock

from .pytest_folder import LEAN
from .suites import suite_text

RECORD = ("suite.py", "--trtgate-launches=1", "--trtgate-update-baselines", "-p", "no:randomly")


class ScriptedSession:
    """Stands in for the workers: builds in this process, and measures at once what a test needs no clock for."""

    latency_us = 100.0

    def __init__(self, source: SuiteSource, *_where: Any, **_how: Any) -> None:
        self._source = source

    def build(self, request: messages.BuildCase, step: Any) -> messages.BuiltReply:
        case = self._source.load().cases[request.case_id]
        try:
            made = build_or_load.build_or_load(
                case, "cpu", Path(request.folder), None, step,
                **({"checks": lifecycle.check} if request.lifecycle else {}),
            )  # fmt: skip
        except PROBLEMS as error:
            raise LaunchError(sentence_of(error)) from error
        return messages.BuiltReply(made.build, made.stored, made.coverage, made.notes)

    def start(self, *, builder: bool = False) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...

    def renew(self) -> None: ...

    def measure(self, case_id: str, *_others: Any) -> CaseMeasurement:
        captures = [Capture(blocks_us=[self.latency_us + number], replays=1) for number in range(4)]
        turn = Turn(clock=HostClock.name, captures=captures, host_us=[], enqueue_us=[], canary_us={"hash": 1000.0})
        launch = Launch(loaded=Loaded(seconds=1.0, gpu_memory_bytes=None), turns=[turn])
        return CaseMeasurement(case_id=case_id, launches=[launch], uuid="", seconds=2.0, build=None)


class InProcess:
    """Runs pytest in this process, in a folder with a suite, its workers scripted."""

    def __init__(self, path: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capture = capture

    def run(self, *arguments: str) -> tuple[int, str]:
        """Return the exit code and all that was printed."""
        self._capture.readouterr()
        status = pytest.main([*LEAN, "-p", "no:xdist", f"--rootdir={self.path}", *arguments])
        files = {name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())}
        for name in [name for name, file in files.items() if file.startswith(f"{self.path}/")]:
            del sys.modules[name]
        return int(status), "".join(self._capture.readouterr())


def prepared(monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], folder: Path) -> InProcess:
    """Make a checkout with a suite of alpha and beta in a folder, which is for all that a run writes."""
    checkout = folder / "checkout"
    checkout.mkdir()
    (checkout / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
    (checkout / "suite.py").write_text(suite_text(("alpha", "beta"), {}))
    patch(monkeypatch, folder, ScriptedSession)
    monkeypatch.chdir(checkout)
    return InProcess(checkout, capture)


def patch(monkeypatch: pytest.MonkeyPatch, folder: Path, session: type[ScriptedSession]) -> None:
    """Let runs of this process write in a folder alone, and be measured by a scripted session."""
    monkeypatch.setattr(measurers, "Session", session)
    monkeypatch.setattr("cpuinfo.get_cpu_info", dict)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(folder))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(PytestJson, "commit_info", {})


def command(*arguments: str, charset: str = "utf-8") -> tuple[int, str]:
    """Run `trtgate` in this process; returns its exit code and what it printed."""
    result = CliRunner(charset=charset).invoke(cli.app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def sessions_of(baseline: Path) -> dict[str, list[Any]]:
    stored = json.loads(baseline.read_text())["benchmarks"]
    return {one["name"]: one["extra_info"]["trtgate"]["sessions"] for one in stored}
