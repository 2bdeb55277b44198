"""A run with -n ends as the same run without: the process that reports collects nothing, and says what others found."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from trtgate.torch_trt import releases

if TYPE_CHECKING:
    from .pytest_folder import PytestFolder as Folder

pytestmark = pytest.mark.skipif(bool(releases.unavailable()), reason="torch_tensorrt is not installed")

SUITE = """
import os
import trtgate

def make():
    import torch
    if os.environ.get("BROKEN"):
        raise ValueError("no such weights")
    class Bessel(torch.nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)
    last = Bessel() if os.environ.get("LOST") else torch.nn.ReLU()
    return torch.nn.Sequential(torch.nn.Linear(8, 8), last).eval(), torch.zeros(2, 8)

net = trtgate.Model("net", make, trtgate.grid(["eager", "dynamo"], ["fp32"], [None], min_block_sizes=[1]))
"""
RENAMED = SUITE.replace('"net"', '"renamed"')
EAGER_ALONE = SUITE.replace('["eager", "dynamo"]', '["eager"]').replace(", min_block_sizes=[1]", "")
CASE = "net-dynamo-fp32-mbs1"
COVERAGE = ("-m", "trtgate_coverage")
RECORDED = (*COVERAGE, "--trtgate-update-baselines")
MISSING = f"MISSING: coverage of {CASE} is stored, and the suite has no such case (docs: missing-case)"
PROCESSES = pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["one process", "-n 2"])


@pytest.fixture
def suite(folder: Folder, forked_with_tensorrt: None) -> Folder:
    (folder.path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
    (folder.path / "suite.py").write_text(SUITE)
    return folder


@pytest.fixture
def two_suites(suite: Folder) -> Folder:
    (suite.path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = one/suite.py two/other.py\n")
    (suite.path / "suite.py").unlink()
    for name, text in {"one/suite.py": SUITE, "two/other.py": SUITE.replace('"net"', '"other"')}.items():
        (suite.path / name).parent.mkdir()
        (suite.path / name).write_text(text)
    return suite


def lines_of(folder: Folder, run: pytest.RunResult, start: str) -> list[str]:
    return re.findall(rf"^{start}.*$", folder.output_of(run), re.MULTILINE)


def report_of(folder: Folder) -> Any:
    return json.loads((folder.path / "report.json").read_text())


# Stored, and not in the suite any more


@PROCESSES
def test_stored_coverage_of_a_case_that_is_gone_turns_the_run_red(suite: Folder, processes: tuple[str, ...]) -> None:
    suite.pytest(*RECORDED)
    (suite.path / "suite.py").write_text(RENAMED)
    run = suite.pytest(*COVERAGE, *processes, "--trtgate-report=report.json", GITHUB_ACTIONS="true")
    assert run.ret == 1
    assert lines_of(suite, run, "MISSING") == [MISSING]
    run.stdout.fnmatch_lines(["!* red, though no test failed: a line above says why: missing-case !*"])
    report = report_of(suite)
    assert (report["exit_status"], report["outcome"]) == (1, "failed")
    assert [one["text"] for one in report["notices"] if one["severity"] == "missing"] == [MISSING.partition(": ")[2]]
    run.stdout.fnmatch_lines([f"::error*coverage of {CASE} is stored*"])


@PROCESSES
def test_a_suite_that_has_no_case_of_coverage_left_turns_the_run_red(suite: Folder, processes: tuple[str, ...]) -> None:
    suite.pytest(*RECORDED)
    (suite.path / "suite.py").write_text(EAGER_ALONE)
    run = suite.pytest("--benchmark-disable", *processes)
    assert run.ret == 1
    assert lines_of(suite, run, "MISSING") == [MISSING]


@PROCESSES
def test_a_broken_file_of_a_model_that_is_gone_turns_the_run_red(suite: Folder, processes: tuple[str, ...]) -> None:
    suite.pytest(*RECORDED)
    (stored,) = suite.path.glob("baselines/coverage/*/net.json")
    (suite.path / "suite.py").write_text(RENAMED)
    stored.write_text("{")
    run = suite.pytest(*COVERAGE, *processes)
    assert run.ret == 1
    assert len(lines_of(suite, run, f"ERROR: {stored} is broken")) == 1


@PROCESSES
def test_a_suite_that_is_not_collected_excuses_its_cases_and_all_suites_together_do_not(
    two_suites: Folder, processes: tuple[str, ...]
) -> None:
    two_suites.pytest(*RECORDED, *processes)
    (two_suites.path / "two/other.py").write_text(RENAMED)
    assert two_suites.pytest("one", *COVERAGE, *processes).ret == 0
    run = two_suites.pytest(*COVERAGE, *processes)
    assert run.ret == 1
    assert len(lines_of(two_suites, run, "MISSING: coverage of other-")) == 1


@PROCESSES
def test_an_update_by_several_processes_names_what_is_gone_once(suite: Folder, processes: tuple[str, ...]) -> None:
    suite.pytest(*RECORDED)
    (suite.path / "suite.py").write_text(RENAMED)
    run = suite.pytest(*RECORDED, *processes)
    assert run.ret == 1
    assert lines_of(suite, run, "MISSING") == [MISSING]
    assert len(list(suite.path.glob("baselines/coverage/*/renamed.json"))) == 1


@PROCESSES
def test_baselines_that_are_a_link_to_nothing_are_a_fault(suite: Folder, processes: tuple[str, ...]) -> None:
    (suite.path / "baselines").symlink_to(suite.path / "not mounted")
    run = suite.pytest(*COVERAGE, *processes)
    assert run.ret == 1
    assert len(lines_of(suite, run, rf"{CASE}: {suite.path}/baselines: a link to nothing")) == 1


# What only the process that collected knows


@PROCESSES
def test_a_refusal_is_one_line_and_exit_code_4(suite: Folder, processes: tuple[str, ...]) -> None:
    (suite.path / "suite.py").write_text("raise ValueError('no such module')")
    suite.refused(suite.pytest(*COVERAGE, *processes), "no such module")
    (suite.path / "suite.py").write_text(SUITE)
    suite.refused(suite.pytest(*RECORDED, "--trtgate-accept=none", *processes), "--trtgate-accept none: the suite has")


def test_a_suite_that_one_process_of_several_cannot_import_ends_the_run(suite: Folder) -> None:
    """pytest-xdist would wait for its collection for ever."""
    broken = "import os\nif os.environ.get('PYTEST_XDIST_WORKER') == 'gw1':\n    raise ValueError('not here')\n"
    (suite.path / "suite.py").write_text(broken + SUITE)
    suite.refused(suite.pytest(*COVERAGE, "-n", "2"), "not here")


@pytest.mark.parametrize("restarts", ["0", "1"])
def test_a_run_whose_processes_all_end_untimely_is_red(suite: Folder, restarts: str) -> None:
    """pytest-xdist counts only those that crash within a test."""
    (suite.path / "conftest.py").write_text(
        "import os\ndef pytest_sessionfinish():\n    if 'PYTEST_XDIST_WORKER' in os.environ:\n        os._exit(0)\n"
    )
    run = suite.pytest(*COVERAGE, "-n", "2", f"--max-worker-restart={restarts}")
    run.assert_outcomes(passed=1)
    assert run.ret == 1
    assert len(lines_of(suite, run, "ERROR: no process of -n came to its end")) == 1
    run.stdout.fnmatch_lines(["!* red, though no test failed: a line above says why: outside-interference !*"])


@PROCESSES
def test_quarantined_cases_that_cannot_be_built_are_named_at_the_end(suite: Folder, processes: tuple[str, ...]) -> None:
    held = "quarantine=trtgate.quarantine('issue 12', until='9999-12-31'))"
    (suite.path / "suite.py").write_text(EAGER_ALONE.replace("[None])", f"[None], {held}"))
    run = suite.pytest("-m", "trtgate_accuracy", *processes, "--trtgate-report=report.json", BROKEN="1")
    assert run.ret == 0
    assert len(lines_of(suite, run, r"quarantined until 9999-12-31 \(issue 12\): .*no such weights")) == 1
    assert len([one for one in report_of(suite)["notices"] if "issue 12" in one["text"]]) == 1


@PROCESSES
def test_a_suite_below_a_conftest_that_makes_it_importable_is_reported(
    two_suites: Folder, processes: tuple[str, ...]
) -> None:
    """pytest loads the conftest files of folders only where it collects."""
    one = two_suites.path / "one"
    (one / "conftest.py").write_text("import sys; sys.path.insert(0, __file__.replace('conftest.py', 'x'))")
    (one / "x").mkdir()
    (one / "x/only_by_conftest.py").write_text("")
    held = "min_block_sizes=[1], quarantine=trtgate.quarantine('issue 12', until='9999-12-31')"
    (one / "suite.py").write_text("import only_by_conftest\n" + SUITE.replace("min_block_sizes=[1]", held))
    two_suites.pytest(*RECORDED, *processes)
    run = two_suites.pytest("one", *COVERAGE, *processes, LOST="1")
    assert run.ret == 0
    assert len(lines_of(two_suites, run, rf"quarantined until 9999-12-31 \(issue 12\): {CASE} lost coverage")) == 1
