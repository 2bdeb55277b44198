"""`trtgate affected` as a user and a CI see it: which cases a change touches, why, and the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trtgate.common import files, git
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.common.time_limit import TimeLimit
from trtgate.gate import baselines
from trtgate.gate.baseline_record import CaseRecord, StoredSession
from trtgate.launches.base_pytest import suite_elsewhere
from trtgate.launches.comparison_side import Side
from trtgate.launches.fingerprinting import Fingerprinting
from trtgate.records.program_part import ProgramPart
from trtgate.suite.suite_source import SuiteSource
from trtgate.torch_trt import releases

from .in_process import command

pytestmark = pytest.mark.skipif(bool(releases.unavailable()), reason="torch_tensorrt is not installed")

SAME, TOUCHED, REFUSED = 0, 1, 4
TIMEOUT_S = 120
SUITE = """
import os
import trtgate
import helper

@trtgate.model(frontends=("dynamo",), precisions=("fp32", "fp16"))
def alpha(batch):
    import torch

    torch.manual_seed(helper.SEED)
    layers = [torch.nn.Linear(4, 4), torch.nn.ReLU()] * helper.DEPTH
    return torch.nn.Sequential(*layers).eval(), torch.ones(batch, 4)

@trtgate.model(frontends=("dynamo", "eager"), precisions=("fp32",))
def beta(batch):
    import torch

    torch.manual_seed(0)
    return torch.nn.Linear(4, 4).eval(), torch.ones(batch, 4)
"""
HELPER = "SEED, DEPTH = 0, 1\n"
ALPHAS = ("alpha-dynamo-fp32-b1-mbs5", "alpha-dynamo-fp16-b1-mbs5")
BETA, EAGER = "beta-dynamo-fp32-b1-mbs5", "beta-eager-fp32-b1"
CARD = Accelerator(kind="gpu", name="NVIDIA Test", memory_bytes=80 << 30, uuid="GPU-1")


class Checkout:
    """A git repository with a suite and its helper, both committed."""

    def __init__(self, folder: Any) -> None:
        self.path: Path = folder.path
        self.git("init", "--quiet", "--initial-branch=main")
        (self.path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\n")
        (self.path / "suite.py").write_text(SUITE)
        (self.path / "helper.py").write_text(HELPER)
        self.git("add", "--all", "--force", "pytest.ini", "suite.py", "helper.py")
        self.git("commit", "--quiet", "--message=all")

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
        done = git.run(self.path, *identity, *arguments)
        done.check_returncode()
        return done.stdout

    def edit(self, old: str, new: str, file: str = "suite.py") -> None:
        text = (self.path / file).read_text()
        assert old in text
        (self.path / file).write_text(text.replace(old, new))

    def affected(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "trtgate", "affected", *arguments],
            cwd=self.path, text=True, capture_output=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def answers(self, *arguments: str, base: str = "HEAD") -> tuple[int, dict[str, Any]]:
        done = self.affected("--base", base, "--json", *arguments)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def checkout(folder: Any, forked_with_tensorrt: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Checkout:
    """Its processes are forks that have imported what exports, which takes it seconds."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    return Checkout(folder)


# Beside a revision


def test_nothing_is_touched_by_comments_documents_and_names(checkout: Checkout) -> None:
    checkout.edit("import helper\n", "import helper as numbers  # of layers\n\n\n")
    checkout.edit("helper.", "numbers.")
    (checkout.path / "README.md").write_text("changed")
    done = checkout.affected("--base", "HEAD", "--frontend", "dynamo")
    assert (done.returncode, done.stdout) == (SAME, "nothing is touched: 3 cases, the same as in HEAD\n")
    assert checkout.git("worktree", "list", "--porcelain").count("worktree ") == 1
    assert not list(checkout.path.glob(".trtgate/base-*"))


def test_a_helper_that_the_suite_imports_touches_the_cases_that_it_changes(checkout: Checkout) -> None:
    checkout.edit("0, 1", "0, 2", "helper.py")
    status, found = checkout.answers("--frontend", "dynamo")
    assert status == TOUCHED
    assert found["same"] == [BETA]
    assert list(found["touched"]) == list(ALPHAS)
    assert all(one[0].startswith("operators of ") for one in found["touched"].values()), found
    done = checkout.affected("--base", "HEAD", "alpha", "--precision", "fp16")
    assert done.stdout.splitlines()[0].startswith(f"{ALPHAS[1]}: operators of ")
    assert done.stdout.splitlines()[1] == "touched: 1 of 1 case; the same as in HEAD: 0"


def test_each_side_has_its_own_conftest_configuration_and_working_folder(checkout: Checkout) -> None:
    """A variable that a conftest file sets, a folder of pytest's path, a file that is opened by a relative path."""
    for folder, seed in (("one", 1), ("two", 2)):
        (checkout.path / folder).mkdir()
        (checkout.path / folder / "seeds.py").write_text(f"SEED = {seed}\n")
    (checkout.path / "pytest.ini").write_text("[pytest]\ntrtgate_suite = suite.py\npythonpath = one\n")
    (checkout.path / "conftest.py").write_text("import os\nos.environ['CUBLAS_WORKSPACE_CONFIG'] = ':4096:8'\n")
    (checkout.path / "seed.txt").write_text("1")
    checkout.edit("import helper\n", "import helper\nimport seeds\n")
    checkout.edit("helper.SEED", "seeds.SEED")
    checkout.edit("torch.manual_seed(0)", "torch.manual_seed(int(open('seed.txt').read()))")
    checkout.git("add", "--all", "--force", ".")
    checkout.git("commit", "--quiet", "--message=more")
    dynamo = ("--frontend", "dynamo")
    assert checkout.answers(*dynamo)[0] == SAME
    checkout.edit("pythonpath = one", "pythonpath = two", "pytest.ini")
    (checkout.path / "seed.txt").write_text("2")
    checkout.edit(":4096:8", ":16:8", "conftest.py")
    status, found = checkout.answers(*dynamo)
    variable = "variable CUBLAS_WORKSPACE_CONFIG :4096:8 → :16:8"
    assert (status, found["touched"]) == (TOUCHED, {
        ALPHAS[0]: ["weights 0.weight, 0.bias", variable], ALPHAS[1]: ["weights 0.weight, 0.bias", variable],
        BETA: ["weights weight, bias", variable],
    })  # fmt: skip


def test_a_file_that_is_named_through_a_variable_of_the_checkout_is_each_sides_own(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CI sets one; the base would read this side's file, and nothing would have changed."""
    monkeypatch.setenv("GITHUB_WORKSPACE", str(checkout.path))
    (checkout.path / "seed.txt").write_text("1")
    checkout.edit(
        "torch.manual_seed(0)", "torch.manual_seed(int(open(os.environ['GITHUB_WORKSPACE'] + '/seed.txt').read()))"
    )
    checkout.git("add", "--all", "--force", "suite.py", "seed.txt")
    checkout.git("commit", "--quiet", "--message=more")
    (checkout.path / "seed.txt").write_text("2")
    assert checkout.answers("beta", "--frontend", "dynamo")[1]["touched"] == {BETA: ["weights weight, bias"]}


def test_a_variable_that_a_session_sets_when_it_starts_is_its_sides_own(checkout: Checkout) -> None:
    """Workers start after that hook, and have the variable; a hook at the end takes it back, which is too late."""
    (checkout.path / "conftest.py").write_text("""
import os

def pytest_sessionstart(session):
    session.config.pluginmanager.getplugin("terminalreporter").write_line(session.config.cache.get("no", "cached"))
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"

def pytest_sessionfinish():
    del os.environ["CUBLAS_WORKSPACE_CONFIG"]
""")
    checkout.git("add", "--force", "conftest.py")
    checkout.git("commit", "--quiet", "--message=more")
    beta = ("beta", "--frontend", "dynamo")
    assert checkout.answers(*beta)[0] == SAME
    checkout.edit(":4096:8", ":16:8", "conftest.py")
    status, found = checkout.answers(*beta)
    said = ["variable CUBLAS_WORKSPACE_CONFIG :4096:8 → :16:8"]
    assert (status, found["touched"]) == (TOUCHED, {BETA: said})


def test_other_weights_are_named_and_what_is_new_or_gone_or_no_program_is_touched(checkout: Checkout) -> None:
    checkout.edit("0, 1", "5, 1", "helper.py")
    checkout.edit("def beta", "def gamma")
    status, found = checkout.answers()
    assert status == TOUCHED
    assert found["touched"] == {
        ALPHAS[0]: ["weights 0.weight, 0.bias"], ALPHAS[1]: ["weights 0.weight, 0.bias"],
        **{case_id.replace("beta", "gamma"): ["is new: the base does not have it"] for case_id in (BETA, EAGER)},
        **{case_id: ["is gone: the base has it"] for case_id in (BETA, EAGER)},
    }  # fmt: skip
    assert found["same"] == []


def test_what_can_not_be_fingerprinted_is_touched_and_says_why(checkout: Checkout) -> None:
    """A frontend that compiles no program, a factory that is random, one that raises, one that ends its process."""
    checkout.edit(HELPER, f"{HELPER}import os, itertools\nCALLS = itertools.count()\n", "helper.py")
    checkout.edit("torch.manual_seed(helper.SEED)", "torch.manual_seed(int.from_bytes(os.urandom(4), 'big'))")
    more = """
@trtgate.model(frontends=("dynamo",), precisions=("fp32",))
def {name}(batch):
    import torch
    {statement}
    return torch.nn.Linear(4, 4), torch.ones(batch, 4)
"""
    text = (checkout.path / "suite.py").read_text()
    for name, statement in (("broken", "raise ValueError('no such file')"), ("ends", "os._exit(3)")):
        text += more.format(name=name, statement=statement)
    (checkout.path / "suite.py").write_text(text)
    checkout.git("add", "--all", "suite.py", "helper.py")
    checkout.git("commit", "--quiet", "--message=more")
    status, found = checkout.answers()
    assert status == TOUCHED
    assert found["same"] == [BETA]
    said = {case_id: what for case_id, (what,) in found["touched"].items()}
    assert all(what.startswith("can't be fingerprinted: ") for what in said.values())
    for case_id, words in (
        (EAGER, "the frontend eager compiles no exported program"), (ALPHAS[0], "seed what is random"),
        (ALPHAS[1], "seed what is random"), ("broken-dynamo-fp32-b1-mbs5", "no such file"),
        ("ends-dynamo-fp32-b1-mbs5", "ended with exit code 3"),
    ):  # fmt: skip
        assert words in said[case_id]


def test_bad_input_is_one_line(checkout: Checkout) -> None:
    for arguments, words in (
        (("--base", "nowhere"), "has no such revision"),
        (("--base", ""), "--base is empty"),
        (("--base", "HEAD", "delta"), "unknown model 'delta'"),
        (("--base", "HEAD", "--frontend", "tynamo"), "did you mean 'dynamo'"),
        (("--base", "baseline"), "has no baseline"),
        (("--base", "baseline", "--base-setup", "true"), "--base-setup"),
        (("--base", "HEAD", "--accelerator", "h100"), "--accelerator"),
    ):
        done = checkout.affected(*arguments)
        assert done.returncode == REFUSED, arguments
        assert words in done.stderr
        assert [line for line in done.stderr.splitlines() if line.startswith("trtgate: error: ")] == (
            done.stderr.splitlines()[-1:]
        )
    configuration = (checkout.path / "pytest.ini").read_text()
    checkout.git("rm", "--quiet", "pytest.ini")
    checkout.git("commit", "--quiet", "--message=before there was a suite")
    (checkout.path / "pytest.ini").write_text(configuration)
    done = checkout.affected("--base", "HEAD")  # whose copy lies below this configuration
    assert (done.returncode, "the base configures no suite" in done.stderr) == (REFUSED, True)
    done = checkout.affected("--base", "HEAD~1", "--frontend", "dynamo")
    assert done.returncode == SAME, done.stderr
    checkout.edit("import helper", "import helper, nothing_of_that_name")
    done = checkout.affected("--base", "HEAD~1")
    assert done.returncode == REFUSED
    assert "nothing_of_that_name" in done.stderr


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "0"])
def test_what_is_no_time_limit_is_refused_in_words(text: str) -> None:
    status, said = command("affected", "--base", "HEAD", f"--timeout={text}")
    assert (status, f"must be a number of seconds above 0, not {text}" in said) == (REFUSED, True)


# Beside what is stored


def stored(checkout: Checkout, programs: dict[str, ProgramPart | None], card: Accelerator = CARD) -> None:
    """Write a baseline in which each case has one session."""
    entries = []
    for case_id, program in programs.items():
        session = StoredSession(
            recorded="2026-01-01T00:00:00+00:00", uuid=card.uuid, clock="cuda_graph",
            metrics={"device": [[100.0]]}, program=program,
        )  # fmt: skip
        record = CaseRecord(case=case_id, settings={}, verdict="unchanged", sessions=[session])
        extra = {"trtgate": msgspec.to_builtins(record)}
        entries.append({"fullname": f"t.py::test[{case_id}]", "stats": {}, "extra_info": extra})
    path = baselines.path_of(checkout.path / "baselines", card.key)
    path.parent.mkdir(parents=True)
    document = {
        "machine_info": {"accelerator": msgspec.to_builtins(card)}, "benchmarks": entries,
        "trtgate": {"schema": baselines.SCHEMA},
    }  # fmt: skip
    files.write_json(path, document)
    assert baselines.read(path).cases.keys() == programs.keys()


def programs_of(checkout: Checkout) -> dict[str, ProgramPart | None]:
    """Return what the cases of a suite are."""
    side = Side(name="candidate", source=SuiteSource(root=str(checkout.path), suites=("suite.py",)))
    with Fingerprinting([side], checkout.path / "logs", workers=1, timeout_s=TIMEOUT_S) as asking:
        found = asking.ask({side.name: [asking.cases(side.name)]}, lambda _step: None)[side.name]
    return {case_id: one.program for case_id, one in found.items()}


def test_a_stored_session_is_a_base_too_and_another_process_finds_the_same(checkout: Checkout) -> None:
    programs = programs_of(checkout)
    stored(checkout, programs)
    status, found = checkout.answers("--frontend", "dynamo", base="baseline")
    assert (status, found["touched"]) == (SAME, {})
    checkout.edit("0, 1", "0, 2", "helper.py")
    status, found = checkout.answers("--frontend", "dynamo", base="baseline")
    assert (status, found["same"]) == (TOUCHED, [BETA])
    assert all(one[0].startswith("operators of ") for one in found["touched"].values()), found


def test_versions_and_settings_that_were_stored_are_compared_and_a_session_without_a_program_is_touched(
    checkout: Checkout,
) -> None:
    programs = programs_of(checkout)
    older, beta = programs[ALPHAS[0]], programs[BETA]
    assert older is not None
    assert beta is not None
    replace = msgspec.structs.replace
    stored(checkout, {
        ALPHAS[0]: replace(older, versions=older.versions | {"torch": "2.13.0"}), ALPHAS[1]: None,
        BETA: replace(beta, settings=beta.settings | {"min_block_size": "1"}, environment={"CUDNN_X": "1"}),
    })  # fmt: skip
    status, found = checkout.answers("--frontend", "dynamo", base="baseline")
    assert status == TOUCHED
    assert found["touched"][ALPHAS[0]] == [f"torch 2.13.0 → {older.versions['torch']}"]
    assert "its stored sessions are from before programs were stored" in found["touched"][ALPHAS[1]][0]
    assert found["touched"][BETA] == ["setting min_block_size 1 → unset", "variable CUDNN_X 1 → unset"]


def test_of_several_accelerators_one_is_named(checkout: Checkout) -> None:
    programs = programs_of(checkout)
    other = Accelerator(kind="gpu", name="NVIDIA Other", memory_bytes=80 << 30, uuid="GPU-2")
    stored(checkout, programs)
    stored(checkout, {BETA: None}, other)
    done = checkout.affected("--base", "baseline")
    assert done.returncode == REFUSED
    assert f"name one with --accelerator: {other.key}, {CARD.key}" in done.stderr
    arguments = ("--frontend", "dynamo", "--accelerator")
    assert checkout.answers(*arguments, CARD.key, base="baseline")[0] == SAME
    assert checkout.answers(*arguments, other.key, base="baseline")[0] == TOUCHED
    done = checkout.affected("--base", "baseline", "--accelerator", "none")
    assert (done.returncode, CARD.key in done.stderr) == (REFUSED, True)


def test_a_base_whose_pytest_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(TrtgateError, match=r"its pytest did not answer within 0 s: raise --timeout"):
        suite_elsewhere(tmp_path, tmp_path, tmp_path / "answer.json", dict(os.environ), TimeLimit(0.0, "--timeout"))
