"""The fixtures: registered with the hooks, where a suite is named."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from ..cases import Case
from .built_case import BuiltCase, build
from .hooks import PLUGIN
from .latency_gate import TIMER, LatencyGate


@pytest.fixture(scope="session")
def trtgate_case(request: pytest.FixtureRequest) -> Case:
    """The case of the test: a model under settings."""
    return request.config.stash[PLUGIN].suite.cases[request.param]


@pytest.fixture(scope="session")
def compiled(request: pytest.FixtureRequest, trtgate_case: Case) -> Generator[BuiltCase]:
    """The case built once for all tests of it, compared with eager, its artifact stored for the workers."""
    plugin = request.config.stash[PLUGIN]
    with plugin.progress(trtgate_case.id) as step:
        built = build(trtgate_case, plugin.gate, step)
    yield built
    built.free()


@pytest.fixture
def latency_gate(request: pytest.FixtureRequest) -> LatencyGate:
    """Measure and judge the case: `latency_gate(benchmark, compiled)`."""
    return LatencyGate(request.config.stash[PLUGIN], request.node.stash[TIMER])
