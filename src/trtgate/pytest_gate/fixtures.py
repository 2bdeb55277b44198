"""The fixtures: registered with the hooks, where a suite is named."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from ..cases import Case
from .built_case import BuiltCase, build
from .coverage_tests import CoverageGate
from .latency_gate import TIMER, LatencyGate
from .markers import marker_limits
from .run import RUN


@pytest.fixture(scope="session")
def trtgate_case(request: pytest.FixtureRequest) -> Case:
    """The case of the test: a model under settings."""
    return request.config.stash[RUN].catalogue.cases[request.param]


@pytest.fixture(scope="session")
def compiled(request: pytest.FixtureRequest, trtgate_case: Case) -> Generator[BuiltCase]:
    """The case built once for all tests of it, compared with eager, its artifact stored for the workers."""
    run = request.config.stash[RUN]
    with run.progress(trtgate_case.id) as step:
        built = build(trtgate_case, run.gate, step)
    if built.inference is not None and built.inference.compiled.coverage is not None:
        run.coverage_of_builds[trtgate_case.id] = built.inference.compiled.coverage
    yield built
    built.free()


@pytest.fixture
def coverage_gate(request: pytest.FixtureRequest) -> CoverageGate:
    """Ask for the coverage of a case and judge it: `coverage_gate(trtgate_case)`."""
    return CoverageGate(request.config.stash[RUN], request.node)


@pytest.fixture
def latency_gate(request: pytest.FixtureRequest) -> LatencyGate:
    """Measure and judge the case: `latency_gate(benchmark, compiled)`."""
    return LatencyGate(request.config.stash[RUN], request.node.stash[TIMER], marker_limits(request.node))
