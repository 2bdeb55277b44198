"""What is wrong as one line: it ends a run with exit code 4, and never as a traceback into this package."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest

from ..common.errors import PROBLEMS, sentence_of
from ..common.escaping import terminal
from ..common.explanations import Explanation, explained


def refusal(text: str, explanation: Explanation) -> pytest.UsageError:
    """Return what ends a run with exit code 4 and a line; one that has the name of an explanation keeps its own."""
    return pytest.UsageError(terminal(f"trtgate: {explained(text, explanation)}"))


@contextmanager
def refusals(explanation: Explanation) -> Generator[None]:
    """Within: what is wrong, with a file too, ends the run with exit code 4 and one line.

    The line ends with the name of an explanation; a sentence that has one keeps its own.
    """
    try:
        yield
    except PROBLEMS as error:
        raise refusal(sentence_of(error), explanation) from error
