"""What torch and torch_tensorrt log does not follow a failure's sentence; `-v`, and a log file, have it."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator

import pytest

from .case_items import case_id_of

UPSTREAM = ("torch", "torch_tensorrt", "torchvision", "tensorrt", "torchao", "modelopt")
"""Loggers whose records say nothing of a case."""
TO_STDERR = re.compile(r"^[DIWEC]\d{4} \d\d:\d\d:\d\d\.\d+ \d+ torch\S*/.*\n?", re.MULTILINE)
"""A line of torch's own handler: level and date, time, process, file."""


class UpstreamLogs:
    """The hooks."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Keep upstream's records from a report while a case's test runs."""
        handler = getattr(item.config.pluginmanager.get_plugin("logging-plugin"), "report_handler", None)
        if handler is None or not _quiet(item):
            return (yield)
        handler.addFilter(_of_others)
        try:
            return (yield)
        finally:
            handler.removeFilter(_of_others)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Take upstream's lines out of what was captured."""
        report = yield
        if _quiet(item):
            report.sections[:] = without_upstream(report.sections)
        return report


def _quiet(item: pytest.Item) -> bool:
    return case_id_of(item) is not None and item.config.get_verbosity() <= 0


def without_upstream(sections: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return a report's sections without torch's lines on stderr, and without those that have no others."""
    left = [(name, TO_STDERR.sub("", text) if "stderr" in name else text) for name, text in sections]
    return [(name, text) for name, text in left if text.strip()]


def _of_others(record: logging.LogRecord) -> bool:
    """Whether a record is nobody's upstream; warnings of upstream's code come by another logger."""
    if record.name == "py.warnings":
        return not any(f"/{name}/" in record.getMessage() for name in UPSTREAM)
    return record.name.partition(".")[0] not in UPSTREAM
