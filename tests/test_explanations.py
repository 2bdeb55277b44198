"""Explanations of failures: each name that a sentence ends with has a text, and what the text says to type exists."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import click
import pytest
import typer.main

from trtgate.cli import app
from trtgate.commands import explanation_texts
from trtgate.common.errors import TrtgateError, explaining, sentence_of
from trtgate.common.escaping import markdown, printable, terminal
from trtgate.common.explanations import PARTS, Explanation, bare, continued, explained, explanation_in, shortened
from trtgate.common.metrics import METRICS
from trtgate.gate.sentences import EXPLANATIONS

from .in_process import RECORD, InProcess, ScriptedSession, command
from .suites import suite_text
from .test_documents import Options, pytest_options

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "trtgate"
MOST_LINES = 25
PYTEST_OPTIONS = {
    "--benchmark-compare", "--benchmark-disable", "--collect-only", "--fixtures-per-test", "--help", "--trace-config",
}  # fmt: skip
"""Those of pytest and pytest-benchmark that texts name."""


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Return the source of trtgate: file → its statements."""
    return {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")}


# Names and texts


def test_every_name_has_a_text_and_every_text_a_name() -> None:
    assert sorted(path.stem for path in (SOURCE / "explanations").iterdir()) == sorted(Explanation)


def test_every_name_is_used() -> None:
    used = {
        node.attr
        for name, tree in trees().items()
        if name != "common/explanations.py"
        for node in ast.walk(tree)
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


# Ways to fail


FAILING = {"fail", "skip", "xfail", "exit", "UsageError", "Notice", "say", "write_line"}
"""What is called to fail or skip a test, or to turn a run red; other things have these names too."""


class Sentences:
    """What of the source of trtgate ends with the name of an explanation, as far as that can be read from it."""

    ENDS = ("explained", "not_checked")
    """Functions whose sentences end with a name, whatever they are given."""
    KEEP = ("terminal", "terminal_lines", "continued", "one_line", "str")
    """Functions that leave the name where it is."""

    def __init__(self, trees: dict[str, ast.Module]) -> None:
        self.trees = trees
        self._functions: dict[str, list[ast.FunctionDef]] = {}
        for tree in self.trees.values():
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    self._functions.setdefault(node.name, []).append(node)

    def lacking(self) -> list[str]:
        """Return where a test fails or is skipped, or a run ends red, by a sentence without a name."""
        found = []
        for name, tree in self.trees.items():
            for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
                for call in [node for node in ast.walk(function) if isinstance(node, ast.Call)]:
                    said = _failing(call)
                    if said is not None and not self.ends(said, function):
                        found.append(f"{name}:{call.lineno}: {ast.unparse(call)[:90]}")
        return sorted(set(found))

    def ends(self, said: ast.expr, within: ast.FunctionDef) -> bool:
        """Whether an expression in a function is a sentence that ends with a name, or empty."""
        if isinstance(said, ast.IfExp):
            return self.ends(said.body, within) and self.ends(said.orelse, within)
        if isinstance(said, ast.JoinedStr):
            last = said.values[-1]
            return isinstance(last, ast.FormattedValue) and self.ends(last.value, within)
        if isinstance(said, ast.Constant):
            return said.value == ""
        if isinstance(said, ast.Name):
            before = _assigned(said, within)
            return bool(before) and self.ends(before[-1], within)
        if isinstance(said, ast.Attribute):
            return said.attr == "text" and self._is_outcome(said.value, within)
        if not isinstance(said, ast.Call):
            return False
        name = said.func.attr if isinstance(said.func, ast.Attribute) else getattr(said.func, "id", "")
        if name in self.KEEP:
            return self.ends(said.args[0], within)
        if name in self.ENDS:
            return True
        made = [
            (node.value, function)
            for function in self._functions.get(name, [])
            if function is not within
            for node in ast.walk(function)
            if isinstance(node, ast.Return) and node.value is not None
        ]
        return bool(made) and all(self.ends(value, function) for value, function in made)

    def _is_outcome(self, value: ast.expr, within: ast.FunctionDef) -> bool:
        """Whether it is what `outcome` returned, which test_outcome.py and the runs below look at."""
        made = _assigned(value, within)[-1:] if isinstance(value, ast.Name) else [value]
        return any(isinstance(one, ast.Call) and ast.unparse(one.func) == "outcome" for one in made)


def _assigned(name: ast.Name, within: ast.FunctionDef) -> list[ast.expr]:
    """Return what a function assigns to a name above the line in which it is read."""
    return [
        node.value
        for node in ast.walk(within)
        if isinstance(node, ast.Assign) and node.lineno < name.lineno
        if any(isinstance(target, ast.Name) and target.id == name.id for target in node.targets)
    ]


def _failing(call: ast.Call) -> ast.expr | None:
    """Return the sentence of a call that fails or skips a test, or turns a run red; None of any other call."""
    if (call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")) not in FAILING:
        return None
    called, named = ast.unparse(call.func), {one.arg: one.value for one in call.keywords}
    text = call.args[0] if call.args else named.get("text", named.get("reason", named.get("msg")))
    severe = any(ast.unparse(one) in ("Severity.ERROR", "Severity.MISSING") for one in (*call.args, *named.values()))
    told = called in ("pytest.fail", "pytest.skip", "pytest.xfail", "pytest.exit", "pytest.UsageError", "UsageError")
    red = called.endswith("write_line") and ast.unparse(named.get("red", ast.Constant(False))) == "True"
    if told or red or (severe and called.rpartition(".")[2] in ("Notice", "say")):
        return text
    return named.get("reason") if called.endswith("mark.skip") else None


def test_every_way_to_fail_ends_with_a_name() -> None:
    """A new one that lacks it is named here: let its sentence be `explained`."""
    source = Sentences(trees())
    ways = [call for tree in source.trees.values() for call in ast.walk(tree) if isinstance(call, ast.Call)]
    assert len([call for call in ways if _failing(call) is not None]) > 25
    assert source.lacking() == []


@pytest.mark.parametrize(
    "statement",
    [
        "pytest.fail('it is slow')",
        "pytest.skip(reason=f'{case}: too noisy')",
        "pytest.xfail(sentence_of(error))",
        "raise pytest.UsageError(str(error))",
        "run.say(sentence_of(error), Severity.ERROR)",
        "return [Notice('gone', severity=Severity.MISSING)]",
        "said = explained('a', NAME); said = 'b'; pytest.fail(said)",
        "pytest.fail(bare(explained('a', NAME)))",
        "item.add_marker(pytest.mark.skip(reason='no GPU'))",
        "reporter.write_line('ERROR: gone', red=True)",
    ],
)
def test_a_way_to_fail_without_a_name_is_found(statement: str) -> None:
    assert lacking_in(statement) != []


@pytest.mark.parametrize(
    "statement",
    [
        "pytest.fail(explained('it is slow', NAME), pytrace=False)",
        "said = 'slow'; said = f'ERROR: {explained(said, NAME)}'; run.say(terminal(said), Severity.ERROR)",
        "return Notice(outside('gone'), Severity.MISSING)",
        "run.say('stored')",
    ],
)
def test_a_way_to_fail_with_a_name_is_not(statement: str) -> None:
    assert lacking_in(statement) == []


def lacking_in(statement: str) -> list[str]:
    """Return what lacks a name in a function of one statement, beside one that gives a sentence its name."""
    body = statement.replace("; ", "\n    ")
    text = f"def outside(text):\n    return explained(text, NAME)\n\n\ndef new(case, run, error):\n    {body}\n"
    return Sentences({"new.py": ast.parse(text)}).lacking()


COMPARE = ("suite.py", "--trtgate-launches=1", "--benchmark-compare")
MODEL = """

@trtgate.model(frontends=("eager",), precisions=("fp32",), {settings})
def gamma(batch):
    import torch

    def forward(x):
        return x + 1

    return made(forward, torch.ones(batch, 4))
"""


@pytest.mark.parametrize(
    ("more", "arguments", "name"),
    [
        ("", ("--trtgate-require=baseline",), "new-case"),
        ("", ("--trtgate-require=gpu",), ""),  # eager runs on a CPU
        ("", ("--trtgate-accept=delta",), "option-conflict"),
        ("", ("--trtgate-update-baselines", "--trtgate-accept=delta"), "suite-problem"),
        ("", ("--trtgate-models=delta",), "suite-problem"),
        ("", ("--trtgate-limit=devise=1%",), "option-conflict"),
        ("", ("-k", "nothing"), ""),
        ("raise OSError(28, 'No space left on device', 'x')\n", (), "suite-problem"),
        ("raise KeyError('x')\n", (), "suite-problem"),
        (MODEL.format(settings="batch=1"), (), "suite-problem"),
        (MODEL.format(settings="batches=(1,), limits={'device': '-1%'}"), (), "suite-problem"),
        (MODEL.format(settings="batches=(1,)").replace("x + 1", "x[9]"), (), "model-unusable"),
        (MODEL.format(settings="batches=(1,)").replace("x + 1", "x / 0 * 0"), (), "model-unusable"),
        (MODEL.format(settings="batches=(1,)").replace("x + 1", "open('/no/x')"), (), "model-unusable"),
        (MODEL.format(settings="quarantine=trtgate.quarantine('a', until='2020-01-01')"), (), "quarantine-ended"),
        (MODEL.format(settings="expected_failure=trtgate.expected_failure('a')"), (), "failure-gone"),
    ],
)  # fmt: skip
def test_what_fails_in_a_run_ends_with_a_name(
    here: InProcess, more: str, arguments: tuple[str, ...], name: str
) -> None:
    (here.path / "suite.py").write_text(suite_text(("alpha",), {}) + more)
    status, said = here.run(*COMPARE, "-rs", *arguments)
    assert unexplained(said) == []
    if name:
        assert status in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.USAGE_ERROR)
        assert f"(docs: {name})" in said


def test_what_fails_against_a_baseline_ends_with_a_name(here: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    assert here.run(*RECORD)[0] == 0
    (baseline,) = here.path.glob("baselines/*/latency.json")
    (here.path / "suite.py").write_text(suite_text(("alpha",), {}))
    monkeypatch.setattr(ScriptedSession, "latency_us", 1e6)
    ended = {}
    for arguments in (COMPARE, (*COMPARE, "--trtgate-require=verdict"), RECORD):
        status, said = here.run(*arguments, "-rs")
        assert status == pytest.ExitCode.TESTS_FAILED
        assert unexplained(said) == []
        ended |= dict.fromkeys(re.findall(r"\(docs: ([a-z-]+)\)", said))
    assert {"regressed-host", "missing-case"} <= set(ended)
    baseline.write_text("{")
    status, said = here.run(*COMPARE)
    assert (status, unexplained(said)) == (pytest.ExitCode.USAGE_ERROR, [])
    assert "(docs: baseline-broken)" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("merge", "absent.json"), ("report", "absent.json"), ("history", "absent"), ("baseline", "show", "absent"),
        ("baseline", "accept", "absent.json"), ("baseline", "remove", "absent"), ("coverage", "absent"),
        ("coverage", "diff", "a", "b"), ("locate", "absent"), ("profile", "absent"), ("profile", "show", "absent"),
        ("export", "--to", "csv", "absent"), ("explain", "absent"), ("affected", "--base", "absent"),
        ("cache", "clear", "absent"), ("sweep", "absent"), ("selfcheck", "absent"), ("ab",),
        ("init", "--path", "../x.py"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)  # fmt: skip
def test_what_a_command_refuses_ends_with_a_name(here: InProcess, arguments: tuple[str, ...]) -> None:
    status, said = command(*arguments)
    assert status == 4
    (line,) = [line for line in said.splitlines() if line.startswith("trtgate: error: ")]
    assert explanation_in(line) in set(Explanation)


def unexplained(said: str) -> list[str]:
    """Return what a run printed of failed tests, skips and errors that ends with no name that there is."""
    told = re.findall(r"^(?:ERROR|MISSING): .*|^SKIPPED \[.*", said, re.MULTILINE)
    failures = re.search(r"^=+ FAILURES =+$(.*?)^={3,}", said, re.MULTILINE | re.DOTALL)
    if failures is not None:
        told += re.split(r"^_{3,} .* _{3,}$", failures[1], flags=re.MULTILINE)[1:]
    return [text for text in told if explanation_in(text) not in set(Explanation)]


@pytest.mark.parametrize(
    ("said", "lacking"),
    [
        ("ERROR: gone\n", 1),
        ("ERROR: gone (docs: missing-case)\n", 0),
        ("ERROR: gone (docs: missing-cases)\n", 1),
        ("SKIPPED [1] suite.py: noisy\nMISSING: gone\n", 2),
        ("== FAILURES ==\n___ a ___\nslow (docs: regressed-host)\nif so: do\n___ b ___\nslow\n=== trtgate ===\n", 1),
    ],
)
def test_what_a_run_prints_without_a_name_is_found(said: str, lacking: int) -> None:
    assert len(unexplained(said)) == lacking


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


PAGES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_a_page_exist(page: Path) -> None:
    assert _problems_of_page(page.read_text()) == []


def test_a_wrong_option_of_a_page_is_found() -> None:
    page = (
        "Ask `trtgate coverage resnet18 [--presicion fp16]`:\n```console\n$ trtgate merge RUN --reprot x  # all\n```\n"
    )
    assert _problems_of_page(page) == ["trtgate coverage --presicion", "trtgate merge --reprot"]


def _problems_of_page(text: str) -> list[str]:
    """Return the options of `trtgate` and pytest that a page names in code and that do not exist."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    code = [*re.findall(r"`([^`\n]+)`", text), *(line for block in blocks for line in block.splitlines())]
    options = Options()
    pytest_options.add(options)  # type: ignore[arg-type]
    known, found = options.names | PYTEST_OPTIONS, []
    for line in code:
        words = re.sub(r"[\[\]]|^(\$|- run:) |\s#.*", "", line).split()
        if words[:1] == ["trtgate"] and len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]):
            found += _problems_of(words[1:], known)
        elif words[:1] == ["pytest"]:
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
