"""Git is started in one way, out of reach of a hook's variables, which name the repository of the commit under way."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from studies import ab_on_cpu, gate_runs
from trtgate.common import git

ROOT = Path(__file__).parents[1]
PERSON = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


@pytest.fixture
def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit and one file to be committed, as the environment of its hooks names it."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "mine.py").write_text("mine = 1\n")
    for words in (["init", "-q"], ["add", "."], [*PERSON, "commit", "-qm", "mine"]):
        git.run(victim, *words).check_returncode()
    (victim / "next.py").write_text("mine = 2\n")
    git.run(victim, "add", "next.py").check_returncode()
    for name, path in (("GIT_DIR", ".git"), ("GIT_INDEX_FILE", ".git/index"), ("GIT_WORK_TREE", ".")):
        monkeypatch.setenv(name, str(victim / path))
    return victim


def repository_of_a_study(folder: Path, _monkeypatch: pytest.MonkeyPatch) -> None:
    ab_on_cpu.repository(folder)
    assert git.run(folder, "rev-parse", "--show-toplevel").stdout.strip() == str(folder)


def worktree_of_a_study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ab_on_cpu.repository(folder)
    monkeypatch.setattr(gate_runs, "ROOT", folder)
    with gate_runs.worktree("HEAD") as tree:
        assert (tree / "suite.py").exists()
    assert git.run(folder, "worktree", "list", "--porcelain").stdout.count("worktree ") == 1


@pytest.mark.parametrize("makes", [repository_of_a_study, worktree_of_a_study])
def test_a_study_in_a_git_hook_leaves_the_commit_alone(
    hooked: Path, tmp_path: Path, makes: Callable[[Path, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen() -> list[str]:
        asked = (["status", "--porcelain"], ["log", "--format=%H"], ["worktree", "list"])
        return [git.run(hooked, *words).stdout for words in asked]

    before = seen()
    (tmp_path / "own").mkdir()
    makes(tmp_path / "own", monkeypatch)
    assert seen() == before
    assert before[0] == "A  next.py\n"


def test_nothing_else_starts_git() -> None:
    """A list of words that begins with git would inherit what a hook's variables name."""
    files = [path for folder in ("src", "studies", "tools", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in files if _starts_git(path)} == {"src/trtgate/common/git.py"}


def _starts_git(path: Path) -> bool:
    lists = [node.elts for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.List) and node.elts]
    return any(isinstance(words[0], ast.Constant) and words[0].value == "git" for words in lists)
