"""Runs of `pytest benchmarks` as a user starts them, and what they took; for studies of the gate as a whole."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import msgspec

from trtgate.common import git
from trtgate.common.spent_time import Work
from trtgate.common.text_columns import TextTable
from trtgate.report import run_report

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S, ENDING_S = 1500.0, 30.0
ACCURACY, LATENCY = "test_accuracy", "test_latency"


@contextlib.contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """Within: the files of a commit, in a git worktree of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git.run(ROOT, "worktree", "add", "--quiet", "--detach", str(tree), commit).check_returncode()
        try:
            yield tree
        finally:
            git.run(ROOT, "worktree", "remove", "--force", str(tree)).check_returncode()


class GateRun(msgspec.Struct, kw_only=True):
    """What one run took, in seconds, and what came of it."""

    name: str
    exit_status: int
    seconds: float
    """From the start of its process to its end."""
    test_s: dict[str, dict[str, float]]
    """Kind of test → case → how long it took, of those that were not skipped by their settings."""
    ahead_s: float
    """Until all cases were built ahead; 0 where none was."""
    verdicts: dict[str, str]
    medians_us: dict[str, float]
    """Case → its primary metric."""
    lines: list[str]
    spent_s: dict[str, float] = {}
    """Kind of work → seconds, as the run's document has it; empty of a run that has none."""


class Started:
    """A run under way in `checkout`, its files in `folder` beginning with `name`, its caches in `caches`."""

    def __init__(self, name: str, folder: Path, caches: Path, options: list[str], checkout: Path = ROOT) -> None:
        self.name = name
        self._report, self._junit = folder / f"{name}-report.json", folder / f"{name}.xml"
        command = [
            sys.executable, "-m", "pytest", "-p", "trtgate.plugin", "-p", "no:cacheprovider", "benchmarks",
            "-o", f"trtgate_baselines={folder / 'baselines'}", f"--trtgate-report={self._report}",
            f"--junit-xml={self._junit}", *options,
        ]  # fmt: skip
        environment = {
            **os.environ,
            "TRTGATE_CACHE_DIR": str(caches / "artifacts"),
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
            "CUDA_CACHE_PATH": str(caches / "cuda"),
            "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}",
        }
        self._start = time.perf_counter()
        with (folder / f"{name}.log").open("w") as log:
            self._process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=log)

    def wait(self) -> GateRun:
        """Return what came of it. Raises subprocess.TimeoutExpired; its log, and its report so far, are in the folder.

        Ctrl-C reaches the run itself: it gets a while to write its report.
        """
        try:
            self._process.wait(TIMEOUT_S)
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDING_S)
            raise
        finally:
            self._process.kill()
        seconds = time.perf_counter() - self._start
        test_s: dict[str, dict[str, float]] = {}
        for case in ElementTree.parse(self._junit).iter("testcase"):
            kind, _, case_id = case.get("name", "").removesuffix("]").partition("[")
            ran = [one for one in case.iter("property") if str(one.get("name")).endswith(("_us", "_verdict"))]
            if ran or not list(case.iter("skipped")):  # underpowered is a skip that was measured
                test_s.setdefault(kind, {})[case_id] = float(case.get("time", "nan"))
        found = run_report.read(self._report)
        lines = [notice.text for notice in found.notices]
        ahead = [line for line in lines if line.startswith("built ahead:")]
        return GateRun(
            name=self.name, exit_status=self._process.returncode, seconds=seconds, test_s=test_s,
            ahead_s=float(ahead[0].split(" in ")[1].split(" s")[0]) if ahead else 0.0,
            verdicts={case.case_id: case.said for case in found.cases if case.medians_us},
            medians_us={case.case_id: case.medians_us[case.primary] for case in found.cases if case.medians_us},
            lines=lines, spent_s=found.spent_s,
        )  # fmt: skip


def of_suite(
    folder: Path, suite: str, *arguments: str, timeout_s: float, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the latency tests of a suite that is written into a folder. Raises subprocess.TimeoutExpired."""
    (folder / "suite.py").write_text(suite)
    (folder / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
    command = [sys.executable, "-m", "pytest", "-p", "trtgate.plugin", "-p", "no:cacheprovider", "suite.py"]
    return subprocess.run(
        [*command, "-v", "-m", "trtgate_latency", *arguments],
        cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a study of several runs was asked for: its folder, which runs are to be done or are there, and options."""

    folder: Path
    runs: list[str]
    more: list[str]


def asked(description: str | None, names: Iterable[str]) -> Asked:
    """Read the command line of a study whose runs have these names, and make its folder."""
    names = list(names)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", default=",".join(names))
    options, more = parser.parse_known_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    wanted = options.runs.split(",")
    return Asked(
        folder=folder, runs=[one for one in names if one in wanted or (folder / f"{one}.json").exists()], more=more
    )


def write_suite(repository: Path, text: str, **values: bool) -> None:
    """Write a suite and the settings of pytest into a folder.

    `text` has places for the values, a frontend and a precision: on a CPU models run in eager PyTorch.
    """
    import torch  # here: other studies need none

    (repository / "benchmarks").mkdir(parents=True, exist_ok=True)
    frontend, precision = ("dynamo", "fp16") if torch.cuda.is_available() else ("eager", "fp32")
    written = text.format(frontend=frontend, precision=precision, **values)
    (repository / "benchmarks" / "suite.py").write_text(written)
    (repository / "pytest.ini").write_text("[pytest]\ntrtgate_suite = benchmarks/suite.py\n")


def run(name: str, folder: Path, caches: Path, options: list[str], checkout: Path = ROOT) -> GateRun:
    """Run the gate, or return what is in the folder of a run of that name; says what it took."""
    kept = folder / f"{name}.json"
    if kept.exists():
        return msgspec.json.decode(kept.read_bytes(), type=GateRun)
    found = Started(name, folder, caches, options, checkout).wait()
    kept.write_bytes(msgspec.json.encode(found))
    print(f"{name}: {found.seconds:.1f} s, exit status {found.exit_status}", flush=True)
    return found


def spent_table(runs: Sequence[GateRun]) -> TextTable:
    """Return where the seconds of runs went, of those that know it; `process` is what pytest takes before and after."""
    known = [one for one in runs if one.spent_s]
    kinds = [kind for kind in Work if any(kind in one.spent_s for one in known)]
    table = [("seconds", *(kind.replace("_", " ") for kind in kinds), "process", "whole run")]
    for one in known:
        seconds = [one.spent_s.get(kind, 0.0) for kind in kinds]
        seconds += [one.seconds - sum(seconds), one.seconds]
        table.append((one.name, *(f"{value:.1f}" if value >= 0.05 else "-" for value in seconds)))
    return TextTable(table)
