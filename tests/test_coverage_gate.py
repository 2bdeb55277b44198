"""Coverage tests as a user runs them: the plugin in a process of its own, with the real torch_tensorrt."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trtgate.pytest_plugin import coverage_tests
from trtgate.suite import zoo
from trtgate.torch_trt import releases

from .in_process import command
from .pytest_folder import PytestFolder as Folder

pytestmark = pytest.mark.skipif(bool(releases.unavailable()), reason="torch_tensorrt is not installed")

INI = "[pytest]\ntrtgate_suite = suite.py\n"
SUITE = """
import trtgate

def make():
    import os, torch
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))
        def forward(self, x):
            x = self.layers(x)
            if os.environ.get("NET") == "lost":
                x = torch.special.bessel_j0(x)
            if os.environ.get("NET") == "undecidable" and x.sum() > 0:
                x = x + 1
            return self.layers(x)
    return Net().eval(), torch.zeros(2, 8)

net = trtgate.Model("net", make, trtgate.grid(["eager", "dynamo"], ["fp16", "fp32"], [None], min_block_sizes=[1]))
"""
CASE = "net-dynamo-fp32-mbs1"
FP16 = "net-dynamo-fp16-mbs1"
COVERAGE = ("suite.py", "-m", "trtgate_coverage", "--trtgate-precisions=fp32")


@pytest.fixture
def suite(folder: Folder, forked_with_tensorrt: None) -> Folder:
    (folder.path / "pytest.ini").write_text(INI)
    (folder.path / "suite.py").write_text(SUITE)
    return folder


def file_of(folder: Folder, release: str = "") -> Path:
    release = release or f"{releases.flavour()}-{releases.version()}"
    return folder.path / "baselines" / "coverage" / release / "net.json"


def test_recorded_unchanged_lost_and_accepted(suite: Folder) -> None:
    new = suite.pytest(*COVERAGE)
    new.assert_outcomes(passed=1, deselected=5)
    new.stdout.fnmatch_lines([f"{CASE}*new", "NEW: no coverage is stored of*--trtgate-update-baselines*"])
    assert not file_of(suite).exists()

    suite.pytest(*COVERAGE, "--trtgate-update-baselines").assert_outcomes(passed=1, deselected=5)
    before = file_of(suite).read_bytes()
    suite.pytest(*COVERAGE, "--trtgate-require=baseline").stdout.fnmatch_lines([f"{CASE}*unchanged"])

    lost = suite.pytest(*COVERAGE, "--trtgate-update-baselines", "--junit-xml=junit.xml", NET="lost")
    assert lost.ret == 1
    lost.stdout.fnmatch_lines(
        [f"{CASE} lost coverage since *: aten.special_bessel_j0.default 0 → 1 left to PyTorch (no*"]
    )
    assert "Traceback" not in suite.output_of(lost)
    assert 'failures="1"' in (suite.path / "junit.xml").read_text()
    assert file_of(suite).read_bytes() == before

    accepted = suite.pytest(*COVERAGE, "--trtgate-update-baselines", f"--trtgate-accept={CASE}", NET="lost")
    accepted.assert_outcomes(passed=1, deselected=5)
    assert "bessel_j0" in file_of(suite).read_text()

    gained = suite.pytest(*COVERAGE)
    assert gained.ret == 0
    gained.stdout.fnmatch_lines([f"improved: {CASE} gained coverage*", "to store the improved and changed ones: *"])


def test_workers_of_xdist_record_and_compare_and_the_run_reports(suite: Folder) -> None:
    both = ("suite.py", "-m", "trtgate_coverage", "-n", "2")
    recorded = suite.pytest(*both, "--trtgate-update-baselines")
    assert recorded.ret == 0
    recorded.stdout.fnmatch_lines(["*2 cases: 2 new", "stored: coverage of 2 cases*"])
    assert set(json.loads(file_of(suite).read_text())["cases"]) == {"dynamo-fp16-mbs1", "dynamo-fp32-mbs1"}
    lost = suite.pytest(*both, NET="lost")
    assert lost.ret == 1
    lost.stdout.fnmatch_lines([f"{FP16}*regressed", f"{CASE}*regressed"])


MAKERS = """
import os, sys, torch, trtgate

def made():
    with open("makers", "a") as file:
        print(os.path.basename(sys.argv[0]), file=file)
    if os.environ.get("BROKEN"):
        raise ValueError("no such weights")
    return torch.nn.Linear(8, 8).eval(), torch.zeros(2, 8)

net = trtgate.Model("net", made, trtgate.grid(["eager", "dynamo"], ["fp32"], [None], min_block_sizes=[1]))
"""
"""Notes which program makes a model."""
AHEAD = ("suite.py", "-m", "trtgate_accuracy or trtgate_coverage", "--trtgate-prebuild=2")


def test_who_builds_ahead_asks_ahead_and_what_that_can_not_tell_the_test_tells(suite: Folder) -> None:
    (suite.path / "suite.py").write_text(MAKERS)
    makers = suite.path / "makers"
    stored = suite.pytest(*AHEAD, "--trtgate-update-baselines")
    stored.stdout.fnmatch_lines([f"{CASE}*new", "built ahead: 1 case by 2 processes*"])
    assert set(makers.read_text().split()) == {"worker.py"}
    makers.unlink()
    found = file_of(suite).read_bytes()
    suite.pytest(*COVERAGE, "--trtgate-update-baselines").stdout.fnmatch_lines([f"{CASE}*unchanged"])
    assert "worker.py" not in makers.read_text().split()
    assert file_of(suite).read_bytes() == found
    broken = suite.pytest(*AHEAD, BROKEN="1")
    broken.assert_outcomes(failed=2, skipped=1)
    wrong = "model 'net': its factory raised ValueError: no such weights"
    assert f"FAILED suite.py::test_coverage[{CASE}] - Failed: {wrong}" in suite.output_of(broken)


def test_an_older_release_is_judged_against_and_named(suite: Folder) -> None:
    suite.pytest(*COVERAGE, "--trtgate-update-baselines")
    older = file_of(suite, f"{releases.flavour()}-2.0.1")
    older.parent.mkdir()
    file_of(suite).rename(older)
    lost = suite.pytest(*COVERAGE, NET="lost")
    assert lost.ret == 1
    lost.stdout.fnmatch_lines([f"{CASE} lost coverage since *-2.0.1:*", "compared with *-2.0.1: nothing of these*"])


@pytest.mark.parametrize("content", ["", '{"schema": 7, "model": "net", "cases": {}}'])
def test_a_broken_file_fails_its_test_in_one_line_and_is_kept(suite: Folder, content: str) -> None:
    file_of(suite).parent.mkdir(parents=True)
    file_of(suite).write_text(content)
    run = suite.pytest(*COVERAGE, "--trtgate-update-baselines")
    assert run.ret == 1
    assert str(file_of(suite)) in suite.output_of(run)
    assert "Traceback" not in suite.output_of(run)
    assert file_of(suite).read_text() == content


def test_a_model_that_no_longer_exports_fails_with_the_reason(suite: Folder) -> None:
    run = suite.pytest(*COVERAGE, NET="undecidable")
    assert run.ret == 1
    run.stdout.fnmatch_lines([f"coverage of {CASE}: torch.export can't export it: *data-dependent*"])


def test_a_renamed_model_turns_the_run_red_until_it_is_removed(suite: Folder) -> None:
    suite.pytest(*COVERAGE, "--trtgate-update-baselines")
    (suite.path / "suite.py").write_text(SUITE.replace('"net"', '"renamed"'))
    run = suite.pytest(*COVERAGE)
    assert run.ret == 1
    run.stdout.fnmatch_lines(
        [f"MISSING: coverage of {CASE} is stored, and the suite has no such case (docs: missing-case)"]
    )
    why, counts = [line for line in run.outlines if line][-2:]
    assert re.fullmatch("!+ red, though no test failed: a line above says why: missing-case !+", why)
    assert "1 passed" in counts
    command = "import sys; from trtgate.cli import main; sys.argv[0] = 'trtgate'; main()"
    suite.pytester.run(sys.executable, "-c", command, "baseline", "remove", CASE).stdout.fnmatch_lines(
        ["removed from *net.json"]
    )
    assert suite.pytest(*COVERAGE).ret == 0


def test_nothing_stored_fails_where_a_baseline_is_required(suite: Folder) -> None:
    run = suite.pytest(*COVERAGE, "--trtgate-require=baseline")
    assert run.ret == 1
    run.stdout.fnmatch_lines([f"{CASE} has no stored coverage*(--trtgate-require=baseline)* (docs: new-case)"])


def test_lost_coverage_of_a_quarantined_case_passes_with_a_line(suite: Folder) -> None:
    suite.pytest(*COVERAGE, "--trtgate-update-baselines")
    before = file_of(suite).read_bytes()
    held = "min_block_sizes=[1], quarantine=trtgate.quarantine('issue 12', until='9999-12-31')"
    (suite.path / "suite.py").write_text(SUITE.replace("min_block_sizes=[1]", held))
    lost = suite.pytest(*COVERAGE, "--trtgate-update-baselines", "-n", "1", NET="lost")
    assert lost.ret == 0
    lost.stdout.fnmatch_lines(
        [f"{CASE}*regressed", f"quarantined until 9999-12-31 (issue 12): {CASE} lost coverage since *"]
    )
    assert file_of(suite).read_bytes() == before


# A coverage of nothing

SPEECH = """
import trtgate

def make():
    import os, torch
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.front, self.rnn = torch.nn.Linear(8, 8), torch.nn.LSTM(8, 8)
        def forward(self, x):
            if os.environ.get("NET") == "linear":
                return torch.relu(self.front(x))
            return self.rnn(torch.relu(self.front(x)))[0]
    return Net().eval(), torch.zeros(2, 8)

net = trtgate.Model("net", make, trtgate.grid(["torch_compile"], ["fp32"], [None], min_block_sizes=[1]))
"""
SPOKEN = "net-torch_compile-fp32-mbs1"
SKIPPED = "nothing reaches TensorRT: Dynamo skipped suite.py:forward: Attempted to wrap RNN, GRU, or LSTM*"


@pytest.fixture
def speech(suite: Folder) -> Folder:
    (suite.path / "suite.py").write_text(SPEECH)
    return suite


def marked(folder: Folder, more: str) -> None:
    (folder.path / "suite.py").write_text(SPEECH.replace("min_block_sizes=[1]", f"min_block_sizes=[1], {more}"))


def test_nothing_fails_without_a_baseline_and_cannot_be_accepted(speech: Folder) -> None:
    for more in ((), ("--trtgate-update-baselines", f"--trtgate-accept={SPOKEN}")):
        run = speech.pytest(*COVERAGE, *more)
        assert run.ret == 1
        run.stdout.fnmatch_lines(
            [f"{SPOKEN} has no coverage: {SKIPPED}can't be accepted*", f"{SPOKEN}*0 of 0*incomplete"]
        )
        assert not file_of(speech).exists()


def test_all_of_it_to_nothing_is_regressed(speech: Folder) -> None:
    speech.pytest(*COVERAGE, "--trtgate-update-baselines", NET="linear").assert_outcomes(passed=1, deselected=3)
    before = file_of(speech).read_bytes()
    run = speech.pytest(*COVERAGE, "--trtgate-update-baselines", f"--trtgate-accept={SPOKEN}")
    assert run.ret == 1
    run.stdout.fnmatch_lines(
        [f"{SPOKEN} lost coverage since *: 3 of 3 -> 0 of 0*".replace("->", "→"), f"{SPOKEN}*regressed"]
    )
    assert file_of(speech).read_bytes() == before


def test_nothing_that_is_known_or_quarantined_fails_no_run(speech: Folder) -> None:
    marked(speech, 'expected_failure=trtgate.expected_failure("an LSTM")')
    speech.pytest(*COVERAGE, "-rx").stdout.fnmatch_lines([f"*known to fail (an LSTM): {SPOKEN} has no coverage: *"])
    marked(speech, "quarantine=trtgate.quarantine('issue 12', until='9999-12-31')")
    held = speech.pytest(*COVERAGE)
    held.assert_outcomes(passed=1, deselected=3)
    held.stdout.fnmatch_lines([f"quarantined until 9999-12-31 (issue 12): {SPOKEN} has no coverage: {SKIPPED}"])


# Stored, and not asked any more


def test_stored_coverage_of_a_suite_that_asks_for_none_any_more_is_missing(suite: Folder) -> None:
    suite.pytest(*COVERAGE, "--trtgate-update-baselines")
    (suite.path / "suite.py").write_text(
        SUITE.replace('["eager", "dynamo"]', '["eager"]').replace("min_block_sizes=[1]", "")
    )
    run = suite.pytest("suite.py", "--benchmark-disable")
    assert run.ret == 1
    run.stdout.fnmatch_lines(
        [f"MISSING: coverage of {CASE} is stored, and the suite has no such case (docs: missing-case)"]
    )
    assert suite.pytest("suite.py", "--benchmark-disable", "-k", "latency").ret == 0


def test_a_baseline_that_is_required_and_cannot_be_asked_fails(suite: Folder) -> None:
    suite.pytest(*COVERAGE, "--trtgate-update-baselines")
    (suite.path / "conftest.py").write_text(
        "from trtgate.torch_trt import releases\nreleases.unavailable = lambda: 'not here'\n"
    )
    run = suite.pytest(*COVERAGE, "--trtgate-require=baseline")
    assert run.ret == 1
    run.stdout.fnmatch_lines([f"coverage of {CASE}: not here (docs: unavailable)"])


def test_without_torch_tensorrt_coverage_is_skipped_with_the_reason(suite: Folder) -> None:
    (suite.path / "conftest.py").write_text(
        "from trtgate.torch_trt import releases\nreleases.unavailable = lambda: 'not here'\n"
    )
    run = suite.pytest(*COVERAGE, "-rs")
    run.assert_outcomes(skipped=1, deselected=5)
    run.stdout.fnmatch_lines(["*not here*"])


def test_only_coverage_may_be_recorded_under_xdist(suite: Folder) -> None:
    run = suite.pytest("suite.py", "-n", "2", "--trtgate-update-baselines")
    assert run.ret == 4
    assert "needs timing" in suite.output_of(run)


def test_the_zoo_is_collected_beside_the_suite_and_selected_by_name(suite: Folder) -> None:
    all_ = suite.pytest("suite.py", "--collect-only", "-q", "-m", "trtgate_coverage", "--trtgate-zoo")
    assert "test_coverage[vit_h_14-dynamo-fp16-b1-mbs5]" in all_.stdout.str()
    assert all_.stdout.str().count("test_coverage[") == 2 + 2 * 94 - len(zoo.LARGER) + 17
    one = suite.pytest("suite.py", "--collect-only", "-q", "--trtgate-zoo", "--trtgate-models=swin_t")
    assert one.stdout.str().count("test_") == 2


def test_the_end_of_a_run_says_in_a_line_which_library_of_the_zoo_is_absent(suite: Folder) -> None:
    (suite.path / "suite.py").write_text(
        "import trtgate\nfrom trtgate.suite import zoo, zoo_models\n"
        "zoo.CLASSIFICATION, zoo.SEGMENTATION = ['squeezenet1_1'], []\n"
        "zoo_models.ALL = {f'absent_library.{n}': zoo_models.ZooModel(None) for n in 'ab'}\n"
        "@trtgate.model(frontends=('eager',))\ndef mine():\n    pass\n"
    )
    zoo_alone = ("suite.py", "-m", "trtgate_coverage", "--trtgate-zoo")
    run = suite.pytest(*zoo_alone, "--trtgate-models=squeezenet1_1,absent_library.a,absent_library.b")
    run.assert_outcomes(passed=2, skipped=4)
    run.stdout.fnmatch_lines(
        ["*squeezenet1_1-dynamo-fp16-b1-mbs5*",
         "4 coverage tests skipped: absent_library is not installed: pip install absent_library (docs: unavailable)"]
    )  # fmt: skip
    recorded = suite.pytest("suite.py", "--trtgate-zoo", "--trtgate-models=squeezenet1_1", "--trtgate-update-baselines")
    assert recorded.ret == 0, suite.output_of(recorded)
    assert len(list(suite.path.glob("baselines/coverage/*/squeezenet1_1.json"))) == 1


def test_stored_coverage_that_all_shards_miss_is_told_once_by_their_merge(
    suite: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("suite.py", "-m", "trtgate_coverage")
    suite.pytest(*both, "--trtgate-update-baselines")
    (suite.path / "suite.py").write_text(SUITE.replace('"net"', '"renamed"'))
    for number in (1, 2):
        run = suite.pytest(*both, f"--trtgate-shard={number}/2")
        assert run.ret == 1
        run.assert_outcomes(passed=1, deselected=11)
    monkeypatch.chdir(suite.path)
    status, said = command("merge", *map(str, suite.path.glob(".trtgate/runs/*.json")))
    told = [line for line in said.splitlines() if line.startswith("MISSING")]
    gone = [f"MISSING: coverage of {case} is stored, and the suite has no such case" for case in (FP16, CASE)]
    assert (status, told) == (1, [f"{line} (docs: missing-case)" for line in gone])
    assert said.count("what is gone for good") == 1


def test_stored_cases_that_only_an_uncollected_suite_can_have_are_named(suite: Folder) -> None:
    """Of one suite's folder alone nobody can tell which of them are gone; without a line a loss would pass silently."""
    (suite.path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py other/more.py\n")
    (suite.path / "other").mkdir()
    (suite.path / "other" / "more.py").write_text(SUITE.replace('"net"', '"other"'))
    assert suite.pytest(*COVERAGE, "other", "--trtgate-update-baselines").ret == 0
    done = suite.pytest(*COVERAGE)
    assert done.ret == 0
    done.stdout.fnmatch_lines([
        "coverage of other-dynamo-fp32-mbs1 is stored, and no suite that was collected has such a case: "
        "other/more.py was not collected (pytest was not given its folder)"
    ])  # fmt: skip


def test_several_suites_that_were_not_collected_are_told_together() -> None:
    run: Any = SimpleNamespace(suites=SimpleNamespace(uncollected=lambda: ["a.py", "b.py", "c.py"]))
    (notice,) = coverage_tests.CoverageEnding(run)._about_gone(["one"])
    assert str(notice).endswith("a.py, b.py and 1 more were not collected (pytest was not given their folders)")
