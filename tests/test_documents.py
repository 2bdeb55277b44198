"""What documents and ready workflow files tell a user to type exists."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from trtgate.cli import app
from trtgate.pytest_plugin import pytest_options

ROOT = Path(__file__).parent.parent
GENERATED = ROOT / "docs" / "reference" / "generated"
"""There once the site is built, which finds links that lead nowhere in it."""
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


@functools.cache
def options_and_commands() -> tuple[set[str], set[str]]:
    options = Options()
    pytest_options.add(options)  # type: ignore[arg-type]
    return options.names, set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_options_and_commands_exist(path: Path) -> None:
    text, (options, commands) = path.read_text(), options_and_commands()
    named = set(re.findall(r"--trtgate-[a-z]+(?:-[a-z]+)*", text))
    assert named <= options
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


DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def test_decisions_name_files_that_exist() -> None:
    named = re.findall(r"`((?:[a-z_]+/)+\w+\.(?:py|json|md|sh))`", "".join(path.read_text() for path in DECISIONS))
    folders = (ROOT, ROOT / "src" / "trtgate")
    assert len(named) > 50
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 140


def test_decisions_are_numbered_dated_and_listed_newest_first() -> None:
    listed = []
    for number, path in enumerate(DECISIONS, 1):
        record = re.match(
            r"# (.+)\n\nDate: (\d{4}-\d\d-\d\d)\. Status: (in force|replaced by \[.+\]\((\d{4}-.+\.md)\))\. "
            r"\[All decisions\]\(index\.md\)\n"
            r"\n## Context\n\n.+\n\n## Decision\n\n.+\n\n## Consequences\n\n.+\n(?:\n## Measured\n\n.+\n)?\Z",
            path.read_text(), re.DOTALL,
        )  # fmt: skip
        assert record is not None, path.name
        assert path.name.startswith(f"{number:04d}-")
        title, date, status, _ = record.groups()
        replaced = "" if status == "in force" else " *replaced*"
        listed.append(f"* {date}: [{number:04d}. {title}]({path.name}){replaced}")
    assert listed == sorted(listed)
    index = (ROOT / "docs" / "decisions" / "index.md").read_text().splitlines()
    assert [line for line in index if line.startswith("* ")] == listed[::-1]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_what_exists(path: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("code", path.read_text())):
        file, _, anchor = target.partition("#")
        there = path if not file else path.parent / file
        if "://" in target or GENERATED in there.resolve().parents:
            continue
        if not there.exists() or (anchor and anchor not in headings(there)):
            wrong.append(target)
    assert wrong == []


def headings(path: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    found = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_documents_that_sources_and_pages_name_exist() -> None:
    """Paths in sentences and comments are no links."""
    named = {}
    folders = ("src", "studies", "tests", "tools", "benchmarks", "docs")
    for path in (*PAGES, *(file for folder in folders for file in (ROOT / folder).rglob("*.py"))):
        named |= dict.fromkeys(
            re.findall(r"\bdocs/[\w/.-]+\.(?:md|svg|png|ya?ml|sh|json)\b", path.read_text()), path.name
        )
    assert len(named) > 20
    assert {name: path for name, path in named.items() if not (ROOT / name).exists()} == {}
