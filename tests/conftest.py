"""For tests that run pytest in pytest, on a CPU: a small suite, its recorded baseline, and plain benchmarks beside it.

What is slow is slow by order: every model and benchmark takes as long as its environment variable says. The time of a
suite's models is scripted, and its processes are forks (`forks.py`), but for tests marked `end_to_end`: those run the
commands that a user runs, and the clock is the machine's.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

pytest.register_assert_rewrite("tests.pytest_folder")

from . import forks  # noqa: E402
from .pytest_folder import LEAN, TIMEOUT_S, PytestFolder, edited  # noqa: E402
from .suites import suite_text  # noqa: E402

if TYPE_CHECKING:
    from .in_process import InProcess
    from .storing_frontend import Storing

hypothesis.settings.register_profile("untimed", deadline=None)  # no test depends on speed
hypothesis.settings.load_profile("untimed")
pytest_plugins = ["pytester"]
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of one process would wait for those of the others
sys.dont_write_bytecode = False  # rewriting all asserts takes 4 s, and compiling trtgate as long in each process
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # else it starts processes, each of which imports torch

GPU = Path(__file__).parent / "gpu"
TOGETHER = {
    **dict.fromkeys(
        ("test_coverage_of_nothing", "test_dry_run", "test_model_inputs", "test_recording", "test_runtime_cache",
         "test_shapes", "test_zoo"),
        "torch_tensorrt",
    ),
    **dict.fromkeys(
        ("test_affected", "test_coverage_gate", "test_import_paths", "test_own_converters", "test_quantization",
         "test_shapes_gate", "test_tutorial", "test_verify", "test_xdist",
         "test_a_case_is_built_once_and_later_checks_take_it_from_the_artifact_cache",
         "test_sides_that_are_the_same_program_share_one_module_and_what_one_side_changes_it_builds"),
        "forks with torch_tensorrt",
    ),
    "test_html_report": "browser",
    "test_kept_runs": "S3", "test_pairs": "pairs", "test_ray": "Ray", "test_session": "session", "test_site": "site",
}  # fmt: skip
"""Files, and tests → what they share, and takes seconds to start: of several processes of -n, one runs them all."""


class Scheduling(LoadScopeScheduling):
    """Hands out one test at a time, and those that share something together."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        return TOGETHER.get(Path(file).stem) or TOGETHER.get(test, nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let no garbage collection pass over torch, which the files of tests import: each would take 0.25 s."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file all of whose tests -m leaves out, as `make test` does: that takes seconds."""
    if config.option.markexpr == "not alone":
        return collection_path == GPU or None
    if config.option.markexpr == "alone" and collection_path.name.startswith("test_"):
        return not _may_have_alone(collection_path) or None
    return None


def _may_have_alone(file: Path) -> bool:
    """Whether a file of tests can have one that is marked `alone`."""
    return file.parent == GPU or re.search(r"mark\.(alone|plain_benchmark)\b", file.read_text()) is not None


PLAIN_BENCHMARK = "5.3.1"
"""The pytest-benchmark with which the tests of it alone passed last: they run when another one is installed."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    plain = [item for item in items if item.get_closest_marker("plain_benchmark")]
    for item in items:
        if item.path.parent == GPU or item in plain:
            item.add_marker("alone")
        if item.get_closest_marker("alone") and not _may_have_alone(item.path):
            raise pytest.UsageError(f"{item.nodeid} is `alone`: its file must say mark.alone, else -m alone skips it")
    left_out = plain if _leaves_out_plain_benchmark(config) else []
    if not _asked(config, "whole_cluster"):
        left_out += [item for item in items if item.get_closest_marker("whole_cluster")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def _asked(config: pytest.Config, marker: str) -> bool:
    return marker in config.option.markexpr or any("::" in argument for argument in config.args)


def _leaves_out_plain_benchmark(config: pytest.Config) -> bool:
    return version("pytest-benchmark") == PLAIN_BENCHMARK and not _asked(config, "plain_benchmark")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _leaves_out_plain_benchmark(config):
        line = f"left out, as they passed with the installed {PLAIN_BENCHMARK}: -m plain_benchmark runs them"
    elif version("pytest-benchmark") != PLAIN_BENCHMARK:
        line = f"if they pass with {version('pytest-benchmark')}, make it PLAIN_BENCHMARK in tests/conftest.py"
    else:
        return
    terminalreporter.write_line(f"tests of pytest-benchmark itself: {line}")


FROM_OUTSIDE = (
    "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID",
)  # fmt: skip
"""Variables that a test's processes do not get."""


def _environment(folder: Path) -> dict[str, str]:
    return {"TRTGATE_LOCK_DIR": str(folder), "TMPDIR": str(folder), "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "160"}


ENDS_WITH_THE_RUN = contextlib.ExitStack()
SHARED: list[str] = []
"""The socket of the server of forks that all processes of -n share, once there is one."""


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    if not SHARED:
        folder = Path(ENDS_WITH_THE_RUN.enter_context(tempfile.TemporaryDirectory()))
        SHARED.append(ENDS_WITH_THE_RUN.enter_context(forks.served(folder, forks.TORCH)))
    node.workerinput["fork_server"] = SHARED[0]


def pytest_unconfigure() -> None:
    ENDS_WITH_THE_RUN.close()


@pytest.fixture(scope="session")
def fork_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of forks that has imported torch and trtgate."""
    shared = getattr(request.config, "workerinput", {}).get("fork_server")
    with contextlib.ExitStack() as ending:
        yield shared or ending.enter_context(forks.served(tmp_path_factory.mktemp("forks"), forks.TORCH))


@pytest.fixture(scope="session")
def tensorrt_fork_server(fork_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of forks that has imported torch_tensorrt too, which takes it 5 s: a fork of the other."""
    with contextlib.ExitStack() as ending:
        with forks.forked({forks.TORCH: fork_server}):
            socket = ending.enter_context(forks.served(tmp_path_factory.mktemp("forks"), forks.TORCH_TENSORRT))
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
    """As `forked`, by a server that has imported torch_tensorrt too, as trtgate does it."""
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
        with edited(file) as document:
            for entry in document["benchmarks"]:
                for session in entry["extra_info"]["trtgate"]["sessions"]:
                    session["state"]["canary_us"] = {}
        files[real_time] = file
        return file

    return record_once


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> InProcess:
    """Runs of pytest in this process, in a checkout with a suite of alpha and beta, their workers scripted."""
    from . import in_process  # and with it torch

    gc.collect()
    gc.freeze()  # torch, and what tests before have imported: each run of pytest collects twice, and would pass over it
    return in_process.prepared(monkeypatch, capfd, tmp_path)


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


@pytest.fixture
def storing(monkeypatch: pytest.MonkeyPatch) -> Storing:
    """Every frontend is one that stores its artifact and needs no GPU."""
    from trtgate import frontends

    from .storing_frontend import Storing

    found = Storing()
    monkeypatch.setattr(frontends, "get", lambda _name: found)
    return found
