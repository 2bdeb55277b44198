"""What is wrong as one line: it ends a run with exit code 4, and never as a traceback into this package."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import pytest

from ..common.errors import PROBLEMS, sentence_of
from ..common.escaping import terminal


def refusal(text: str) -> pytest.UsageError:
    """Return what ends a run with exit code 4 and a line."""
    return pytest.UsageError(terminal(f"trtgate: {text}"))


@contextmanager
def refusals() -> Generator[None]:
    """Within: what is wrong, with a file too, ends the run with exit code 4 and one line."""
    try:
        yield
    except PROBLEMS as error:
        raise refusal(sentence_of(error)) from error
