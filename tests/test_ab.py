"""`trtgate ab` as a user sees it: a revision measured beside the working tree, and no trace of it afterwards.

The base's models sleep 2 ms and the slow candidate's 20 ms; both say so in a helper module that the suite imports, so a
verdict shows whose copy of it was run.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from trtgate.common import git
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.common.locks import ClaimedFolder
from trtgate.launches.base_revision import BaseRequest, BaseRevision
from trtgate.launches.comparison_side import Side
from trtgate.suite.suite_source import SuiteSource
from trtgate.torch_trt import releases
from trtgate.verdict import LOOKS

from .pytest_folder import is_alive
from .suites import STORING

OK, FAILED, INTERRUPTED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED
TIMEOUT_S = 120
ALPHA = "alpha-eager-fp32-b1"
LIMIT = "--trtgate-limit=host=100%"
"""So large that an unchanged model is never suspected on a busy machine, and a tenfold latency always is."""


class Repository:
    """A git repository around a test's folder."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        self.path: Path = folder.path
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
        done = git.run(self.path, *identity, *arguments)
        done.check_returncode()
        return done.stdout

    def commit(self) -> None:
        self.git("add", "--all", "--force", ".")
        self.git("commit", "--quiet", "--message=all")

    def sleeps(self, milliseconds: int) -> None:
        """Write the helper module."""
        (self.path / "helper.py").write_text(f"MILLISECONDS = {milliseconds}\n")

    def ab(self, *arguments: str, base: str = "HEAD", **variables: object) -> pytest.RunResult:
        options = ("-m", "trtgate_latency", f"--trtgate-base={base}", LIMIT)
        return self.folder.pytest("suite.py", *options, *arguments, **variables)

    def worktrees(self) -> int:
        return self.git("worktree", "list", "--porcelain").count("worktree ")

    def is_clean(self) -> bool:
        """Whether no worktree is left, on disk or in git's list."""
        return self.worktrees() == 1 and not list(self.path.glob(".trtgate/base-*"))


@pytest.fixture
def repository(folder: Any) -> Iterator[Repository]:
    """One commit: a suite of alpha, which sleeps as long as its helper says."""
    made = Repository(folder)
    folder.suite(alpha=HELPED)
    made.sleeps(2)
    made.commit()
    yield made
    assert made.is_clean()


HELPED = "import helper; pause(helper.MILLISECONDS / 1000)"
GIT_ENVIRONMENT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")


@pytest.fixture(autouse=True)
def no_git_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a hook's variables, nor a repository above the folder."""
    for name in GIT_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


# Verdicts


def test_what_did_not_change_passes(repository: Repository) -> None:
    result = repository.ab()
    assert result.ret == OK
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines([f"*{ALPHA}*unchanged*"])
    assert "Traceback" not in repository.folder.output_of(result)


def test_what_got_slower_fails_through_the_code_that_the_suite_imports(repository: Repository) -> None:
    repository.sleeps(20)
    result = repository.ab("--junitxml=junit.xml")
    assert result.ret == FAILED
    result.assert_outcomes(failed=1, deselected=1)
    said = repository.folder.output_of(result)
    sentences = [line for line in said.splitlines() if f"{ALPHA} is slower: host latency" in line]
    assert len([line for line in sentences if line.startswith(("E ", ALPHA))]) == 1
    assert "Traceback" not in said
    (suite,) = ElementTree.parse(repository.path / "junit.xml").iter("testsuite")
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    assert repository.git("status", "--porcelain", "--untracked-files=no").split() == ["M", "helper.py"]


AS_TESTS_NEED_IT, AHEAD = (), ("--trtgate-prebuild=2",)


@pytest.mark.parametrize("ahead", [AS_TESTS_NEED_IT, AHEAD], ids=["", "ahead"])
def test_cases_that_one_side_lacks_or_fails_in(repository: Repository, ahead: Sequence[str]) -> None:
    """The base lacks `added`, raises in `broken`, has `removed`; the candidate crashes in `crashes`; alpha is well."""
    folder = repository.folder
    raises = "raise ValueError('the base is broken')"
    folder.suite("removed", broken=raises, crashes="pass", alpha=HELPED)
    repository.commit()
    crashes = "os._exit(3) if IN_WORKER else None"
    added = "print('made', file=open('added', 'a')) if IN_WORKER else None"
    folder.suite(added=added, broken="sleep('broken')", crashes=crashes, alpha=HELPED)
    result = repository.ab("--trtgate-require=baseline", "-rs", *ahead)
    assert result.ret == FAILED
    result.assert_outcomes(passed=1, skipped=1, failed=2, deselected=4)
    for words in (
        ["added-eager-fp32-b1: the base has no such case", "--trtgate-require=baseline"],
        ["SKIPPED", "broken-eager-fp32-b1: the base failed: model", "the base is broken"],
        ["crashes-eager-fp32-b1", "building: the worker ended with exit code 3"],
        ["MISSING: removed-eager-fp32-b1 is in the base HEAD and was not measured"],
        [ALPHA, "unchanged"],
    ):
        said = [line for line in folder.output_of(result).splitlines() if all(word in line for word in words)]
        assert said, words
    assert folder.saved_cases() == {ALPHA}
    assert not (folder.path / "added").exists()  # nothing is measured of it, so it is not built
    built_ahead = "built ahead: 3 cases, and 3 of the base, by 2 processes in"
    assert (built_ahead in folder.output_of(result)) == bool(ahead)


KILLED_ONCE = (
    "IN_WORKER and not os.path.exists(os.environ['KILLED']) and "
    "(open(os.environ['KILLED'], 'w').close(), os.kill(os.getpid(), 9))"
)
KILLED_ALWAYS = "IN_WORKER and os.kill(os.getpid(), 9)"


@pytest.mark.parametrize("ahead", [AS_TESTS_NEED_IT, AHEAD], ids=["", "ahead"])
@pytest.mark.parametrize(("kill", "said"), [(KILLED_ONCE, "unchanged"), (KILLED_ALWAYS, "killed by SIGKILL")])
def test_a_base_whose_process_is_killed_is_tried_again_alone_before_nothing_is_compared(
    repository: Repository, kill: str, said: str, ahead: Sequence[str]
) -> None:
    """As the kernel kills for want of memory: that says nothing of the base's code, as a second time does."""
    folder = repository.folder
    folder.suite(alpha=f"{HELPED}; {kill}")
    repository.commit()
    folder.suite(alpha=HELPED)
    result = repository.ab("--trtgate-require=verdict", *ahead, KILLED=folder.path / "killed")
    assert (result.ret == OK) == (kill == KILLED_ONCE)
    assert said in folder.output_of(result)
    assert (f"{ALPHA}: the base failed: " in folder.output_of(result)) == (kill == KILLED_ALWAYS)


def test_what_was_built_ahead_is_judged_as_what_a_test_builds_and_serves_the_other_tests_of_a_case(
    repository: Repository,
) -> None:
    """Accuracy and latency of one case: each side makes its model in its builder, and where it is loaded."""
    note = "IN_WORKER and print(os.path.dirname(__file__), file=open(os.environ['SEEN'], 'a'))"
    folder, seen = repository.folder, repository.path / "seen"
    folder.suite(alpha=HELPED, more=NOTED.format(statement=note))
    repository.commit()
    repository.sleeps(20)
    result = folder.pytest("suite.py", "--trtgate-base=HEAD", LIMIT, *AHEAD, SEEN=seen)
    assert result.ret == FAILED
    result.assert_outcomes(passed=3, failed=1)
    assert f"{ALPHA} is slower: host latency" in folder.output_of(result)
    made = [line == str(repository.path) for line in seen.read_text().splitlines()]
    assert (made.count(True), made.count(False)) == (2, 2)  # a builder's and a resident worker's
    assert not list(folder.path.glob(".trtgate/artifacts-*"))


def test_sides_that_are_the_same_program_share_one_module_and_what_one_side_changes_it_builds(
    repository: Repository, forked_with_tensorrt: None, tmp_path: Path
) -> None:
    """Its processes export: those that have imported torch_tensorrt have imported torch.export with it."""
    folder, builds = repository.folder, tmp_path / "builds"
    suite = STORING + SCALED.format(name="first", factor=2.0)
    folder.suite(more=suite + SCALED.format(name="second", factor=2.0))
    repository.commit()
    options = ("suite.py", "-m", "trtgate_latency", "--trtgate-base=HEAD", LIMIT, *AHEAD)
    places = {"BUILDS": builds, "TRTGATE_CACHE_DIR": tmp_path / "cache"}
    folder.suite(more=suite + SCALED.format(name="second", factor=3.0))
    edited = folder.pytest(*options, "-k", "first or second", **places)
    assert edited.ret == OK
    assert len(builds.read_text().split()) == 3  # of the first case one, for both sides
    assert "built ahead: 2 cases, and 2 of the base, by 2 processes" in folder.output_of(edited)
    assert " s, 1 of them from the cache" in folder.output_of(edited)

    folder.suite(more=suite + SCALED.format(name="second", factor=3.0) + PATCHING)  # both programs are as they were
    patched = folder.pytest(*options, "-k", "first", **places)
    assert patched.ret == OK
    assert len(builds.read_text().split()) == 4
    assert " s, 1 of them from the cache" in folder.output_of(patched)


PATCHING = """
from torch_tensorrt.dynamo.conversion import impl

impl.activation.relu = lambda *args: None
"""


NOTED = """

@trtgate.model(frontends=("eager",), precisions=("fp32",))
def noted(batch):
    import torch

    {statement}
    return made(lambda x: x + 1, torch.ones(batch, 4))
"""


SCALED = """

@trtgate.model(frontends=("aot_eager",), precisions=("fp32",))
def {name}(batch):
    import torch

    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("factor", torch.full((4,), {factor}))

        def forward(self, x):
            return x * self.factor

    return Scaled(), torch.ones(batch, 4)
"""


def test_suspects_of_a_run_are_confirmed_by_one_set_of_processes(repository: Repository) -> None:
    folder = repository.folder
    folder.suite(alpha=HELPED, beta=HELPED)
    repository.commit()
    repository.sleeps(20)
    result = repository.ab()
    result.assert_outcomes(failed=2, deselected=2)
    pairs = list(folder.path.glob(".trtgate/logs/**/base-*.log"))
    assert len(pairs) == 1 + LOOKS[0]  # the resident one, and those of the first look


def test_a_new_case_passes_with_a_line_and_a_part_of_the_suite_misses_nothing(repository: Repository) -> None:
    repository.folder.suite("added", "beta")
    result = repository.ab("-k", "added")
    assert result.ret == OK
    result.assert_outcomes(passed=1, deselected=3)
    result.stdout.fnmatch_lines(
        ["NEW: the base HEAD does not have added-eager-fp32-b1 (docs: new-case)", "not run, as asked: 1 case of*"]
    )
    result.stdout.no_fnmatch_line("*--trtgate-update-baselines*")
    result.stdout.no_fnmatch_line("MISSING*")


SIDE = """
import os, sys
import trtgate
import place

@trtgate.model(frontends=("eager",), precisions=("fp32",))
def alpha(batch):
    import torch

    seen = [os.environ.get(name, "-") for name in ("SIDE", "ONLY_BASE", "ONLY_CANDIDATE", "OF_BOTH")]
    with open(os.environ["SEEN"], "a") as file:
        print(place.NAME, *seen, "PYTEST_VERSION" in os.environ, file=file)
    return torch.nn.Identity(), torch.ones(batch, 4)
"""


@pytest.mark.parametrize("command", ["ab", "pytest"])
def test_each_side_has_its_own_conftest_files_and_path(
    repository: Repository, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suite is a module on pytest's path alone, so that `trtgate ab` itself asks pytest where it is."""
    path = repository.path

    def written(side: str, only: str) -> None:
        (path / "pytest.ini").write_text(f"[pytest]\ntrtgate_suite = my_suite\npythonpath = {side}\n")
        (path / "conftest.py").write_text(f"import os\nos.environ |= {{'SIDE': '{side}', '{only}': 'yes'}}\n")
        (path / side).mkdir()
        (path / side / "place.py").write_text(f"NAME = {side!r}\n")
        (path / side / "my_suite.py").write_text(SIDE)

    (path / "suite.py").unlink()
    written("old", "ONLY_BASE")
    repository.commit()
    shutil.rmtree(path / "old")
    written("new", "ONLY_CANDIDATE")
    monkeypatch.setenv("SEEN", str(path / "seen"))
    monkeypatch.setenv("OF_BOTH", "yes")
    if command == "ab":
        call = [sys.executable, "-m", "trtgate", "ab", "--base=HEAD", LIMIT]
        done = subprocess.run(call, cwd=path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert done.returncode == OK, done.stdout + done.stderr
        assert "PytestAssertRewriteWarning" not in done.stdout
    else:
        assert repository.folder.pytest("new", "-m", "trtgate_latency", "--trtgate-base=HEAD", LIMIT).ret == OK
    assert set((path / "seen").read_text().splitlines()) == {
        "old old yes - yes True", "new new - yes yes True",
    }  # fmt: skip


@pytest.mark.end_to_end
def test_the_command_does_the_same_with_another_python(repository: Repository, tmp_path: Path) -> None:
    """The base is both another revision and another interpreter; the suite is found without being named."""
    repository.folder.suite("added", alpha=HELPED)
    python = script(tmp_path / "another-python", f'exec "{sys.executable}" "$@"')
    call = [
        sys.executable,
        "-c",
        "from trtgate.cli import main; main()",
        "ab",
        "--base=HEAD",
        f"--base-python={python}",
    ]
    done = subprocess.run(
        [*call, "-p", "no:cacheprovider", "--trtgate-launches=1", LIMIT],
        cwd=repository.path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == OK, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if ALPHA in line and "unchanged" in line]
    assert f"NEW: the base HEAD with {python} does not have added-eager-fp32-b1" in done.stdout


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# Refused, with nothing left behind


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trtgate-base=no-such"], ["base 'no-such'", "no such revision"]),
        (["--trtgate-base=--force"], ["base '--force'", "no such revision"]),
        (["--trtgate-base=HEAD:suite.py"], ["base 'HEAD:suite.py'", "no such revision"]),
        (["--trtgate-base-python=absent-python"], ["absent-python", "no such program"]),
        (["--trtgate-base-python=false"], ["base-python 'false'", "no Python interpreter"]),
        (["--trtgate-base=HEAD", "--trtgate-base-python=echo"], ["base-python 'echo'", "no Python interpreter"]),
        (
            ["--trtgate-base=HEAD", "--trtgate-base-setup=test -f helper.py && echo wrong >&2 && exit 42"],
            ["does not install", "exit code 42: wrong"],
        ),
        (["--trtgate-base=HEAD", "--trtgate-base-setup=echo said; exit 3"], ["does not install", "exit code 3: said"]),
        (["--trtgate-base-setup=true"], ["--trtgate-base-setup", "--trtgate-base"]),
        (["--trtgate-base=HEAD", "--benchmark-compare"], ["a base", "--benchmark-compare", "drop one"]),
        (["--trtgate-base=HEAD", "--trtgate-update-baselines"], ["a base", "--trtgate-update-baselines", "drop one"]),
        (["--trtgate-base=HEAD", "-n", "2"], ["a base needs timing", "-n", "drop one"]),
        (["--trtgate-base=HEAD", "--benchmark-disable"], ["a base needs timing", "--benchmark-disable"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("-") else "",
)
def test_what_can_not_be_a_base(repository: Repository, arguments: list[str], words: list[str]) -> None:
    repository.folder.refused(repository.folder.pytest("suite.py", *arguments), *words)


def test_what_a_setup_started_ends_with_it(repository: Repository) -> None:
    command = "sleep 1000 & echo $! > ../../../pid; wait"
    result = repository.ab(f"--trtgate-base-setup={command}", "--trtgate-timeout=0.5")
    repository.folder.refused(result, "setup 'sleep 1000 &", "did not end within 0.5 s")
    pid = int((repository.path / "pid").read_text())
    repository.folder.wait_until(lambda: not is_alive(pid))


def test_a_base_whose_suite_is_broken_or_not_there(repository: Repository) -> None:
    folder = repository.folder
    suite = (repository.path / "suite.py").read_text()
    repository.git("rm", "--quiet", "--cached", "suite.py")
    repository.git("commit", "--quiet", "--message=without the suite")
    folder.refused(repository.ab(), "base HEAD", "'suite.py'", "no such file")

    (repository.path / "suite.py").write_text("raise RuntimeError('no luck')")
    repository.commit()
    (repository.path / "suite.py").write_text(suite)
    folder.refused(repository.ab(), "base HEAD", "suite.py", "RuntimeError: no luck")

    for moved in ("from trtgate.suite.cases import no_such_name", "import trtgate.no_such_module"):
        (repository.path / "suite.py").write_text(moved)
        repository.commit()
        (repository.path / "suite.py").write_text(suite)
        folder.refused(repository.ab(), "base HEAD", "suite.py", "no_such", "both sides are measured by this trtgate")


def test_without_a_repository(folder: Any) -> None:
    folder.suite("alpha")
    folder.refused(folder.pytest("suite.py", "--trtgate-base=HEAD"), "'HEAD'", "is in no git repository")
    assert not list(folder.path.glob(".trtgate/base-*"))


# How a base is made ready, without a run


def made_ready(repository: Repository, root: Path, **asked: str) -> BaseRevision:
    source = SuiteSource(root=str(root), suites=("suite.py",))
    return BaseRevision(BaseRequest(**asked), source, repository.path / ".trtgate", timeout_s=60)


def test_a_suite_below_the_top_of_its_repository(repository: Repository) -> None:
    below = repository.path / "below"
    below.mkdir()
    (below / "suite.py").touch()
    repository.commit()
    with closing(made_ready(repository, below, revision="main", setup="pwd > where")) as base:
        assert base.side.moved is not None
        top, tree = base.side.moved
        assert Path(top) == repository.path.resolve()
        assert Path(base.side.source.root) == Path(tree) / "below"
        assert (Path(tree) / "where").read_text().strip() == tree
        assert not base.side.other_python
    assert not Path(tree).exists()


def test_another_python_is_asked_which_tensorrt_it_has(repository: Repository, tmp_path: Path) -> None:
    without = script(tmp_path / "without", f'exec "{sys.executable}" -I -S "$@"')  # no site-packages
    for python, rtx in ((Path(sys.executable), releases.flavour() == "rtx"), (without, False)):
        with closing(made_ready(repository, repository.path, python=str(python))) as base:
            assert base.side.rtx == rtx


def test_another_python_gets_this_trtgate_and_the_users_code_alone(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, packages = repository.path / "mine", repository.path / ".venv" / "lib" / "site-packages"
    monkeypatch.setattr(sys, "path", [str(mine), str(packages), *sys.path])
    python = script(tmp_path / "python", f'exec "{sys.executable}" "$@"')
    cpu = Accelerator(kind="cpu", name="test", cpus=1)
    with closing(made_ready(repository, repository.path, python=str(python))) as base:
        assert base.side.other_python
        assert base.side.moved is None
        assert base.side.hello(cpu).sys_path == [str(mine)]
        variables = base.side.environment({"PYTHONPATH": "/theirs"})
        (entry,) = variables["PYTHONPATH"].split(os.pathsep)
        assert [path.name for path in Path(entry).iterdir()] == ["trtgate"]
        assert (Path(entry) / "trtgate" / "worker.py").exists()
    assert not Path(entry).exists()


def test_another_pythons_path_has_what_lies_in_its_worktree_wherever_that_is(tmp_path: Path) -> None:
    """A checkout that can't be written has its worktrees elsewhere."""
    moved = str(tmp_path / "checkout"), str(tmp_path / "state" / "tree")
    path = tuple(str(tmp_path / entry) for entry in ("checkout/src", "state/tree/src", "state/other", "lib"))
    side = Side(name="base", source=SuiteSource(root=moved[1]), python="/another", moved=moved, path=path)
    assert side.hello(Accelerator(kind="cpu", name="test", cpus=1)).sys_path == list(path[:2])


def test_variables_that_name_what_the_copy_has_name_it_there(tmp_path: Path) -> None:
    checkout, tree = tmp_path / "checkout", tmp_path / "tree"
    for folder in (checkout / "data", checkout / "untracked", tree / "data"):
        folder.mkdir(parents=True)
    side = Side(name="base", source=SuiteSource(root=str(tree)), moved=(str(checkout), str(tree)))
    there = f"{checkout}/data"
    given = {"GITHUB_WORKSPACE": str(checkout), "DATA": f"/usr/lib:{there}", "CACHE": f"{checkout}/untracked"}
    kept = {"HOME": str(checkout), "TRTGATE_LOCK_DIR": there, "URL": "http://host:80/data", "EMPTY": ""}
    found = side.environment({**given, **kept})
    moved = {"GITHUB_WORKSPACE": str(tree), "DATA": f"/usr/lib:{tree}/data", "CACHE": given["CACHE"]}
    assert {name: found[name] for name in (*given, *kept)} == {**moved, **kept}


def test_a_python_that_is_too_old(repository: Repository, tmp_path: Path) -> None:
    python = script(tmp_path / "python3.10", "echo 3 10 1 0")
    with pytest.raises(TrtgateError, match=r"is Python 3\.10; 3\.11 is the oldest"):
        made_ready(repository, repository.path, python=str(python))


def test_a_pre_commit_hook_that_makes_a_base_ready_commits_what_the_user_staged(repository: Repository) -> None:
    """In a hook git's variables name the index of the commit under way: the base's checkout must not write there."""
    hook = "\n".join((
        "from pathlib import Path",
        "from trtgate.launches.base_revision import BaseRequest, BaseRevision",
        "from trtgate.suite.suite_source import SuiteSource",
        "source = SuiteSource(root='.', suites=('suite.py',))",
        "request = BaseRequest(revision='HEAD', setup='git add --all')",
        "base = BaseRevision(request, source, Path('.trtgate'), timeout_s=60)",
        "Path('helper of the base').write_text(Path(base.side.source.root, 'helper.py').read_text())",
        "base.close()",
    ))  # fmt: skip
    (repository.path / ".git" / "hooks").mkdir(exist_ok=True)
    script(repository.path / ".git" / "hooks" / "pre-commit", f'exec "{sys.executable}" -c "{hook}"')
    (repository.path / ".gitignore").write_text("helper of the base\n.trtgate/\n__pycache__/\n")
    (repository.path / "new.py").write_text("new = True\n")
    repository.sleeps(20)
    repository.git("add", ".gitignore", "new.py")
    repository.git("commit", "--quiet", "--all", "--message=slower")
    assert (repository.path / "helper of the base").read_text() == "MILLISECONDS = 2\n"
    assert repository.git("show", "HEAD:helper.py") == "MILLISECONDS = 20\n"
    assert repository.git("show", "HEAD:new.py") == "new = True\n"
    assert repository.git("status", "--porcelain") == ""


# Ends


def test_ctrl_c_leaves_nothing(repository: Repository) -> None:
    folder = repository.folder
    says = "open(f'worker-{os.getpid()}', 'w').close() if IN_WORKER else None"
    folder.suite(alpha=f"{says}; (open('measuring', 'w').close(), time.sleep(600)) if measuring() else None")
    repository.commit()
    run = folder.start("--trtgate-base=HEAD", "-m", "trtgate_latency", forked=True)
    try:
        folder.wait_until(lambda: list(repository.path.rglob("measuring")) or run.poll() is not None)
        workers = [int(file.name.partition("-")[2]) for file in repository.path.rglob("worker-*")]
        assert len([pid for pid in workers if is_alive(pid)]) == 2
        assert not repository.is_clean()
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=TIMEOUT_S)
        folder.wait_until(lambda: not any(is_alive(pid) for pid in workers))
    finally:
        run.kill()
    assert run.returncode == INTERRUPTED


def test_what_a_killed_run_left_is_removed_by_the_next_and_a_live_ones_stays(repository: Repository) -> None:
    """A process id says nothing: the run that left it, or that lives, may be in another container."""
    folder = repository.path / ".trtgate"
    abandoned = folder / f"base-{os.getpid()}-x"
    abandoned.mkdir(parents=True)
    live = ClaimedFolder(folder, "base")
    for made in (abandoned, live.path):
        repository.git("worktree", "add", "--quiet", "--detach", str(made / "tree"))
    assert repository.worktrees() == 3
    repository.folder.refused(repository.ab(base="no-such"), "no such revision")
    assert not abandoned.exists()
    assert (live.path / "tree" / "suite.py").exists()
    assert repository.worktrees() == 2
    repository.git("worktree", "remove", str(live.path / "tree"))
    live.remove()  # the fixture asserts that no other is left
