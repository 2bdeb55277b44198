"""`--trtgate-accelerators A,B`: a run of its own for each kind, all at once, on one cluster.

Each judges by its own baseline, as shards of several kinds are judged by `trtgate merge`; files get the kind's key into
their names.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from ..common.errors import TrtgateError
from ..common.escaping import encodable, terminal
from ..common.explanations import Explanation, explained
from . import live_cards, ray_options
from .checked_options import required

FILES = ("--trtgate-report", "--junit-xml", "--junitxml", "--benchmark-json")
"""Options that name a file that each of the runs writes."""
ACCELERATORS = "--trtgate-accelerators"
END_S = 60.0
"""How long a run may take to end its workers after Ctrl-C."""


class KindRun:
    """The run of one kind, a process of its own."""

    def __init__(self, arguments: Sequence[str], key: str, folder: Path) -> None:
        self.key = key
        self.output, self.progress = folder / f"{key}.txt", folder / f"{key}.json"
        with self.output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *of_kind(arguments, key)],
                stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, live_cards.PROGRESS_VARIABLE: str(self.progress)},
            )  # fmt: skip

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        return self._process.wait()

    def end(self) -> None:
        """End it as Ctrl-C does, and wait."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def of_kind(arguments: Sequence[str], key: str) -> list[str]:
    """Return pytest's arguments for the run of one kind."""
    found: list[str] = []
    before = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if before == ACCELERATORS or name == ACCELERATORS:
            before = "" if equals or before == ACCELERATORS else name
            continue
        if before in FILES:
            argument = _named(argument, key)
        elif name in FILES and equals:
            argument = f"{name}={_named(value, key)}"
        before = "" if equals else name
        found.append(argument)
    return [f"{ACCELERATORS}={key}", *found]


def _named(path: str, key: str) -> str:
    file = Path(path)
    return str(file.with_name(f"{file.stem}-{key}{file.suffix}"))


def run(config: pytest.Config) -> int:
    """Run all kinds, show what each said, and return the exit code: red where one is, or where one is required."""
    from ..fleet.ray_nodes import Nodes, kinds_of

    wanted: tuple[str, ...] = config.getoption("trtgate_accelerators")
    address = ray_options.address(config)
    nodes = Nodes(address, None)
    try:
        has = {one.accelerator.key for one in nodes.facts() if not one.problem}
    finally:
        nodes.close()
    keys = list(dict.fromkeys(key for name in wanted for key in kinds_of(has, [name])))
    lacking = [name for name in wanted if not kinds_of(has, [name])]
    there = ", ".join(sorted(has)) or "nothing that can be used"
    if not keys:
        said = f"the Ray cluster at {address} has no {' or '.join(lacking)}: it has {there}"
        raise TrtgateError(explained(said, Explanation.CLUSTER_PROBLEM))
    statuses = _run_all(config, keys)
    red = "gpu" in required(config)
    for name in lacking:
        said = f"{'ERROR: ' * red}LACKING: the Ray cluster at {address} has no {name}, so that nothing was measured "
        _write(f"{said}on it: it has {there}{' (--trtgate-require=gpu)' * red}")
    if lacking and red:
        statuses.append(int(pytest.ExitCode.TESTS_FAILED))
    return int(pytest.ExitCode.TESTS_FAILED) if pytest.ExitCode.TESTS_FAILED in statuses else max(statuses)


def _run_all(config: pytest.Config, keys: Sequence[str]) -> list[int]:
    statuses: list[int] = []
    arguments = [str(argument) for argument in config.invocation_params.args]
    with tempfile.TemporaryDirectory(prefix="trtgate-kinds-") as folder:
        runs = [KindRun(arguments, key, Path(folder)) for key in keys]
        try:
            for one in runs:
                with _shown(runs):
                    statuses.append(one.wait())
                _write(f"\n===== {one.key} =====")
                _write(one.output.read_text(errors="replace").rstrip())
        finally:
            for one in runs:
                one.end()
    return statuses


def _shown(runs: Sequence[KindRun]) -> AbstractContextManager[None]:
    """Within: a terminal shows what all devices of all runs are at."""
    if not sys.stdout.isatty():
        return nullcontext()
    return live_cards.live_table(
        sys.stdout, lambda: [found for one in runs if (found := live_cards.read(one.progress)) is not None]
    )


def _write(text: str) -> None:
    for line in text.splitlines():
        print(encodable(terminal(line), sys.stdout.encoding or "ascii"), flush=True)
