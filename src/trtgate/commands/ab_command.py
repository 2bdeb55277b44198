"""What `trtgate ab` hands to pytest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .pytest_config import configured_suite


def arguments(folder: Path, given: Sequence[str], asked: Sequence[str]) -> list[str]:
    """Return pytest's arguments: the suite's folder unless something else is named, latency tests alone, the base.

    Raises TrtgateError when no suite is configured for `folder`.
    """
    named = [text for text in given if not text.startswith("-") and Path(text.partition("::")[0]).exists()]
    where: list[str] = []
    if not named:
        source, _, _ = configured_suite(folder)
        file = source.suite_file()
        assert file is not None
        tests = sorted(file.parent.glob("test_*.py"))
        where = [os.path.relpath(file.parent if tests else file, folder)]
    marked = any(text == "-m" or text.startswith("-m") for text in given)
    return [*where, *given, *([] if marked else ["-m", "trtgate_latency"]), *asked]
