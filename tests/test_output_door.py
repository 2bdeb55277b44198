"""What is printed passes one door: nothing that a terminal or a CI system would obey, or that a terminal can't show."""

from __future__ import annotations

import json

import pytest

from trtgate.coverage import coverage_baselines
from trtgate.records.coverage_record import Coverage, EngineOperators

from .in_process import RECORD, InProcess, command
from .pytest_folder import PytestFolder

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED


def test_a_terminal_that_can_not_show_an_arrow(here: InProcess) -> None:
    for release in ("2.11.0", "2.14.0"):
        coverage = Coverage(
            min_block_size=1,
            total=1,
            supported=1,
            in_tensorrt=1,
            in_pytorch=0,
            left=[],
            block_sizes=[],
            engines=[EngineOperators(operators={"aten.relu.default": 1}, inputs=[], outputs=[])],
        )
        coverage_baselines.store(here.path / "baselines", f"rtx-{release}", "net", "dynamo-fp16", coverage)
    status, said = command("coverage", "diff", "2.11.0", "2.14.0", charset="latin-1")
    assert (status, said) == (OK, "rtx-2.11.0 -> rtx-2.14.0: 1 unchanged\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_the_table_keeps_its_lines_on_a_terminal_that_can_not_show_them(folder: PytestFolder, encoding: str) -> None:
    folder.suite("alpha", "beta")
    folder.baseline("alpha", "beta")
    result = folder.gate("--benchmark-compare", "--trtgate-limit=host=100%", PYTHONIOENCODING=encoding)
    assert result.ret == OK
    shown = [line for line in result.stdout.str().splitlines() if line.endswith((" verdict", " unchanged"))]
    assert [line.split()[0] for line in shown] == ["case", "alpha-eager-fp32-b1", "beta-eager-fp32-b1", "2"]
    assert "ERROR" not in folder.output_of(result)  # an unchanged case has nothing to be told of


def test_names_of_others_are_no_commands_of_a_terminal_or_of_ci(here: InProcess) -> None:
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


def test_what_is_stored_is_no_command_in_a_runs_output_either(here: InProcess) -> None:
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
