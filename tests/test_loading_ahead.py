"""Which case workers load together with the one that is measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trtgate.accelerator import GIB, Accelerator
from trtgate.prebuild import Prebuilt
from trtgate.pytest_gate import loading_ahead
from trtgate.records import Build

H100 = Accelerator(kind="gpu", name="H100", memory_bytes=80 * GIB)


class Item:
    def __init__(self, *marks: str) -> None:
        self._marks = marks

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self._marks else None


def run_of(*, prebuild: int | None = 8, launches: int = 3, base: str | None = None, cards: Any = (H100,)) -> Any:
    return SimpleNamespace(
        options=SimpleNamespace(prebuild=prebuild, launches=launches, base=base),
        accelerators=list(cards), accelerator=cards[0], gate=SimpleNamespace(loads_ahead=False), latency_tests=[],
        prebuilt={
            "built": Prebuilt(case_id="built", build=Build(build_s=1.0), artifact=Path("artifact")),
            "eager": Prebuilt(case_id="eager", build=Build(build_s=0.0)),
            "broken": Prebuilt(case_id="broken", problem="it is broken"),
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, True),
        ({"prebuild": 6}, True),
        ({"prebuild": 5}, False),
        ({"prebuild": None}, False),
        ({"prebuild": 8, "launches": 5}, False),
        ({"base": "HEAD"}, False),
        ({"cards": (H100, H100)}, False),
        ({"cards": (Accelerator(kind="cpu", name="cpu", cpus=64),)}, False),
        ({"prebuild": 0, "cards": (Accelerator(kind="gpu", name="T4", memory_bytes=15 * GIB),)}, False),
    ],
)
def test_cases_are_loaded_ahead_where_there_is_room_for_twice_the_workers(given: Any, wanted: bool) -> None:
    run = run_of(**given)
    loading_ahead.plan(run, [(Item(), "built")])  # type: ignore[list-item]
    assert run.gate.loads_ahead == wanted
    assert bool(run.latency_tests) == wanted


def test_the_case_after_is_the_next_tests_if_it_was_built_and_will_run() -> None:
    run = run_of()
    tests: Any = [
        (Item(), "eager"), (Item(), "built"), (Item(), "broken"), (Item(), "unknown"), (Item("skip"), "built"),
        (Item(), None), (Item(), "eager"),
    ]  # fmt: skip
    loading_ahead.plan(run, tests)
    found = [loading_ahead.after(run, test) for test, _ in tests]
    assert found == [("built", Path("artifact")), None, None, None, None, ("eager", None), None]
    assert loading_ahead.after(run, Item()) is None  # type: ignore[arg-type]
