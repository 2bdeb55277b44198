"""`trtgate locate CASE`: the sentence, the table of submodules, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trtgate.cli import app

SUITE = """
import torch
import trtgate


class Act(torch.nn.Module):
    def forward(self, x):
        return x.relu() * (1.5 if torch.compiler.is_compiling() else 1.0)


def network(act):
    torch.manual_seed(0)
    first = [torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8)) for _ in range(6)]
    return torch.nn.Sequential(*first, torch.nn.Sequential(torch.nn.Linear(8, 8), act)).eval()


@trtgate.model(frontends=("eager", "aot_eager"), precisions=("fp32",))
def wrong(batch):
    return network(Act()), torch.randn(batch, 8)


class Later(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return x.relu() * (torch.where(self.calls > 1, 1.5, 1.0) if torch.compiler.is_compiling() else 1.0)


@trtgate.model(frontends=("aot_eager",), precisions=("fp32",))
def later(batch):
    return network(Later()), torch.randn(batch, 8)


@trtgate.model(frontends=("aot_eager", "dynamo"), precisions=("fp32",))
def right(batch):
    return network(torch.nn.ReLU()), torch.randn(batch, 8)


@trtgate.model(frontends=("own",))
def mine():
    return network(torch.nn.ReLU()), torch.randn(1, 8)
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite_to_locate_in.py\n")
    (tmp_path / "suite_to_locate_in.py").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("suite_to_locate_in", None)


def locate(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["locate", *arguments])


@pytest.mark.usefixtures("suite")
def test_a_wrong_case_is_located_and_its_submodules_are_listed() -> None:
    done = locate("wrong-aot_eager-fp32-b1")
    assert done.exit_code == 1
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    said = "wrong-aot_eager-fp32-b1: first wrong: 6.1 (relative L2 0.5); everything before is within 0"
    assert lines[0] == f"{said} (docs: wrong-output)"
    assert [line.split() for line in lines[1:]] == [
        ["submodule", "class", "relative", "L2"],
        ["the", "model", "Sequential", "5.0e-01", "WRONG"],
        ["…", "right"],
        ["3", "Sequential", "0.0e+00", "right"],
        ["4", "Sequential", "0.0e+00", "right"],
        ["5", "Sequential", "0.0e+00", "right"],
        ["6", "Sequential", "5.0e-01", "WRONG"],
        ["6.0", "Linear", "0.0e+00", "right"],
        ["6.1", "Act", "5.0e-01", "WRONG"],
    ]


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize("arguments", [(), ("--tolerance", "0.1")])
def test_a_case_that_is_wrong_at_the_second_call_is_located_there(arguments: tuple[str, ...]) -> None:
    done = locate("later-aot_eager-fp32-b1", *arguments)
    assert done.exit_code == 1
    assert done.stdout.startswith(
        "later-aot_eager-fp32-b1: first wrong: 6.1 (relative L2 0.5 when called a second time); everything before"
    )
    assert [line.split() for line in done.stdout.splitlines() if "WRONG" in line] == [
        ["the", "model", "Sequential", "5.0e-01", "WRONG", "when", "called", "a", "second", "time"],
        ["6", "Sequential", "5.0e-01", "WRONG", "when", "called", "a", "second", "time"],
        ["6.1", "Later", "5.0e-01", "WRONG", "when", "called", "a", "second", "time"],
    ]


@pytest.mark.usefixtures("suite")
def test_a_right_case_is_said_to_be_right() -> None:
    done = locate("right-aot_eager-fp32-b1")
    assert (done.exit_code, done.stdout) == (
        0, "right-aot_eager-fp32-b1: right: the model is within its tolerance (relative L2 0)\n"
    )  # fmt: skip


@pytest.mark.usefixtures("suite")
def test_what_is_wrong_is_up_to_the_tolerance() -> None:
    assert locate("wrong-aot_eager-fp32-b1", "--tolerance", "0.6").exit_code == 0


@pytest.mark.usefixtures("suite")
def test_a_time_limit_ends_the_search() -> None:
    done = locate("wrong-aot_eager-fp32-b1", "--time-limit", "1e-9")
    assert done.exit_code == 1
    assert "not located within 1e-09 s: not located: allow more with --time-limit" not in done.stdout
    assert "not located within 1e-09 s: allow more with --time-limit" in done.stdout


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["wrong-aot_eager-fp32-b2"], "unknown case 'wrong-aot_eager-fp32-b2'; did you mean 'wrong-aot_eager-fp32-b1'"),
        (["x"], "unknown case 'x'; the suite has 6 cases, as pytest lists them"),
        (["mine-own-as_is"], "case mine-own-as_is is what its factory compiled: trtgate can't compile parts of it"),
        (["wrong-eager-fp32-b1"], "case wrong-eager-fp32-b1 runs in eager, which is what others are compared with"),
        (["wrong-aot_eager-fp32-b1", "--tolerance", "nan"], "--tolerance nan: write a positive number"),
        (["wrong-aot_eager-fp32-b1", "--time-limit", "-1"], "--time-limit -1: write a positive number"),
    ],
)
def test_what_can_not_be_located_is_refused(arguments: list[str], said: str) -> None:
    done = locate(*arguments)
    assert done.exit_code == 4
    assert said in done.stderr


@pytest.mark.usefixtures("suite")
def test_a_case_that_needs_a_gpu_says_so(without_gpu: None) -> None:
    done = locate("right-dynamo-fp32-b1-mbs5")
    assert done.exit_code == 4
    assert "case right-dynamo-fp32-b1-mbs5: needs a GPU, and there is none" in done.stderr


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from trtgate.common import accelerator

    cpu = accelerator.Accelerator(kind="cpu", name="a CPU")
    monkeypatch.setattr(accelerator, "detect", lambda: cpu)


def test_a_folder_without_a_suite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = locate("wrong-aot_eager-fp32-b1")
    assert done.exit_code == 4
    assert "this folder has no suite: name it as trtgate_suite in the pytest configuration" in done.stderr
