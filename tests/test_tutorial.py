"""docs/tutorial.md does what it says: its files are written and its commands run, in order, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from .conftest import FROM_OUTSIDE
from .pytest_folder import TIMEOUT_S
from .suites import CLOCK_OF_CALLS

PAGE = Path(__file__).parent.parent / "docs" / "tutorial.md"
SUITE = "benchmarks/trtgate_suite.py"
ANYTHING = "…"
"""On the page: part of a line, or lines, that differ from machine to machine."""


class File(NamedTuple):
    """A file that the reader writes; its first line names it in a comment."""

    name: str
    text: str


class Command(NamedTuple):
    """A command that the reader types, and what the page shows of its output."""

    line: str
    shown: list[str]


def steps(page: str) -> Iterator[File | Command]:
    """Return the fenced blocks of a page, in order: files (python), and commands behind a prompt (console)."""
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        if kind == "python":
            name = re.match(r"# (\S+\.py)\n", block)
            assert name, f"a block of Python begins with a comment that names its file: {block[:60]!r}"
            yield File(name[1], block)
        else:
            assert kind == "console", f"only files and commands are fenced on this page: {kind!r}"
            assert block.startswith("$ ")
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                line, *shown = part.splitlines()
                yield Command(line, shown)


def words(line: str) -> str:
    """Return a line of output without its figures, units of time, rules and widths of columns."""
    line = re.sub(r"-{3,}|={3,}", "", line)
    line = re.sub(r"(?<!\w)[+-]?\d[\d.,]*(?:e[+-]\d+)?(?: ?(?:ns|µs|ms|s|%))?(?!\w)", "N", line)
    return " ".join(line.split())


def missing(shown: Sequence[str], printed: str) -> list[str]:
    """Return the lines that a page shows, from the first on that does not follow in what was printed."""
    wanted = [words(line) for line in shown if words(line) not in ("", ANYTHING)]
    left = iter([words(line) for line in printed.splitlines()])
    for at, line in enumerate(wanted):
        pattern = ".*".join(map(re.escape, line.split(ANYTHING)))
        if not any(re.fullmatch(pattern, other) for other in left):
            return wanted[at:]
    return []


class Reader:
    """Somebody who types what the page says, on a machine without a GPU whose clock goes by calls of modules."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.exit_code = folder, 0
        self._environment = environment

    def write(self, file: File) -> None:
        path = self.folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text + (CLOCK_OF_CALLS if file.name == SUITE else ""))

    def run(self, line: str) -> str:
        command = shlex.split(line)
        script = Path(sys.executable).with_name(command[0])
        done = subprocess.run(
            [str(script), *command[1:]] if script.exists() else ["bash", "-c", f"(exit {self.exit_code}); {line}"],
            cwd=self.folder, env=self._environment, timeout=TIMEOUT_S, text=True, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.exit_code = done.returncode
        return done.stdout


@pytest.fixture
def reader(tmp_path: Path, forked_with_tensorrt: None) -> Reader:
    places = {"TRTGATE_LOCK_DIR": str(tmp_path), "TMPDIR": str(tmp_path), "TRTGATE_CACHE_DIR": str(tmp_path / "cache")}
    terminal = {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "160", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {name: value for name, value in os.environ.items() if name not in FROM_OUTSIDE} | places | terminal
    folder = tmp_path / "repository"
    folder.mkdir()
    return Reader(folder, environment)


def test_every_command_of_the_tutorial_prints_what_the_page_shows(reader: Reader) -> None:
    ran, last = [], ""
    for step in steps(PAGE.read_text()):
        if isinstance(step, File):
            reader.write(step)
            continue
        printed = reader.run(step.line)
        ran.append(step.line)
        assert missing(step.shown, printed) == [], f"$ {step.line}\n{printed}"
        if step.line == "echo $?":  # the one figure that is the same everywhere
            assert printed.split() == step.shown[0].split(), last
        last = f"$ {step.line}\n{printed}"
    exit_codes = [line for line in ran if line == "echo $?"]
    assert {"trtgate init", "pytest benchmarks --benchmark-compare"} < set(ran)
    assert len(exit_codes) == 3


PRINTED = """\
==== trtgate ====
case     latency  verdict
net-b1  7.102 ms  unchanged
1 case: 1 unchanged
run saved: .trtgate/runs/x.json
"""


@pytest.mark.parametrize(
    ("shown", "differs"),
    [
        ("case latency verdict\nnet-b1  193.1 µs  unchanged", False),  # figures, units and widths may differ
        ("…\n3 case: 2 unchanged", False),
        ("run saved: ….json", False),
        ("net-b1  7.102 ms  regressed", True),
        ("net-b8  7.102 ms  unchanged", True),  # another case
        ("1 case: 1 unchanged\ncase     latency  verdict", True),  # another order
        ("net-b1  7.102 ms", True),
        ("run saved: ….xml", True),
    ],
)
def test_figures_may_differ_and_words_may_not(shown: str, differs: bool) -> None:
    assert bool(missing(shown.splitlines(), PRINTED)) == differs


def test_files_and_commands_of_a_page_are_its_steps() -> None:
    page = "text\n```python\n# a/b.py\nx = 1\n```\n\n```console\n$ pytest a\n1 passed\n$ echo $?\n0\n```\n"
    assert list(steps(page)) == [
        File("a/b.py", "# a/b.py\nx = 1\n"), Command("pytest a", ["1 passed"]), Command("echo $?", ["0"]),
    ]  # fmt: skip


@pytest.mark.parametrize("block", ["```python\nx = 1\n```\n", "```\npytest\n```\n", "```console\npytest\n```\n"])
def test_a_block_that_could_not_be_executed_is_refused(block: str) -> None:
    with pytest.raises(AssertionError):
        list(steps(block))
