"""The tests of every case. The plugin collects them for a user's suite; `benchmarks/` here imports them by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..suite.cases import Case
    from .built_case import BuiltCase
    from .coverage_tests import CoverageGate
    from .latency_tests import LatencyGate
    from .profile_tests import ProfileGate


@pytest.mark.trtgate_accuracy
def test_accuracy(compiled: BuiltCase) -> None:
    """Each tensor of the output equals eager's within its tolerance, at the first call and at the second."""
    compiled.check_accuracy()


@pytest.mark.trtgate_coverage
def test_coverage(trtgate_case: Case, coverage_gate: CoverageGate) -> None:
    """Torch-TensorRT takes what it took when its coverage was stored: no operator lost, no more engines or breaks."""
    coverage_gate(trtgate_case)


@pytest.mark.trtgate_latency
def test_latency(benchmark: Any, compiled: BuiltCase, latency_gate: LatencyGate) -> None:
    """The case is right, and not slower than its stored baseline."""
    latency_gate(benchmark, compiled)


@pytest.mark.trtgate_profile
def test_profile(compiled: BuiltCase, profile_gate: ProfileGate) -> None:
    """The profile holds every engine, layer by layer, adds up, and has the layers of the stored one."""
    profile_gate(compiled)
