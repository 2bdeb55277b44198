"""Which case workers load together with the one that is measured."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trtgate.common import machine
from trtgate.common.accelerator import GIB, Accelerator
from trtgate.launches.pair import Artifacts, NextPair
from trtgate.launches.prebuild import Prebuilt
from trtgate.pytest_plugin import devices, loading_ahead
from trtgate.records.measurement import Build

H100 = Accelerator(kind="gpu", name="H100", memory_bytes=80 * GIB)


class Item:
    def __init__(self, *marks: str) -> None:
        self._marks = marks

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self._marks else None


def run_of(*, prebuild: int | None = 8, launches: int = 3, base: str | None = None, cards: Any = (H100,)) -> Any:
    return SimpleNamespace(
        options=SimpleNamespace(prebuild=prebuild, launches=launches, base=base, builds_in_turn=False),
        accelerators=list(cards), accelerator=cards[0], cases_at_once=1, latency_tests=[],
        prebuilt={
            "built": Prebuilt(case_id="built", build=Build(build_s=1.0), artifact=Path("artifact")),
            "eager": Prebuilt(case_id="eager", build=Build(build_s=0.0)),
            "broken": Prebuilt(case_id="broken", problem="it is broken"),
        },
        prebuilt_of_base={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, 4),
        ({"cpus": 64}, 4),
        ({"cpus": 11}, 3),
        ({"cpus": 8}, 2),
        ({"cpus": 4}, 2),
        ({"memory": 40}, 3),
        ({"prebuild": 0, "memory": 30}, 2),
        ({"prebuild": 0, "memory": 16}, 1),
        ({"launches": 1}, 4),
        ({"prebuild": 6}, 4),
        ({"prebuild": 5}, 1),
        ({"prebuild": None}, 1),
        ({"prebuild": 8, "launches": 5}, 1),
        ({"prebuild": 10, "launches": 5}, 2),
        ({"base": "HEAD"}, 4),
        ({"base": "HEAD", "launches": 5, "prebuild": 4}, 4),
        ({"base": "HEAD", "prebuild": 3}, 1),
        ({"base": "HEAD", "cpus": 6}, 3),
        ({"base": "HEAD", "prebuild": None}, 1),
        ({"cards": (H100, H100)}, 1),
        ({"cards": (H100, H100), "prebuild": 16, "cpus": 32}, 4),
        ({"cards": (H100, H100), "prebuild": 12}, 2),
        ({"cards": (H100, H100), "prebuild": None}, 1),
        ({"cards": (Accelerator(kind="cpu", name="cpu", cpus=64),)}, 1),
        ({"cards": (Accelerator(kind="gpu", name="L40S", memory_bytes=48 * GIB),)}, 2),
        ({"prebuild": 0, "cards": (Accelerator(kind="gpu", name="T4", memory_bytes=15 * GIB),)}, 1),
    ],
)
def test_as_many_cases_are_loaded_at_once_as_there_is_room_for_workers(
    given: dict[str, Any], wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus, memory = given.pop("cpus", 16), given.pop("memory", 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(cpus)))
    monkeypatch.setattr(machine, "memory_bytes", lambda: memory * GIB)
    run = run_of(**given)
    loading_ahead.plan(run, [(Item(), "built")])  # type: ignore[list-item]
    assert run.cases_at_once == wanted
    assert bool(run.latency_tests) == (wanted > 1 and len(run.accelerators) == 1)  # several have a queue


def test_the_cases_after_are_those_of_the_next_tests_that_were_built_and_will_run() -> None:
    run = run_of(prebuild=9)
    tests: Any = [
        (Item(), "eager"), (Item(), "built"), (Item(), "broken"), (Item(), "unknown"), (Item("skip"), "built"),
        (Item(), None), (Item(), "eager"), (Item(), "built"),
    ]  # fmt: skip
    loading_ahead.plan(run, tests)
    run.cases_at_once = 3
    found = [loading_ahead.after(run, test) for test, _ in tests]
    built, eager = ("built", Path("artifact")), ("eager", None)
    assert found == [[built, eager], *[[eager, built]] * 5, [built], []]
    assert loading_ahead.after(run, Item()) == []  # type: ignore[arg-type]


def test_beside_a_base_those_cases_come_after_that_both_sides_have_built() -> None:
    run = run_of(base="HEAD")
    run.prebuilt_of_base = {
        "built": Prebuilt(case_id="built", build=Build(build_s=1.0), artifact=Path("of the base")),
        "broken": Prebuilt(case_id="broken", build=Build(build_s=1.0)),
    }
    tests: Any = [(Item(), name) for name in ("eager", "broken", "built", "built")]
    loading_ahead.plan(run, tests)
    run.cases_at_once = 2
    built = NextPair("built", Artifacts(base=Path("of the base"), candidate=Path("artifact")))
    found = [loading_ahead.pairs_after(run, test) for test, _ in tests]
    assert found == [[built], [built], [built], []]


@pytest.mark.parametrize(
    ("kind", "fixture", "skipped", "wanted"),
    [
        ("gpu", "profile_gate", "", True),
        ("gpu", "latency_gate", "", False),
        ("gpu", "profile_gate", "a", False),
        ("cpu", "profile_gate", "", False),
    ],
)
def test_who_profiles_starts_with_the_others_where_a_test_will_ask_for_it(
    kind: str, fixture: str, skipped: str, wanted: bool
) -> None:
    item: Any = SimpleNamespace(fixturenames=[fixture], callspec=SimpleNamespace(params={"trtgate_case": "a"}))
    run: Any = SimpleNamespace(accelerator=SimpleNamespace(kind=kind), skip_reasons={skipped: "it lacks something"})
    assert devices.profiles(run, [item]) is wanted
