"""A suite's file as a collector of tests."""

from __future__ import annotations

from typing import Any

import pytest

from . import suite_tests


class SuiteFile(pytest.Module):
    """A suite's file as a collector: its tests are those of `suite_tests`, for every case."""

    def _getobj(self) -> Any:
        return suite_tests


class NoTests(pytest.File):
    """What pytest itself would make of a suite's file named on the command line: nothing, `SuiteFile` does."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Return nothing."""
        return []
