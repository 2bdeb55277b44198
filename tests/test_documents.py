"""What documents and ready workflow files tell a user to type exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from trtgate.cli import app
from trtgate.pytest_plugin import pytest_options

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "src" / "trtgate" / "commands" / "templates" / "github_workflow.yml",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "docs" / "ci").iterdir()),
]


class Options:
    """Stands for pytest's parser, and keeps the names of options."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def addini(self, *_: Any, **__: Any) -> None:
        pass

    def getgroup(self, *_: Any) -> Options:
        return self

    def addoption(self, name: str, **_: Any) -> None:
        self.names.add(name)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_options_and_commands_exist(path: Path) -> None:
    text, options = path.read_text(), Options()
    pytest_options.add(options)  # type: ignore[arg-type]
    named = set(re.findall(r"--trtgate-[a-z]+(?:-[a-z]+)*", text))
    assert named <= options.names
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    typed = set(re.findall(r"(?:^\s*(?:- (?:run: )?)?|`|&& |\|\| )trtgate ([a-z]+)", text, re.MULTILINE))
    assert typed <= commands


def test_workflow_files_are_yaml_with_the_two_gates() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    for name in ("github-actions.yml", "gitlab-ci.yml"):
        text = (ROOT / "docs" / "ci" / name).read_text()
        found = yaml.safe_load(text)
        assert isinstance(found, dict)
        assert "-m trtgate_coverage --trtgate-require=baseline" in text
        assert "--trtgate-require=gpu,baseline,verdict" in text


def test_every_file_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    source = ROOT / "src" / "trtgate"
    names = re.findall(r"`([\w/]+\.(?:py|yml))`", text)
    files = {file.relative_to(source).as_posix() for file in source.rglob("*") if file.is_file()}
    known = files | {file.rpartition("/")[2] for file in files}
    assert len(names) > 50
    assert [name for name in names if name not in known and not (ROOT / name).is_file()] == []


def test_decisions_name_files_that_exist() -> None:
    named = re.findall(r"`((?:[a-z_]+/)+\w+\.(?:py|json|md))`", (ROOT / "docs" / "decisions.md").read_text())
    folders = (ROOT, ROOT / "src" / "trtgate")
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []


def test_readme_is_short_and_leads_to_headings_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 140
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert len(links) > 30
    assert [link for link in links if not _leads_somewhere(link)] == []


def _leads_somewhere(link: str) -> bool:
    path, _, anchor = link.partition("#")
    if not (ROOT / path).is_file():
        return False
    headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.MULTILINE) if anchor else []
    return not anchor or anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
