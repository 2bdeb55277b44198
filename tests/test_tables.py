"""Tables in a terminal and in a pipe: one maker for all of them."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import trtgate
from trtgate.commands import console
from trtgate.common.text_columns import Display, TextTable, number_of
from trtgate.pytest_plugin.terminal_display import write_table

NAME = "a-model-with-a-name-of-some-length-dynamo-fp16-b1-mbs5"
FIGURES = "1,234.5 ± 0.1 µs", "+12.34% ± 0.56%"
TABLE = TextTable(
    [("case", "latency", "change", "why"), (NAME, *FIGURES, "no converter for it"), ("b", "1 µs", "", "")], left=(0, 3)
)
STYLED = TextTable([("case", "verdict"), ("a", "regressed")], left=(0, 1), styles={(1, 1): "bold red"})


class Stream(io.TextIOWrapper):
    """A terminal, or a pipe."""

    def __init__(self, *, terminal: bool, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def text(self) -> str:
        self.flush()
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(self.encoding)


Printed = Callable[..., str]


@pytest.fixture(params=["command", "pytest"])
def printed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Printed:
    """Return what prints a table as a command and as pytest do, and gives what the stream got."""

    def command(table: TextTable, stream: Stream, _color: str) -> None:
        monkeypatch.setattr(sys, "stdout", stream)
        console.print_lines([table])

    def in_pytest(table: TextTable, stream: Stream, color: str) -> None:
        config = request.config
        reporter = type(config.pluginmanager.get_plugin("terminalreporter"))(config, stream)
        if color != "auto":
            reporter._tw.hasmarkup = color == "yes"
        write_table(reporter, table)

    def printed(
        table: TextTable, *, terminal: bool = False, width: int = 80, encoding: str = "utf-8", color: str = "auto",
        **environment: str,
    ) -> str:  # fmt: skip
        for name in ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "CI", "GITHUB_ACTIONS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in ({"TERM": "xterm", "COLUMNS": str(width)} | environment).items():
            monkeypatch.setenv(name, value)
        stream = Stream(terminal=terminal, encoding=encoding)
        {"command": command, "pytest": in_pytest}[request.param](table, stream, color)
        return stream.text()

    return printed


@pytest.mark.parametrize("width", [10, 40, 80, 300])
def test_a_pipe_has_no_width(printed: Printed, width: int) -> None:
    assert printed(TABLE, width=width).splitlines() == [
        f"{'case':{len(NAME)}}  {'latency':>16}  {'change':>15}  why",
        f"{NAME}  {FIGURES[0]}  {FIGURES[1]}  no converter for it",
        f"{'b':{len(NAME)}}  {'1 µs':>16}",
    ]


@pytest.mark.parametrize("width", [61, 80, 100])
def test_a_narrow_terminal_folds_names_and_no_figure(printed: Printed, width: int) -> None:
    titles, *lines, last = printed(TABLE, terminal=True, width=width, NO_COLOR="1").splitlines()
    assert max(map(len, [titles, *lines, last])) <= width
    assert FIGURES[0] + "  " + FIGURES[1] in lines[0]
    name, why = lines[0].index(FIGURES[0]), titles.index("why")
    assert "".join(line[:name].strip() for line in lines) == NAME
    assert " ".join(line[why:].strip() for line in lines).strip() == "no converter for it"
    assert last.split() == ["b", "1", "µs"]


def test_a_terminal_narrower_than_the_figures_still_gets_them_whole(printed: Printed) -> None:
    said = printed(TABLE, terminal=True, width=20, NO_COLOR="1")
    assert all(figure in said for figure in FIGURES)


@pytest.mark.parametrize(
    ("how", "colored"),
    [
        ({"terminal": True}, True),
        ({"terminal": True, "NO_COLOR": "1"}, False),
        ({"terminal": True, "TERM": "dumb"}, False),
        ({}, False),
        ({"NO_COLOR": "1"}, False),
    ],
)
def test_color_is_for_terminals_that_want_it(printed: Printed, how: dict[str, object], colored: bool) -> None:
    said = printed(STYLED, **how)
    assert ("\x1b[1;31mregressed\x1b[0m" in said) == colored
    assert ("\x1b" in said) == colored


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_columns_stay_aligned_where_letters_are_spelled_in_ascii(
    printed: Printed, encoding: str, terminal: bool
) -> None:
    table = TextTable([("case", "change", "clock"), ("a → b", "1 ± 2 µs", "x"), ("b", "3", "y"), ("名", "…", "z")])
    lines = printed(table, terminal=terminal, encoding=encoding, NO_COLOR="1").splitlines()
    assert lines[1].startswith("a -> b  ")
    assert {len(line) for line in lines} == {len(lines[0])}


HOSTILE = "[red]x[/red] :boom: \x1b[31m\n\t\u202e::error::y ##[group]z ##vso[task"


@pytest.mark.parametrize("width", [None, *range(14, 60)])
@pytest.mark.parametrize("color", [True, False])
def test_names_of_others_are_text(width: int | None, color: bool) -> None:
    table = TextTable([(HOSTILE, HOSTILE), (HOSTILE, "1"), ("::error::" * 9, "2")], styles={(1, 0): "red"}, indent=2)
    for line in table.lines(Display(width=width, color=color)):
        plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
        assert plain.isprintable()
        assert not plain.lstrip().startswith("::")
        assert not re.search(r"##(\[|vso\[)", plain)
    said = str(table)
    assert "[red]x[/red] :boom:  [31m" in said


def test_letters_two_columns_wide_keep_their_columns() -> None:
    assert str(TextTable([("名前", "1"), ("abcd", "22")])).splitlines() == ["名前   1", "abcd  22"]


def test_columns_are_dropped_group_by_group_before_a_name_folds() -> None:
    table = TextTable([("n" * 10, "aaaa", "bbbb", "cccc")], dropped=((2,), (1, 3)), titled=False)
    assert [table.lines(Display(width=width)) for width in (28, 27, 22, 21)] == [
        [f"{'n' * 10}  aaaa  bbbb  cccc"], [f"{'n' * 10}  aaaa  cccc"], [f"{'n' * 10}  aaaa  cccc"], ["n" * 10],
    ]  # fmt: skip


def test_a_table_of_nothing_has_no_line() -> None:
    assert TextTable([]).lines() == []
    assert TextTable([("case", "latency")]).lines() == ["case  latency"]


# Markdown of ours


def markdown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool = True, width: int = 40, **environment: str) -> str:
    for name, value in ({"TERM": "xterm", "COLUMNS": str(width)} | environment).items():
        monkeypatch.setenv(name, value)
    stream = Stream(terminal=terminal, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    console.print_markdown(MARKDOWN)
    return stream.text()


COMMAND = "pytest benchmarks --trtgate-update-baselines --trtgate-accept 'CASE'    # stores it"
MARKDOWN = f"# name\n\n**What to do.** Store [what] is `intended`, and nothing that is not:\n\n```\n{COMMAND}\n```\n"


@pytest.mark.parametrize("width", [20, 40, 200])
@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_an_explanation_fits_a_terminal_and_breaks_no_command(
    monkeypatch: pytest.MonkeyPatch, width: int, environment: dict[str, str]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    lines = markdown(monkeypatch, width=width, **environment).splitlines()
    assert any("\x1b[" in line for line in lines) == (not environment)
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert f"  {COMMAND}" in plain
    assert max(len(line) for line in plain if COMMAND not in line) <= width
    assert "What to do. Store [what] is intended, and nothing that is not:" in " ".join(" ".join(plain).split())
    assert [line for line in lines if line.endswith(" ")] == []


def test_a_pipe_gets_markdown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert markdown(monkeypatch, terminal=False) == MARKDOWN


@pytest.mark.parametrize(
    ("count", "words", "said"),
    [
        (0, ("case",), "0 cases"),
        (1, ("case",), "1 case"),
        (2, ("more case",), "2 more cases"),
        (1200, ("row",), "1,200 rows"),
        (1, ("process", "processes"), "1 process"),
        (3, ("process", "processes"), "3 processes"),
    ],
)
def test_a_count_has_its_noun_in_the_right_number(count: int, words: tuple[str, ...], said: str) -> None:
    assert number_of(count, *words) == said


def test_sources_count_cases_with_number_of() -> None:
    """A plural after a count that may be one says "1 cases"."""
    files = [*Path(trtgate.__file__).parent.rglob("*.py"), *Path(trtgate.__file__).parent.rglob("*.html")]
    written = re.compile(r"\} (?:\w+ )?(?:cases|processes)\b|'s' \* \(")
    assert len(files) > 300
    assert [f"{file.name}: {found}" for file in files for found in written.findall(file.read_text())] == []
