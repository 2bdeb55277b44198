"""For tests that run pytest in pytest, on a CPU: a small suite, its recorded baseline, and plain benchmarks beside it.

What is slow is slow by order: every model and benchmark takes as long as its environment variable says. The time of a
suite's models is scripted, and its processes are forks (`forks.py`), but for tests marked `end_to_end`: those run the
commands that a user runs, and the clock is the machine's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from . import forks

pytest_plugins = ["pytester"]
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of one process would wait for those of the others

TOGETHER = {
    "test_dry_run": "torch_tensorrt",
    "test_coverage_gate": "forks with torch_tensorrt", "test_quantization": "forks with torch_tensorrt",
    "test_pairs": "pairs", "test_session": "session",
}  # fmt: skip
"""Files → what their tests share, and takes seconds to start: of several processes of -n, one runs them all."""


class Scheduling(LoadScopeScheduling):
    """Hands out one test at a time, and those that share something together."""

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(Path(nodeid.partition("::")[0]).stem, nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


PLAIN_BENCHMARK = "5.3.1"
"""The pytest-benchmark with which the tests of it alone passed last: they run when another one is installed."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    plain = [item for item in items if item.get_closest_marker("plain_benchmark")]
    for item in items:
        if item.path.parent.name == "gpu" or item in plain:
            item.add_marker("alone")
    if plain and _leaves_out_plain_benchmark(config):
        items[:] = [item for item in items if item not in plain]
        config.hook.pytest_deselected(items=plain)


def _leaves_out_plain_benchmark(config: pytest.Config) -> bool:
    asked = "plain_benchmark" in config.option.markexpr or any("::" in argument for argument in config.args)
    return version("pytest-benchmark") == PLAIN_BENCHMARK and not asked


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _leaves_out_plain_benchmark(config):
        line = f"left out, as they passed with the installed {PLAIN_BENCHMARK}: -m plain_benchmark runs them"
    elif version("pytest-benchmark") != PLAIN_BENCHMARK:
        line = f"if they pass with {version('pytest-benchmark')}, make it PLAIN_BENCHMARK in tests/conftest.py"
    else:
        return
    terminalreporter.write_line(f"tests of pytest-benchmark itself: {line}")


TIMEOUT_S = 120
"""Longest that a pytest of a test may take; it is killed then."""

FROM_OUTSIDE = (
    "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID",
    "PYTHONDONTWRITEBYTECODE",
)  # fmt: skip
"""Variables that a test's processes do not get: the last one would have each of them compile trtgate."""

LEAN = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio")
"""No cache in a test's folder, and no plugins of ours that take a second to import."""

SUITE_HEAD = '''\
import itertools
import os
import sys
import time

import trtgate

CALLS = itertools.count()


def measuring():
    """Whether a worker makes more calls than loading does."""
    return IN_WORKER and next(CALLS) > 10


def pause(seconds):
    time.sleep(seconds)


def sleep(name):
    pause(float(os.environ.get(name.upper() + "_MS", "2")) / 1000)


def made(forward, inputs):
    import torch

    class Tiny(torch.nn.Module):
        def forward(self, x):
            return forward(x)

    return Tiny(), inputs
'''

IN_WORKER = """
IN_WORKER = os.path.basename(sys.argv[0]) == "worker.py"
"""

SCRIPTED_TIME = (
    IN_WORKER
    + '''

class ScriptedTime:
    """Passes where a model says so, and some 0.1 ms with every look at it, on any machine alike."""

    now_s, looks = 0.0, 0

    def perf_counter(self):
        self.looks += 1
        self.now_s += 1e-4 + 1e-6 * (self.looks % 5)
        return self.now_s

    def pause(self, seconds):
        self.now_s += seconds


pause = ScriptedTime().pause
if IN_WORKER:
    from trtgate.timing import canary, cpu_state, delay, host, loop

    host.time = loop.time = delay.time = pause.__self__
    canary.cpu_canary = lambda: {"hash": 1000.0}
    cpu_state.CpuMonitor.void_reason = lambda _monitor: ""
'''
)
"""Follows a suite's head: what its workers measure is what the models say, so nothing else at work can disturb it."""

UNDISTURBED = """

from trtgate.timing import cpu_state

cpu_state.CpuMonitor.void_reason = lambda _monitor: ""
"""
"""Follows the head of a suite in real time: blocks count whatever else the machine does."""

SUITE_MODEL = """

@trtgate.model(frontends=("eager",), precisions=("fp32",))
def {name}(batch):
    import torch

    def forward(x):
        {statement}
        return x + 1

    return made(forward, torch.ones(batch, 4))
"""

PLAIN_HEAD = """\
import os
import time


def sleep(name):
    time.sleep(float(os.environ.get(name.upper() + "_MS", "2")) / 1000)
"""

PLAIN_TEST = """

def test_{name}(benchmark):
    benchmark.pedantic(sleep, args=({name!r},), rounds=3)
"""


def suite_text(names: Iterable[str], statements: Mapping[str, str], *, real_time: bool = False) -> str:
    models = {**statements, **{name: f"sleep({name!r})" for name in names}}
    return (
        SUITE_HEAD
        + (IN_WORKER + UNDISTURBED if real_time else SCRIPTED_TIME)
        + "".join(SUITE_MODEL.format(name=name, statement=models[name]) for name in models)
    )


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
        with _edited(file) as document:
            document["benchmarks"] = [entry for entry in document["benchmarks"] if _model_of(entry) in names]
        return file

    def edited(self, file: Path) -> AbstractContextManager[Any]:
        """Within: a file's JSON as objects, written back at the end; NaN as Python's json writes it."""
        return _edited(file)

    def plain_runs(self) -> list[Path]:
        """Return what pytest-benchmark saved, the oldest first."""
        return sorted(self.path.glob(".benchmarks/*/*.json"), key=lambda file: file.name)

    def saved_cases(self) -> set[str]:
        """Return the cases of all runs that trtgate saved."""
        runs = [json.loads(file.read_text()) for file in self.path.glob(".trtgate/runs/*.json")]
        return {entry["extra_info"]["trtgate"]["case"] for run in runs for entry in run["benchmarks"]}

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

    def start(self, *arguments: str, before: Callable[[], None] = lambda: None) -> subprocess.Popen[str]:
        """Start a run of the suite and return at once; `before` is called in the new process."""

        def prepare() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it, and so would this
            before()

        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *LEAN, "suite.py", *arguments],
            cwd=self.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=prepare,
        )

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
        """Return the process ids of the workers that a run started."""
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        return [pid for pid in pids if self.is_worker(pid) and _parent(pid) == run.pid]

    def is_worker(self, pid: int) -> bool:
        """Whether a process is a worker, and alive."""
        try:
            return b"trtgate.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for one that is dead
        except OSError:
            return False


@contextmanager
def _edited(file: Path) -> Iterator[Any]:
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


def _environment(folder: Path) -> dict[str, str]:
    return {"TRTGATE_LOCK_DIR": str(folder), "TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "160"}


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of forks that has imported torch."""
    with forks.served(tmp_path_factory.mktemp("forks"), forks.TORCH) as socket:
        yield socket


@pytest.fixture(scope="session")
def tensorrt_fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of forks that has imported torch_tensorrt too, which takes it 7 s."""
    with forks.served(tmp_path_factory.mktemp("forks"), forks.TORCH_TENSORRT) as socket:
        yield socket


@pytest.fixture
def forked(fork_server: str) -> Iterator[None]:
    """Processes that this test starts with its own Python are forks."""
    with forks.forked({forks.TORCH: fork_server}):
        yield


@pytest.fixture(scope="module")
def module_forked(fork_server: str) -> Iterator[None]:
    """As `forked`, for all tests of a module."""
    with forks.forked({forks.TORCH: fork_server}):
        yield


@pytest.fixture
def forked_with_tensorrt(tensorrt_fork_server: str) -> Iterator[None]:
    """As `forked`, by a server that has imported torch_tensorrt: as trtgate does it, and nothing of trtgate."""
    with forks.forked({forks.TORCH_TENSORRT: tensorrt_fork_server}):
        yield


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """Record alpha and beta, in real or scripted time, once, when first asked for; returns the baseline's file.

    What the canaries took is not kept: whether the machine is in the same state is not what these tests are about.
    """
    files: dict[bool, Path] = {}

    def record_once(real_time: bool) -> Path:
        if real_time in files:
            return files[real_time]
        folder = tmp_path_factory.mktemp("recorded")
        (folder / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
        (folder / "suite.py").write_text(suite_text(("alpha", "beta"), {}, real_time=real_time))
        record = ("suite.py", "--trtgate-launches=1", "--trtgate-update-baselines")
        subprocess.run(
            [sys.executable, "-m", "pytest", *LEAN, *record],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if name not in FROM_OUTSIDE} | _environment(folder),
            timeout=TIMEOUT_S,
            check=True,
        )
        (file,) = folder.glob("baselines/*/latency.json")
        with _edited(file) as document:
            for entry in document["benchmarks"]:
                for session in entry["extra_info"]["trtgate"]["sessions"]:
                    session["state"]["canary_us"] = {}
        files[real_time] = file
        return file

    return record_once


@pytest.fixture
def folder(
    request: pytest.FixtureRequest, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    recorded: Callable[[bool], Path],
) -> PytestFolder:  # fmt: skip
    """A folder of its own for a test, on a machine that shows no GPU, with no options from outside."""
    end_to_end = request.node.get_closest_marker("end_to_end") is not None
    if not end_to_end:
        request.getfixturevalue("forked")
    for name, value in _environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    for name in FROM_OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    return PytestFolder(pytester, monkeypatch, recorded, real_time=end_to_end)
