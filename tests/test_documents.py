"""What documents and ready workflow files tell a user to type exists."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main

import trtgate
from trtgate.cli import app
from trtgate.fleet import merged_document
from trtgate.pytest_plugin import pytest_options

ROOT = Path(__file__).parent.parent
GENERATED = ROOT / "docs" / "reference" / "generated"
"""There once the site is built; its contents lead there. What it holds is made from the code, and no page here."""
WRITTEN = sorted(path for path in (ROOT / "docs").rglob("*.md") if GENERATED not in path.parents)
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "src" / "trtgate" / "commands" / "templates" / "github_workflow.yml",
    *WRITTEN,
    *sorted((ROOT / "docs" / "ci").iterdir()),
]


class Options:
    """Stands for pytest's parser, and keeps the names of options."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.keys: dict[str, str] = {}

    def addini(self, name: str, said: str, **_: Any) -> None:
        self.keys[name] = said

    def getgroup(self, *_: Any) -> Options:
        return self

    def addoption(self, name: str, **_: Any) -> None:
        self.names.add(name)


@functools.cache
def options_and_commands() -> tuple[set[str], set[str]]:
    options = Options()
    pytest_options.add(options)  # type: ignore[arg-type]
    return options.names, set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def test_fixtures_of_the_gate_are_names_that_are_taken() -> None:
    source = (ROOT / "src" / "trtgate" / "pytest_plugin" / "fixtures.py").read_text()
    names = re.findall(r"^@pytest\.fixture.*\ndef (\w+)\(", source, re.MULTILINE)
    assert "compiled" in names
    page = (ROOT / "docs" / "reference" / "suites.md").read_text()
    assert [name for name in names if f"`{name}`" not in page] == []


def test_ini_keys_say_what_one_writes() -> None:
    """pytest formats the help of options, where %% is %, and shows that of ini keys as it is."""
    options = Options()
    pytest_options.add(options)  # type: ignore[arg-type]
    assert "trtgate_limits" in options.keys
    assert {name for name, said in options.keys.items() if "%%" in said} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_options_and_commands_exist(path: Path) -> None:
    text, (options, commands) = path.read_text(), options_and_commands()
    named = set(re.findall(r"--trtgate-[a-z]+(?:-[a-z]+)*", text))
    assert named <= options
    typed = set(re.findall(r"(?:^\s*(?:- (?:run: )?)?|`|&& |\|\| )trtgate ([a-z]+)", text, re.MULTILINE))
    assert typed <= commands


@functools.cache
def options_of_commands() -> dict[str, set[str]]:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {
        name: {"--help", *(one for param in command.params for one in param.opts)} for name, command in commands.items()
    }


TYPED = re.compile(r"(?:^\s*(?:- (?:run: )?|\$ )?|`|&& |\|\| |; )trtgate ([^\n`&;#]*)", re.MULTILINE)
QUOTED = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_option_of_a_command_is_one_that_this_command_takes(path: Path) -> None:
    if GENERATED in path.parents:
        return
    unknown = []
    for line in TYPED.findall(path.read_text().replace("\\\n", " ")):
        words, known = QUOTED.sub("x", line).partition("|")[0].split(), options_of_commands()
        name = next((one for one in (" ".join(words[:2]), words[0]) if one in known), "")
        wanted = {found[0] for word in words if (found := re.match(r"--?[a-z][a-z-]*", word.lstrip("[")))}
        if name == "ab":  # it hands what it does not know to pytest
            wanted -= {"-k", "-m", *options_and_commands()[0]}
        unknown += [f"{name} {one}" for one in sorted(wanted - known.get(name, set()))]
    assert unknown == []


PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_of_a_page_is_python_and_names_what_trtgate_has(path: Path) -> None:
    wrong = []
    for block in PYTHON.findall(path.read_text()):
        whole = re.sub(r"(^@.+\))\n*\Z", r"\1\ndef factory(): ...", block, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(whole)):
            named = node.func if isinstance(node, ast.Call) else node
            if not (isinstance(named, ast.Attribute) and ast.unparse(named.value) == "trtgate"):
                continue
            if not hasattr(trtgate, named.attr):
                wrong.append(named.attr)
            elif isinstance(node, ast.Call):
                called = getattr(trtgate, named.attr)
                known = set(getattr(called, "__struct_fields__", ()) or inspect.signature(called).parameters)
                known |= set(inspect.signature(trtgate.grid).parameters) if "more" in known else set()
                wrong += [f"{named.attr}({one.arg}=)" for one in node.keywords if one.arg not in known]
    assert wrong == []


STORED_COVERAGE = ROOT / "baselines" / "coverage" / "rtx-2.14.0"
COUNTED = re.compile(r"^(\S+?)-(dynamo\S*) +(\d+) of (\d+) +(?:[\d.]+% +)?(\d+)\b", re.MULTILINE)


def test_coverage_that_pages_show_is_what_is_stored() -> None:
    compared = 0
    for path in DOCUMENTS:
        for model, settings, taken, _total, engines in COUNTED.findall(path.read_text()):
            stored = STORED_COVERAGE / f"{model}.json"
            cases = json.loads(stored.read_text())["cases"] if stored.exists() else {}
            if settings in cases:
                compared += 1
                sizes = [sum(one["operators"].values()) for one in cases[settings]["engines"]]
                assert (int(taken), int(engines)) == (sum(sizes), len(sizes)), (path.name, model)
    assert compared >= 4


NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def test_cards_that_pages_count_are_those_of_the_stored_baselines() -> None:
    cards = {}
    for kind in ("h100", "h200"):
        (file,) = ROOT.glob(f"baselines/nvidia-{kind}-*/latency.json")
        sessions = [one["extra_info"]["trtgate"]["sessions"] for one in json.loads(file.read_text())["benchmarks"]]
        cards[kind] = NUMBERS[len({session["uuid"] for of_case in sessions for session in of_case})]
    for page in ("examples", "reference/files"):
        text = (ROOT / "docs" / f"{page}.md").read_text()
        assert f"on {cards['h100']} H100s and {cards['h200']} H200s" in text, page


@pytest.mark.parametrize("page", ["reference/verdicts", "how-to/scripts"])
def test_every_exit_code_has_a_row(page: str) -> None:
    rows = re.findall(r"^\| (\d) \| ", (ROOT / "docs" / f"{page}.md").read_text(), re.MULTILINE)
    assert sorted(map(int, rows)) == sorted({*pytest.ExitCode, merged_document.UNCONFIRMED})


def test_what_is_uploaded_from_a_hidden_folder_is_uploaded() -> None:
    """Since its release 4.4 GitHub's action leaves hidden files out unless it is told otherwise."""
    uploads = [
        (path.name, step) for path in DOCUMENTS
        for step in re.findall(r"uses: actions/upload-artifact@.*?(?=\n *- |\n```|\Z)", path.read_text(), re.DOTALL)
        if re.search(r"path: (\.|\$runs)", step)
    ]  # fmt: skip
    assert len(uploads) >= 4
    assert [one for one in uploads if "include-hidden-files: true" not in one[1]] == []


def test_extras_that_documents_install_exist() -> None:
    known = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named = {one for path in DOCUMENTS for one in re.findall(r"trtgate\[([\w,]+)\]", path.read_text())}
    assert len(named) > 4
    assert {extra for one in named for extra in one.split(",")} <= known


def test_workflow_files_are_yaml_with_the_two_gates() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    for file in (ROOT / "docs" / "ci").glob("*.yml"):
        assert all(isinstance(one, dict) for one in yaml.safe_load_all(file.read_text())), file.name
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
    *WRITTEN,
]
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def test_decisions_name_files_that_exist() -> None:
    named = re.findall(r"`((?:[a-z_]+/)+\w+\.(?:py|json|md|sh))`", "".join(path.read_text() for path in DECISIONS))
    folders = (ROOT, ROOT / "src" / "trtgate")
    assert len(named) > 50
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []


MOST_WORDS = 45
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[((?:`[^`]*`|[^\]])*)\]\([^)]*\)")
END = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.!?])[\"')*_]*\s+")


def sentences(page: str) -> list[str]:
    """Return the sentences of a page's paragraphs and list items, without tables, code blocks and targets of links.

    A sentence ends at a full stop, a question mark or an exclamation mark before a space; a colon or a semicolon
    ends none. A list item, a heading and a blank line begin another one.
    """
    blocks: list[list[str]] = [[]]
    for line in FENCE.sub("", page).splitlines():
        text = line.strip()
        item = re.match(r"(?:[*+-]|\d+\.) +", text)
        if item or text.startswith(("|", "#", "<")) or not text:
            blocks.append([])
        if not text.startswith(("|", "#", "<")):
            blocks[-1].append(text[item.end() :] if item else text)
    return [one for block in blocks for one in END.split(LINK.sub(r"\1", " ".join(block).strip())) if one]


def test_sentences_of_a_page_are_told_apart() -> None:
    paragraph = "# Title. No\n\nOne: two; three,\ne.g. four (five.) Is it? [Yes](no.md).\n"
    page = f"{paragraph}* six\n* seven.\n\n| a. | b |\n```\nx. y\n```\nEnd"
    assert sentences(page) == ["One: two; three, e.g. four (five.", "Is it?", "Yes.", "six", "seven.", "End"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_sentence_is_long(path: Path) -> None:
    """The words of an inline code count, too."""
    found = sentences(path.read_text())
    assert found
    assert [one for one in found if len(one.split()) > MOST_WORDS] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 140


def test_pictures_are_small() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir()]
    assert len(sizes) > 10
    assert sum(sizes) <= 600_000


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
        if "://" in target:
            continue
        built = GENERATED in there.resolve().parents  # no page of a checkout that nobody built a site in
        if built or not there.exists() or (anchor and anchor not in headings(there)):
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
