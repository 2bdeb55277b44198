"""`--trtgate-build-only`: every case is built and compared with eager, by one process or by those of pytest-xdist."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ..common.escaping import terminal
from ..common.text_columns import TextTable, number_of
from ..records.measurement import Build
from .terminal_display import write_table

PROPERTY = "trtgate_build"
"""The property of a test's report that carries its build to the process that reports."""


class BuiltForLater(msgspec.Struct, kw_only=True):
    """What came of building one case."""

    case_id: str
    build: Build
    left: str
    """What its frontend leaves for later runs."""
    notes: list[str] = []
    """What went wrong with the cache, and was got over."""


def property_of(built: BuiltForLater) -> tuple[str, str]:
    """Return the property of a case's test."""
    return PROPERTY, msgspec.json.encode(built).decode()


class BuildEnding:
    """Collects what was built, wherever that was, and shows it."""

    def __init__(self) -> None:
        self._built: list[BuiltForLater] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test built."""
        found = [value for name, value in report.user_properties if name == PROPERTY and report.when == "call"]
        self._built += [msgspec.json.decode(str(value), type=BuiltForLater) for value in found]

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the table and what it adds up to."""
        if not self._built:
            return
        terminalreporter.section("trtgate builds")
        rows = [("case", "build", "engines", "size", "leaf error", "compared", "left for later runs")]
        for built in sorted(self._built, key=lambda one: -one.build.build_s):
            build = built.build
            took = "cached" if build.cached else f"{build.build_s:.1f} s"
            size = f"{build.engine_bytes / 1e6:.1f} MB" if build.engines else ""
            engines = str(build.engines) if build.engines else ""
            error = "" if build.leaf_error is None else f"{build.leaf_error:.1e}"
            compared = ", ".join(f"{count} {kind}" for kind, count in build.leaves.items())
            rows.append((built.case_id, took, engines, size, error, compared, built.left))
        write_table(terminalreporter, TextTable(rows, left=(0, 5, 6)))
        remarks = [f"{built.case_id}: {text}" for built in self._built for text in built.build.remarks]
        for note in [*(note for built in self._built for note in built.notes), *remarks]:
            terminalreporter.write_line(terminal(note))
        cached = sum(built.build.cached for built in self._built)
        cases = number_of(len(self._built), "case")
        terminalreporter.write_line(f"ready: {cases}, {cached} of them from the cache", bold=True)
