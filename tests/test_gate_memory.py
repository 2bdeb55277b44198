"""The gate beside what it measures: what a failure of the kept compiled module does, and what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from trtgate import Case, Model, Settings
from trtgate.common.accelerator import Accelerator
from trtgate.gate.gate import Gate
from trtgate.launches.pair import BASE, CANDIDATE, Artifacts, DisturbedError, SideError
from trtgate.launches.worker_handle import LaunchError

CASE = Case(Model("net", lambda: None, ()), Settings(frontend="dynamo"))
BOTH = Artifacts(base=None, candidate=None)


def confirmed(patch: pytest.MonkeyPatch, error: LaunchError) -> tuple[dict[str, Any], list[str]]:
    """Confirm beside a kept module where measuring ends with an error; returns (what was said, the lines)."""

    class Beside(Gate):
        def __init__(self) -> None:
            self.lines = []
            self.cases_collected = [CASE]
            self.accelerator = Accelerator(kind="gpu", name="test")

        def pairs(self) -> Any:
            return None

    def fails(*_arguments: Any) -> Any:
        raise error

    patch.setattr("trtgate.gate.gate.confirmed", fails)
    gate = Beside()
    return gate._confirmed_beside_kept(CASE, BOTH, ["device"], lambda _step: None), gate.lines


@pytest.mark.parametrize("error", [SideError(BASE, "can't be loaded"), DisturbedError("blocks do not count")])
def test_a_kept_module_that_fails_leaves_the_stored_comparison(
    monkeypatch: pytest.MonkeyPatch, error: LaunchError
) -> None:
    said, (line,) = confirmed(monkeypatch, error)
    assert said == {}
    assert CASE.id in line
    assert str(error) in line


def test_a_candidate_that_fails_is_its_own_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SideError, match="crashed"):
        confirmed(monkeypatch, SideError(CANDIDATE, "crashed"))
