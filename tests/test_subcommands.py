"""Commands of two words are commands of their own, with their own help."""

import pytest
from typer.testing import CliRunner

from trtgate.cli import app


@pytest.mark.parametrize(
    ("words", "argument", "not_its"),
    [
        ("coverage diff", "[OLD] [NEW]", "--min-block-size"),
        ("profile diff", "[OLD] [NEW]", "--precision"),
        ("profile show", "[FILE...]", "--precision"),
        ("cache info", "[CASE...]", "Remove compiled"),
        ("cache clear", "[CASE...]", "Show the compiled"),
    ],
)
def test_a_command_of_two_words_has_its_own_help(words: str, argument: str, not_its: str) -> None:
    said = CliRunner().invoke(app, [*words.split(), "--help"]).output
    assert f"{words} [OPTIONS] {argument}" in said
    assert not_its not in said
    group = words.split()[:1] * words.startswith("cache")
    assert words.removeprefix("cache ") in CliRunner().invoke(app, [*group, "--help"]).output


@pytest.mark.parametrize("command", ["coverage", "profile"])
def test_the_command_of_one_word_takes_models_still(command: str) -> None:
    done = CliRunner().invoke(app, [command, "no_such_model"])
    assert done.exit_code == 4
    assert "unknown model 'no_such_model'" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        "", "--nope", "covrage", "baseline", "baseline shw", "baseline show --nope", "coverage --min-block-size x",
        "doctor extra", "history", "coverage diff --nope",
        "cache", "cache show", "cache info --nope",
    ],
)  # fmt: skip
def test_a_mistake_in_what_was_typed_is_exit_code_4(arguments: str) -> None:
    """As pytest's usage errors, and never 2, which says that a run was interrupted."""
    done = CliRunner().invoke(app, arguments.split())
    assert done.exit_code == 4
    assert "Traceback" not in done.output
    assert done.output
