"""Where the seconds of a run go: each is counted once, as the kind of work that the run's thread does."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from trtgate.common import spent_time
from trtgate.common.spent_time import SpentTime, Work, during
from trtgate.gate import driver, measurers
from trtgate.gate.measurement_summary import figures
from trtgate.gate.policy import Conclude, Measure, MeasureFresh, MeasureHost, Pair, Rebuild, Reload, Step
from trtgate.launches.worker_handle import LaunchError
from trtgate.pytest_plugin.run_document import spent_s
from trtgate.records.measurement import Capture, CaseMeasurement, Launch, Loaded, Turn
from trtgate.report import html, run_report
from trtgate.timing import device_lock

from .in_process import RECORD, InProcess, ScriptedSession
from .test_run_report import case, made


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def take(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spent(clock: Clock) -> Iterator[SpentTime]:
    spent = spent_time.begin(clock)
    yield spent
    spent_time.end(spent)


def test_kinds_and_the_rest_add_up_to_the_run(clock: Clock, spent: SpentTime) -> None:
    clock.take(0.5)
    for _ in range(2):
        with during(Work.LOADING):
            clock.take(2.0)
    with during(Work.MEASURING):
        clock.take(3.0)
    assert spent.by_kind(spent.total_s) == {"loading": 4.0, "measuring": 3.0, "rest": 0.5}
    assert spent.total_s == 7.5
    assert (spent.of(Work.LOADING), spent.of(Work.PROFILING)) == (4.0, 0.0)


def test_kinds_are_named_in_the_order_of_a_run_and_those_that_took_no_time_are_left_out(
    clock: Clock, spent: SpentTime
) -> None:
    for kind in (Work.MEASURING, Work.STARTING, Work.COLLECTING):
        with during(kind):
            clock.take(1.0)
    with during(Work.WAITING):
        pass
    assert list(spent.by_kind(spent.total_s)) == ["collecting", "starting", "measuring"]


def test_work_inside_other_work_is_counted_once_as_the_outer(clock: Clock, spent: SpentTime) -> None:
    with during(Work.CONFIRMING):
        clock.take(1.0)
        with during(Work.LOADING):
            clock.take(2.0)
        clock.take(1.0)
    with during(Work.LOADING):
        clock.take(0.5)
    assert spent.by_kind(spent.total_s) == {"loading": 0.5, "confirming": 4.0}


def test_work_that_fails_took_its_time(clock: Clock, spent: SpentTime) -> None:
    def fail() -> None:
        with during(Work.LOADING):
            clock.take(2.0)
            raise LaunchError("the worker was killed")

    with pytest.raises(LaunchError):
        fail()
    with during(Work.MEASURING):
        clock.take(1.0)
    assert spent.by_kind(spent.total_s) == {"loading": 2.0, "measuring": 1.0}


def test_what_other_threads_do_meanwhile_is_not_counted(clock: Clock, spent: SpentTime) -> None:
    def load() -> None:
        with during(Work.LOADING):
            clock.take(2.0)

    with during(Work.BUILDING_AHEAD):
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
    assert spent.by_kind(spent.total_s) == {"building_ahead": 2.0}


def test_a_run_inside_a_run_has_its_own_seconds_and_gives_the_outer_its_place_back(
    clock: Clock, spent: SpentTime
) -> None:
    inner = spent_time.begin(clock)
    with during(Work.MEASURING):
        clock.take(1.0)
    spent_time.end(inner)
    spent_time.end(inner)  # as a run does that ends twice
    with during(Work.LOADING):
        clock.take(2.0)
    assert inner.by_kind(inner.total_s)["measuring"] == 1.0
    assert spent.by_kind(spent.total_s) == {"loading": 2.0, "rest": 1.0}


def test_where_no_run_counts_work_goes_on() -> None:
    with during(Work.MEASURING):
        pass


def test_a_line_has_what_rounds_to_something(clock: Clock, spent: SpentTime) -> None:
    with during(Work.BUILDING_AHEAD):
        clock.take(13.62)
    with during(Work.PROFILING):
        clock.take(0.04)
    clock.take(3.1)
    assert spent_time.sentence(spent.by_kind(spent.total_s)) == "building ahead 13.6 s, rest 3.1 s"
    assert spent_time.sentence({}) == ""


# Who counts


def test_who_waits_for_the_device_counts_it_as_waiting_and_not_what_it_does_there(
    clock: Clock, spent: SpentTime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    asked = iter([True, False, False, True])  # of the queue, then of the lock
    monkeypatch.setattr(device_lock, "try_lock", lambda *_, **__: next(asked))
    monkeypatch.setattr(device_lock.time, "sleep", clock.take)
    with device_lock.device_turn("cpu", 60.0, lambda _: None), during(Work.MEASURING):
        clock.take(5.0)
    assert spent.by_kind(spent.total_s) == {"measuring": 5.0, "waiting": pytest.approx(2 * device_lock.POLL_S)}


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (Measure(), "measuring"),
        (MeasureHost(), "measuring"),
        (MeasureFresh(further=True), "measuring"),
        (MeasureFresh(further=False), "confirming"),
        (Rebuild(pairs_next=False), "confirming"),
        (Reload(), "confirming"),
        (Pair(count=2, metrics=("device",)), "confirming"),
    ],
)
def test_all_that_a_suspicion_asks_for_is_confirming(
    clock: Clock, spent: SpentTime, monkeypatch: pytest.MonkeyPatch, step: Step, kind: str
) -> None:
    class Situation(msgspec.Struct):
        evidence: Any = None
        beside_base: bool = False

    def done(*_: Any) -> None:
        with during(Work.MEASURING):
            clock.take(1.0)

    steps = iter([step, Conclude(result=None)])  # type: ignore[arg-type]
    monkeypatch.setattr(driver, "next_step", lambda _: next(steps))
    monkeypatch.setattr(driver, "_done", done)
    driver.gather(Situation(), None, lambda _: None)  # type: ignore[arg-type]
    assert spent.by_kind(spent.total_s) == {kind: 1.0}


# A run


COMPARE = ("suite.py", "--trtgate-launches=1", "--benchmark-compare", "-p", "no:randomly", "--trtgate-report=run.json")


class WorkingSession(ScriptedSession):
    """Says what it does, as a real one."""

    def build(self, request: Any, step: Any) -> Any:
        with during(Work.BUILDING):
            return super().build(request, step)

    def measure(self, case_id: str, *others: Any) -> Any:
        with during(Work.LOADING):
            pass
        with during(Work.MEASURING):
            return super().measure(case_id, *others)


class Looks:
    """Goes on by a second with each look, so that each piece of work takes one."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


@pytest.fixture
def looked(here: InProcess, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """A checkout with a baseline, whose runs have a clock that goes on with each look."""
    assert here.run(*RECORD)[0] == 0
    monkeypatch.setattr(measurers, "Session", WorkingSession)
    begin = spent_time.begin
    monkeypatch.setattr(spent_time, "begin", lambda: begin(Looks()))
    return here


def test_a_run_tells_where_its_seconds_went(looked: InProcess) -> None:
    status, said = looked.run(*COMPARE, "-v")
    assert status == 0, said
    found = run_report.read(looked.path / "run.json")
    kinds = {name: seconds for name, seconds in found.spent_s.items() if name not in ("rest", "waiting", "starting")}
    assert kinds == {"collecting": 1.0, "building": 2.0, "loading": 2.0, "measuring": 2.0}
    assert sum(found.spent_s.values()) == found.seconds
    (line,) = [line for line in said.splitlines() if line.startswith("time: ")]
    assert re.fullmatch(
        r"time: collecting 1.0 s, .*building 2.0 s, loading 2.0 s, measuring 2.0 s, rest [\d.]+ s", line
    )


def test_the_line_is_for_who_asks_for_more(looked: InProcess) -> None:
    assert "time: " not in looked.run(*COMPARE)[1]


def test_a_run_counts_no_more_when_it_has_ended(looked: InProcess) -> None:
    looked.run(*COMPARE)
    assert not [run for run in spent_time._THREAD.runs if isinstance(run._clock, Looks)]


@pytest.mark.parametrize(
    ("devices", "here", "plugins"), [(2, True, ()), (1, False, ()), (1, True, ("dsession",))], ids=str
)
def test_where_devices_or_processes_work_side_by_side_nothing_is_added_up(
    spent: SpentTime, clock: Clock, devices: int, here: bool, plugins: Sequence[str]
) -> None:
    def run(devices: int, *, here: bool, plugins: Sequence[str]) -> Any:
        manager = SimpleNamespace(has_plugin=plugins.__contains__)
        return SimpleNamespace(
            accelerators=[None] * devices, devices=SimpleNamespace(here=here), spent=spent,
            config=SimpleNamespace(pluginmanager=manager),
        )  # fmt: skip

    clock.take(1.0)
    assert spent_s(run(devices, here=here, plugins=plugins), 1.0) == {}
    assert spent_s(run(1, here=True, plugins=()), 1.0) == {"rest": 1.0}


def test_the_page_of_a_report_says_it_where_it_is_known() -> None:
    page = html.render(made(case("a"), spent_s={"building_ahead": 13.6, "rest": 3.1}))
    assert '<p class="quiet">time: building ahead 13.6 s, rest 3.1 s</p>' in page
    assert "time: " not in html.render(made(case("a"))).partition("<main>")[0]


def test_a_case_has_the_seconds_of_its_launches_turns() -> None:
    def turn(seconds: float) -> Turn:
        return Turn(clock="cuda_graph", captures=[Capture(blocks_us=[1.0], replays=1)], host_us=[], seconds=seconds)

    launches = [Launch(loaded=Loaded(seconds=load_s), turns=[turn(1.5)]) for load_s in (2.0, 3.0, 7.0)]
    found = figures(CaseMeasurement(case_id="a", launches=launches, seconds=12.0))
    assert (found["load_s"], found["turns_s"], found["measure_s"]) == (3.0, 4.5, 12.0)
