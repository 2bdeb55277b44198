"""Cases on the cards of several hosts: who builds and times when, and what a lost card means; nobody measures."""

from __future__ import annotations

import threading
import types
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest

from trtgate import Case, Model, Settings
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.common.notices import Notice
from trtgate.gate.card_jobs import CardLostError, CardState, Job
from trtgate.gate.device_workers import DeviceWorkers
from trtgate.gate.gpu_queue import GpuQueue
from trtgate.launches.prebuild import Prebuilt
from trtgate.launches.session import NextCase
from trtgate.pytest_plugin import cluster_devices
from trtgate.records.measurement import Build

LONG_S = 30.0


class Host:
    """Hosts with cards: notes who built and measured what, and fails an assertion where a host does both at once."""

    def __init__(self, **at: Callable[[str, str], None]) -> None:
        self.built: list[tuple[str, str]] = []
        self.measured: list[tuple[str, str]] = []
        self.overlaps: list[str] = []
        self.loaded: list[list[str]] = []
        """Of each case that was measured: itself, and what was to be loaded with it."""
        self._at = at
        self._now: Counter[tuple[str, str]] = Counter()
        self._guard = threading.Lock()

    def build(self, card: Any, job: Job, _step: Any) -> Prebuilt:
        self._does("building", card, job, self.built)
        return Prebuilt(case_id=job.case.id, build=Build(build_s=1.0))

    def measure(self, card: Any, job: Job, _step: Any, after: Any) -> Any:
        self.loaded.append([one.case_id.split("-")[0] for one in (NextCase(job.case.id, None), *after)])
        self._does("timing", card, job, self.measured)
        return f"{job.case.model.name} on {card.accelerator.uuid}"

    def _does(self, what: str, card: Any, job: Job, done: list[tuple[str, str]]) -> None:
        other = {"building": "timing", "timing": "building"}[what]
        with self._guard:
            self._now[card.host, what] += 1
            if self._now[card.host, other]:
                self.overlaps.append(f"{card.host}: {what} {job.case.id}")
        try:
            self._at.get(what, lambda _card, _case: None)(card.accelerator.uuid, job.case.model.name)
        finally:
            with self._guard:
                self._now[card.host, what] -= 1
        done.append((job.case.model.name, card.accelerator.uuid))


class Card:
    def __init__(self, name: str, host: str) -> None:
        self.accelerator = Accelerator(kind="gpu", name="test", uuid=name)
        self.host = host
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self.stopped.set()


def job(name: str, home: str = "", *, timed: bool = True) -> Job:
    return Job(case=Case(Model(name, lambda: None, ()), Settings(frontend="eager")), home=home, timed=timed)


def queue_of(
    host: Host, cards: list[Card], *jobs: Job, builders: int = 1, lost: Callable[[str], None] = lambda _reason: None,
    loaded_together: int = 1,
) -> GpuQueue:  # fmt: skip
    workers = cast("list[DeviceWorkers]", cards)
    named = {one.case.model.name: one for one in jobs}
    states = [CardState(card.host, builders=builders, together=loaded_together) for card in cards]
    return GpuQueue(workers, named, host.measure, host.build, states, lost)


def silent(_text: str) -> None:
    pass


def dies(*cards: str) -> Callable[[str, str], None]:
    def at(card: str, _case: str) -> None:
        if card in cards:
            raise CardLostError(f"{card} is lost: a power cut")

    return at


def test_each_case_is_measured_on_the_card_that_built_it() -> None:
    host, cards = Host(), [Card("A", "one"), Card("B", "two")]
    shared = queue_of(host, cards, *(job(f"case{n}") for n in range(8)))
    results = [shared.result(f"case{n}", silent) for n in range(8)]
    shared.close()
    assert sorted(host.built) == sorted(host.measured)
    assert sorted(map(str, results)) == sorted(f"{case} on {card}" for case, card in host.built)


@pytest.mark.parametrize("builders", [1, 3])
def test_nobody_builds_on_a_host_while_a_card_of_it_is_timed(builders: int) -> None:
    host = Host()
    cards = [Card("A", "one"), Card("B", "one"), Card("C", "two")]
    shared = queue_of(host, cards, *(job(f"case{n}") for n in range(30)), builders=builders)
    for n in range(30):
        shared.result(f"case{n}", silent)
    shared.close()
    assert host.overlaps == []
    assert len(host.measured) == 30


def test_a_card_builds_as_many_cases_at_once_as_its_host_has_room_for_and_times_one() -> None:
    at_once, timed = threading.Barrier(3), threading.Lock()

    def builds(_card: str, _case: str) -> None:
        at_once.wait(LONG_S)  # breaks unless three are built at once

    def times(_card: str, _case: str) -> None:
        assert timed.acquire(blocking=False)
        timed.release()

    host, cards = Host(building=builds, timing=times), [Card("A", "one")]
    shared = queue_of(host, cards, *(job(f"case{n}") for n in range(6)), builders=3)
    assert [str(shared.result(f"case{n}", silent)) for n in range(6)] == [f"case{n} on A" for n in range(6)]
    shared.close()


def test_cards_with_many_builders_get_as_much_to_measure_each() -> None:
    """Else the card whose threads come first would build, and then measure, all of a small suite."""
    host, cards = Host(), [Card("A", "one"), Card("B", "two")]
    home = Job(case=job("home").case, home="A", cost_s=3.0)
    others = [Job(case=job(f"case{n}").case, cost_s=1.0) for n in range(9)]
    shared = queue_of(host, cards, home, *others, builders=8)
    for one in (home, *others):
        shared.result(one.case.model.name, silent)
    shared.close()
    assert Counter(card for _, card in host.measured) == {"A": 4, "B": 6}


def test_what_a_card_has_built_when_it_is_lost_goes_elsewhere_too() -> None:
    """Of two cases that are built at once the one that is ready after the card was lost is measured by another card."""
    began, lost, at_work = threading.Event(), threading.Event(), threading.Barrier(2)

    def builds(card: str, case: str) -> None:
        if card != "A":
            assert lost.wait(LONG_S)
            return
        at_work.wait(LONG_S)
        assert began.wait(LONG_S)
        if case == "dies":
            raise CardLostError("A is lost: a power cut")
        assert wait_for(lambda: shared.cards["A"].lost)
        lost.set()

    host, cards = Host(building=builds), [Card("A", "one"), Card("B", "two")]
    told: list[str] = []
    jobs = (job("dies", "A"), job("late", "A"), job("other", "B"))
    shared = queue_of(host, cards, *jobs, builders=2, lost=told.append)
    began.set()
    assert [str(shared.result(name, silent)) for name in ("dies", "late", "other")] == [
        "dies on B", "late on B", "other on B",
    ]  # fmt: skip
    shared.close()
    assert told == ["A is lost: a power cut"]


def wait_for(so: Callable[[], object]) -> bool:
    """Wait until something is so; returns whether it is."""
    waiting = threading.Event()
    return any(so() or waiting.wait(0.01) for _ in range(int(LONG_S / 0.01)))


def test_the_cases_of_a_lost_card_go_to_others_and_are_built_there_again() -> None:
    alone = threading.Event()

    def at(card: str, case: str) -> None:
        if card == "A":
            alone.set()
            raise CardLostError("A is lost: a power cut")
        assert alone.wait(LONG_S)  # so that A is lost with a case of its own

    host, cards = Host(timing=at), [Card("A", "one"), Card("B", "two")]
    shared = queue_of(host, cards, job("home", "A"), job("other", "B"))
    assert [str(shared.result(name, silent)) for name in ("home", "other")] == ["home on B", "other on B"]
    shared.close()
    assert ("home", "A") in host.built
    assert ("home", "B") in host.built
    assert sorted(host.measured) == [("home", "B"), ("other", "B")]
    assert shared.cards["A"].lost == "A is lost: a power cut"


def test_what_a_card_was_to_load_with_its_case_goes_elsewhere_when_it_is_lost() -> None:
    host, cards = Host(timing=dies("A")), [Card("A", "one"), Card("B", "two")]
    jobs = (*(job(f"case{number}", "A") for number in range(4)), job("other", "B"))
    shared = queue_of(host, cards, *jobs, loaded_together=4)
    found = {one.case.model.name: str(shared.result(one.case.model.name, silent)) for one in jobs}
    shared.close()
    assert found == {name: f"{name} on B" for name in found}
    assert ["case0", "case1", "case2", "case3"] in host.loaded  # on A
    assert shared.progress == (5, 5)


def test_a_case_whose_second_card_is_lost_too_fails_with_both_reasons() -> None:
    cards = [Card("A", "one"), Card("B", "two"), Card("C", "three")]
    host = Host(building=dies("A", "B"))
    first, second = job("first", "A"), job("second", "B")
    shared = queue_of(host, cards, first, second, job("third", "C"))
    assert str(shared.result("third", silent)) == "third on C"
    results = []
    for name in ("first", "second"):
        try:
            results.append(str(shared.result(name, silent)))
        except TrtgateError as error:
            results.append(str(error))
    shared.close()
    for name, said in zip(("first", "second"), results, strict=True):  # each was lost once, or twice
        assert said == f"{name} on C" or said.count("is lost: a power cut") == 2


def test_where_no_card_is_left_every_case_fails_with_the_reason() -> None:
    host, cards = Host(building=dies("A")), [Card("A", "one")]
    shared = queue_of(host, cards, *(job(f"case{n}") for n in range(3)))
    for n in range(3):
        with pytest.raises(TrtgateError, match=f"case{n}-eager-fp32: A is lost: a power cut; no card is left"):
            shared.result(f"case{n}", silent)
    shared.close()
    assert shared.progress == (3, 3)


def test_the_end_of_a_run_names_the_first_devices_that_were_lost_in_one_line() -> None:
    run, before = types.SimpleNamespace(notices=[]), list[str]()
    for number in range(5):
        cluster_devices._tell_lost(cast("Any", run), before, f"card {number} is lost: x")
        run.notices.append(Notice(f"another {number}"))
    first, *others = run.notices
    assert str(first.text).startswith(
        "card 0 is lost: x; card 1 is lost: x; card 2 is lost: x; and 2 more: cases of a lost device went to others"
    )
    assert [one.text for one in others] == [f"another {number}" for number in range(5)]


def test_what_is_only_to_be_built_is_not_measured_and_tells_what_building_gave() -> None:
    host, cards = Host(), [Card("A", "one")]
    shared = queue_of(host, cards, job("built", timed=False))
    assert shared.built("built-eager-fp32", silent).build == Build(build_s=1.0)
    assert shared.card_of("built-eager-fp32") is cards[0]
    shared.close()
    assert host.measured == []


def test_a_case_that_can_not_be_built_fails_and_the_next_one_is_done() -> None:
    class Wrong(Host):
        def build(self, card: Any, job: Job, step: Any) -> Prebuilt:
            made = super().build(card, job, step)
            return Prebuilt(case_id=made.case_id, problem="bad: no") if job.case.model.name == "bad" else made

    host, cards = Wrong(), [Card("A", "one")]
    shared = queue_of(host, cards, job("bad"), job("good"))
    with pytest.raises(TrtgateError, match="bad: no"):
        shared.result("bad", silent)
    assert shared.built("bad-eager-fp32", silent).problem == "bad: no"
    assert str(shared.result("good", silent)) == "good on A"
    shared.close()
