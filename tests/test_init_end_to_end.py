"""From an empty folder to a comparison, as a user types it: real commands, real pytest runs, on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trtgate.gate import baselines

from .suites import UNDISTURBED

TIMEOUT_S = 180
TRTGATE = [sys.executable, "-c", "from trtgate.cli import main; main()"]
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
ONE_LAUNCH = ["--trtgate-launches", "1"]
SHORT = [*ONE_LAUNCH, "--trtgate-frontends", "eager"]
CASE = "small_convnet-eager-fp32-b1"
WIDE = "--trtgate-limit=host=9900%"
"""What other work on a shared machine never reaches: this is about the way to a verdict."""


class Terminal:
    """A folder in which commands are run, on a machine that shows no GPU."""

    def __init__(self, path: Path, tmp_path: Path) -> None:
        self.path = path
        path.mkdir()
        outside = ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
        self._environment = {name: value for name, value in os.environ.items() if name not in outside}
        self._environment |= {"TRTGATE_LOCK_DIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "160"}
        self._environment["OMP_NUM_THREADS"] = "1"  # threads that wait for each other wait for all other work, too

    def run(self, *command: str) -> str:
        """Run a command that must succeed; returns what it wrote."""
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def runs(self) -> list[baselines.Run]:
        """Return all saved runs, the oldest first."""
        return [baselines.read(file) for file in sorted(self.path.glob(".trtgate/runs/*.json"))]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path / "repository", tmp_path)


@pytest.mark.end_to_end
def test_from_an_empty_repository_to_a_comparison(terminal: Terminal, request: pytest.FixtureRequest) -> None:
    """The first run is of real processes; those after it, which start and measure in the same way, are forks."""
    terminal.run("git", "init", "--quiet")
    terminal.run(*TRTGATE, "init")
    with (terminal.path / "benchmarks/trtgate_suite.py").open("a") as suite:
        suite.write(UNDISTURBED)

    said = terminal.run(*PYTEST, "benchmarks", "-rs", *ONE_LAUNCH)
    assert "4 passed, 8 skipped" in said  # eager fp32, and dynamo's coverage; eager fp16 and dynamo need a GPU
    assert "needs a GPU, and there is none (NVML)" in said
    (first,) = terminal.runs()
    assert {case: record.verdict for case, record in first.cases.items()} == {CASE: "measured"}
    assert not (terminal.path / "baselines").exists()
    assert ".trtgate/" not in terminal.run("git", "status", "--porcelain", "--untracked-files=all")

    request.getfixturevalue("forked")
    said = terminal.run(*PYTEST, "benchmarks", "--trtgate-update-baselines", *SHORT)
    key = first.accelerator.key
    assert f"stored: {CASE}: " in said
    assert baselines.keys(terminal.path / "baselines") == [key]
    assert f"baselines/{key}/latency.json" in terminal.run("git", "status", "--porcelain", "--untracked-files=all")

    terminal.run(*PYTEST, "benchmarks", "--benchmark-compare", WIDE, *SHORT)
    last = terminal.runs()[-1]
    assert last.cases[CASE].verdict in ("unchanged", "incomparable")  # the canaries may see the other work

    stored = baselines.path_of(terminal.path / "baselines", key)
    assert len(baselines.read(stored).cases[CASE].sessions) == 1
    assert f"stored: {CASE}: " in terminal.run(*TRTGATE, "baseline", "accept", str(last.path), CASE)
    assert last.cases[CASE].sessions[0] in baselines.read(stored).cases[CASE].sessions


FACTORY = """
def tiny(batch):
    import torch

    torch.manual_seed(0)
    return torch.nn.Linear(64, 64), torch.ones(batch, 64)
"""


@pytest.mark.usefixtures("forked")
def test_a_model_without_any_configuration(terminal: Terminal) -> None:
    (terminal.path / "nets").mkdir()
    (terminal.path / "nets/__init__.py").write_text(UNDISTURBED)
    (terminal.path / "nets/small.py").write_text(FACTORY)
    terminal.run(*PYTEST, "nets", "--trtgate-model", "nets.small:tiny", "--trtgate-precisions=fp32", *SHORT)
    (run,) = terminal.runs()
    assert set(run.cases) == {"tiny-eager-fp32-b1"}
