"""A suite's file as a collector of tests, and the cases that its tests are made for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import suite_tests
from .case_items import case_id_of

if TYPE_CHECKING:
    from ..suite.cases import Case
    from .gate_run import GateRun


COLLECTED = pytest.StashKey[dict[Path, Path]]()
"""File, links resolved → the path by which a session collected it."""


class SuiteFile(pytest.Module):
    """A suite's file as a collector: its tests are those of `suite_tests`, for every case.

    A file that a link leads to as well is collected once, by the path that comes first.
    """

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """Return the tests; nothing where they were collected by another path."""
        collected = self.session.stash.setdefault(COLLECTED, {})
        return super().collect() if collected.setdefault(self.path.resolve(), self.path) == self.path else []

    def _getobj(self) -> Any:
        return suite_tests


class NoTests(pytest.File):
    """What pytest itself would make of a suite's file named on the command line: nothing, `SuiteFile` does."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Return nothing."""
        return []


def cases_for(run: GateRun, metafunc: pytest.Metafunc) -> list[Case]:
    """Return the cases that can be asked of a test: of the suite in whose file it is, in another file of all suites.

    Raises TrtgateError where a suite can't be imported.
    """
    file = metafunc.definition.getparent(SuiteFile)
    suite = run.load_suite(file.path.resolve() if file else None)
    cases = list(suite.cases.values())
    partitioned = {"profile_gate", "coverage_gate"} & set(metafunc.fixturenames)
    if "coverage_gate" in metafunc.fixturenames and run.suites.is_first(suite):  # and of the zoo
        cases += [case for case_id, case in run.catalogue.cases.items() if case_id not in run.suite.cases]
    return [case for case in cases if not partitioned or case.settings.partitions]


def is_doubled(run: GateRun, item: pytest.Item) -> bool:
    """Whether a model of the zoo, which the first suite's file got, turned out to be one of a later suite."""
    file, case_id = item.getparent(SuiteFile), case_id_of(item)
    if file is None or case_id is None or run.suite_problem:
        return False
    own = run.load_suite(file.path.resolve()).cases
    return case_id not in own and (case_id in run.suite.cases or case_id not in run.catalogue.cases)
