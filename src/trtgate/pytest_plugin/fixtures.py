"""The fixtures: registered with the hooks, where a suite is named."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from ..suite.cases import Case
from .built_case import BuiltCase
from .coverage_tests import CoverageGate
from .gate_run import RUN
from .latency_tests import LatencyGate
from .markers import marker_limits
from .profile_tests import ProfileGate


@pytest.fixture(scope="session")
def trtgate_case(request: pytest.FixtureRequest) -> Case:
    """The case of the test: a model under settings."""
    return request.config.stash[RUN].catalogue.cases[request.param]


@pytest.fixture(scope="session")
def compiled(request: pytest.FixtureRequest, trtgate_case: Case) -> Generator[BuiltCase]:
    """The case, built once for all tests of it when the first asks, compared with eager, its artifact stored."""
    built = BuiltCase(trtgate_case, request.config.stash[RUN])
    yield built
    built.free()


@pytest.fixture
def coverage_gate(request: pytest.FixtureRequest) -> CoverageGate:
    """Ask for the coverage of a case and judge it: `coverage_gate(trtgate_case)`."""
    return CoverageGate(request.config.stash[RUN], request.node)


@pytest.fixture
def latency_gate(request: pytest.FixtureRequest) -> LatencyGate:
    """Measure and judge the case: `latency_gate(benchmark, compiled)`."""
    return LatencyGate(request.config.stash[RUN], request.node, marker_limits(request.node))


@pytest.fixture
def profile_gate(request: pytest.FixtureRequest) -> ProfileGate:
    """Profile the case and judge its layers: `profile_gate(compiled)`."""
    return ProfileGate(request.config.stash[RUN], request.node)
