"""Explanations of failures: each name that a sentence ends with has a text, and what the text says to type exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
import pytest
import typer.main

from trtgate.cli import app
from trtgate.commands import explanation_texts
from trtgate.common.errors import TrtgateError, explaining, sentence_of
from trtgate.common.escaping import markdown, printable, terminal
from trtgate.common.explanations import PARTS, Explanation, bare, continued, explained, shortened
from trtgate.common.metrics import METRICS
from trtgate.gate.sentences import EXPLANATIONS

from .in_process import command
from .test_documents import Options, pytest_options

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "trtgate"
MOST_LINES = 25
PYTEST_OPTIONS = {
    "--benchmark-compare", "--benchmark-disable", "--collect-only", "--fixtures-per-test", "--help", "--trace-config",
}  # fmt: skip
"""Those of pytest and pytest-benchmark that texts name."""


# Names and texts


def test_every_name_has_a_text_and_every_text_a_name() -> None:
    assert sorted(path.stem for path in (SOURCE / "explanations").iterdir()) == sorted(Explanation)


def test_every_name_is_used() -> None:
    used = {
        node.attr
        for path in SOURCE.rglob("*.py")
        if path != SOURCE / "common" / "explanations.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Explanation"
    }
    assert used == set(Explanation.__members__)


def test_every_metric_that_can_get_worse_is_explained() -> None:
    assert EXPLANATIONS.keys() == METRICS.keys()


@pytest.mark.parametrize("name", Explanation)
def test_a_text_has_its_parts_and_is_short(name: Explanation) -> None:
    lines = name.text.splitlines()
    title, meaning, *paragraphs = name.text.split("\n\n")
    assert title == f"# {name}"
    assert meaning[0].isupper() or meaning.startswith(("`", "torch"))
    assert meaning.endswith(".")
    parts = [paragraph.removeprefix("**").split("**")[0] for paragraph in paragraphs if paragraph.startswith("**")]
    assert parts == list(PARTS)
    assert "](" in paragraphs[0] or "](" in paragraphs[1]  # where the decision is described
    assert paragraphs[-1].startswith("```\n")
    assert paragraphs[-1].endswith("```\n")
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 150


@pytest.mark.parametrize("name", Explanation)
def test_links_lead_to_a_heading_of_the_documentation(name: Explanation) -> None:
    links = re.findall(r"\]\(([\w.-]+)(?:#([\w-]+))?\)", name.text)
    assert len(links) == name.text.count("](")
    for page, anchor in links:
        assert anchor in _anchors((ROOT / "docs" / page).read_text())


def _anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# What a reader types


@pytest.mark.parametrize("name", Explanation)
def test_commands_exist(name: Explanation) -> None:
    assert _problems(name.text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("`trtgate explian`", "trtgate explian"),
        ("```\ntrtgate baseline acept RUN.json\n```", "trtgate baseline acept"),
        ("```\ntrtgate locate CASE --tolerence 1e-3\n```", "trtgate locate --tolerence"),
        ("```\ntrtgate ab --trtgate-lunches 3\n```", "--trtgate-lunches"),
        ("Set `--trtgate-limits` higher.", "--trtgate-limits"),
        ("```\npytest benchmarks --benchmark-compair\n```", "--benchmark-compair"),
    ],
)
def test_a_command_that_does_not_exist_is_found(text: str, problem: str) -> None:
    assert problem in _problems(text)


def _problems(text: str) -> list[str]:
    """Return what a text says to type and does not exist: options of pytest, commands of trtgate and their options."""
    options = Options()
    pytest_options.add(options)  # type: ignore[arg-type]
    known = options.names | PYTEST_OPTIONS
    in_code = [
        *re.findall(r"`([^`\n]+)`", text),
        *(line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in _lines(block)),
    ]
    found = [f"{word}" for word in re.findall(r"--trtgate-[a-z-]+", text) if word not in options.names]
    for line in in_code:
        words = line.split("#")[0].split()
        if "trtgate" in words:
            found += _problems_of(words[words.index("trtgate") + 1 :], known)
        elif "pytest" in words:
            found += [word for word in _options_in(words) if word not in known]
    return found


def _lines(block: str) -> list[str]:
    lines = [line for line in block.splitlines() if line]
    assert all(re.match(r"(\w+=\S* )?(pytest|trtgate|git) ", line) for line in lines), lines
    return lines


def _options_in(words: list[str]) -> list[str]:
    return [word.partition("=")[0] for word in words if word.startswith("--")]


def _problems_of(words: list[str], of_pytest: set[str]) -> list[str]:
    if not words:
        return []
    group: click.Group = typer.main.get_command(app)  # type: ignore[assignment]
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in group.commands), "")
    found = group.commands.get(name)
    shown = f"trtgate {name or words[0]}"
    rest = words[len(name.split()) :]
    if isinstance(found, click.Group) or hasattr(found, "commands"):
        shown = f"{shown} {rest[0]}"
        found = found.commands.get(rest[0])  # type: ignore[union-attr]
    if found is None:
        return [shown]
    own = {option for parameter in found.params for option in parameter.opts}
    takes = own | {"--help"} | (of_pytest if name == "ab" else set())
    return [f"{shown} {option}" for option in _options_in(rest) if option not in takes]


# The command


def test_the_command_prints_a_text_with_links_from_the_root() -> None:
    status, said = command("explain", "underpowered")
    assert status == 0
    assert said == Explanation.UNDERPOWERED.text.replace("](", "](docs/")
    assert "](docs/verdicts.md#" in said


def test_the_command_lists_all_names_with_a_sentence_each() -> None:
    status, said = command("explain")
    assert status == 0
    lines = [line.split("  ", 1) for line in said.splitlines()]
    assert [name for name, _ in lines] == list(Explanation)
    assert all(summary.strip().endswith(".") for _, summary in lines)


@pytest.mark.parametrize(
    ("asked", "nearest"), [("regressed_devise", "regressed-device"), ("captured", "capture-lost"), ("%", "")]
)
def test_an_unknown_name_is_refused_with_the_nearest_one(asked: str, nearest: str) -> None:
    status, said = command("explain", asked)
    assert status == 4
    assert f"no explanation is called {asked!r}" in said
    assert ("did you mean" in said) is bool(nearest)
    assert nearest in said
    assert said.count("\n") == 1


# The page


def test_the_page_is_what_the_texts_give() -> None:
    page = (ROOT / "docs" / "failures.md").read_text()
    assert page == explanation_texts.page(), "python -m trtgate.commands.explanation_texts > docs/failures.md"
    assert set(Explanation) <= _anchors(page)


# How a sentence ends


def test_a_sentence_ends_with_one_name() -> None:
    said = explained("net is slower", Explanation.REGRESSED_DEVICE)
    assert said == "net is slower (docs: regressed-device)"
    assert explained(said, Explanation.BUILD_FAILED) == said
    assert continued(said, "; limit 1 %") == "net is slower; limit 1 % (docs: regressed-device)"
    assert continued("net is slower", "; limit 1 %") == "net is slower; limit 1 %"
    assert bare(said) == "net is slower"
    assert bare("net is slower") == "net is slower"


def test_a_name_survives_where_a_sentence_is_cut() -> None:
    said = explained("x" * 500, Explanation.UNDERPOWERED)
    for shown in (shortened(said, 100), printable(said, 100), terminal(said, 100)):
        assert len(shown) == 100
        assert shown.endswith("x… (docs: underpowered)")
    assert markdown(said, 100).endswith("underpowered)")
    assert shortened("x" * 500, 100) == "x" * 99 + "…"


def test_errors_within_are_explained_unless_they_are_already() -> None:
    with pytest.raises(TrtgateError, match=r"^gone \(docs: base-failed\)$"), explaining(Explanation.BASE_FAILED):
        raise TrtgateError("gone")
    with pytest.raises(TrtgateError, match=r"^gone \(docs: file-fault\)$"), explaining(Explanation.BASE_FAILED):
        raise TrtgateError(explained("gone", Explanation.FILE_FAULT))
    assert sentence_of(PermissionError(13, "no", "a.json")).endswith(" (docs: file-fault)")
