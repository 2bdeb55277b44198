"""Tests of cases, among all tests of a run: which case one is of, and of which kind it is."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest


@dataclass
class TestsOfKind:
    """The cases that a run has tests of one kind for: made, then left out by a filter, or called."""

    made: set[str] = field(default_factory=set)
    deselected: set[str] = field(default_factory=set)
    called: set[str] = field(default_factory=set)


def case_id_of(item: pytest.Item) -> str | None:
    """Return the case of a test; None where it is of none."""
    callspec = getattr(item, "callspec", None)
    case_id = None if callspec is None else callspec.params.get("trtgate_case")
    return case_id if isinstance(case_id, str) else None  # pytest's placeholder where there is no case


def is_placeholder(item: pytest.Item) -> bool:
    """Whether pytest made this test because no case is of its kind, such as coverage where nothing goes to TensorRT."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and "trtgate_case" in callspec.params and case_id_of(item) is None


def is_latency(item: pytest.Item) -> bool:
    """Whether it measures the latency of a case."""
    return case_id_of(item) is not None and "latency_gate" in getattr(item, "fixturenames", ())


def is_accuracy(item: pytest.Item) -> bool:
    """Whether it asks whether the output of a case is right, and nothing else."""
    return case_id_of(item) is not None and item.get_closest_marker("trtgate_accuracy") is not None


def is_profile(item: pytest.Item) -> bool:
    """Whether it profiles a case."""
    return "profile_gate" in getattr(item, "fixturenames", ())


def needs_a_build(item: pytest.Item) -> bool:
    """Whether any build of the case will do: a profile is taken where its own was built."""
    return case_id_of(item) is not None and "compiled" in getattr(item, "fixturenames", ()) and not is_profile(item)


def is_coverage(item: pytest.Item) -> bool:
    """Whether it asks for the coverage of a case."""
    return "coverage_gate" in getattr(item, "fixturenames", ())
