"""Ends the run in one line where a library of the examples is not installed."""

from __future__ import annotations

import importlib.util

import pytest


def pytest_configure() -> None:
    """Say which library is missing; pytest's exit code is that of a run that collected nothing."""
    if importlib.util.find_spec("transformers") is None:
        pytest.exit(
            "benchmarks/examples: skipped, transformers is not installed: pip install transformers",
            returncode=pytest.ExitCode.NO_TESTS_COLLECTED,
        )
