"""Pairs of workers, for real, on a CPU: they take turns, a failure is laid at the right side's door, nothing stays."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import psutil
import pytest

from trtgate.common import machine, spent_time
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import is_fault
from trtgate.common.metrics import DEVICE, ENQUEUE, HOST
from trtgate.common.run_folder import RunFolder
from trtgate.gate import base_measurer
from trtgate.gate.base_measurer import BaseMeasurer
from trtgate.gate.paired_gate import PairedGate, Suspicion
from trtgate.gate.policy import Pair as PairStep
from trtgate.gate.policy import Rebuild
from trtgate.launches import pair_session
from trtgate.launches.comparison_side import Side
from trtgate.launches.pair import BASE, CANDIDATE, Artifacts, DisturbedError, NextPair, Pair, SideError
from trtgate.launches.pair_memory import PairMemory
from trtgate.launches.pair_session import PairSession
from trtgate.launches.prebuild import Prebuilt
from trtgate.launches.worker_handle import KilledError
from trtgate.launches.worker_pool import WorkerPool
from trtgate.records.measurement import Build, Capture, Quadruple, Turn
from trtgate.suite.suite_source import SuiteSource
from trtgate.timing.plans import PAIR_ON_CPU, Plan
from trtgate.verdict import LOOKS, SCREENING_LOOKS, Verdict

from .suites import SCRIPTED_TIME

SUITE = """
import os, sys, time
import torch
import trtgate

{SCRIPTED_TIME}

class Odd(torch.nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act = act
    def forward(self, x):
        self.act()
        return x

def one(name, act):
    return trtgate.Model(name, lambda: (Odd(act).eval(), torch.zeros(4)), trtgate.grid(["eager"]))

def broken():
    raise ValueError("first line\\nsecond line")

def fine():
    pause(0.002)
""".replace("{SCRIPTED_TIME}", SCRIPTED_TIME)
BASE_MODELS = """
MODELS = [one(name, fine) for name in ("fine", "slow", "crashes", "hangs", "raises", "dies", "gone")]
"""
CANDIDATE_MODELS = """
class Dies(Odd):
    def __del__(self):
        os._exit(9)

DIES = Dies(fine).eval()  # a case's copy of it dies when it is unloaded

MODELS = [
    one("fine", fine),
    one("slow", lambda: pause(0.02)),
    one("crashes", lambda: os._exit(7)),
    one("hangs", lambda: time.sleep(1000)),
    one("raises", broken),
    trtgate.Model("dies", lambda: (DIES, torch.zeros(4)), trtgate.grid(["eager"])),
]
"""
CPU = Accelerator(kind="cpu", name="test", cpus=1)
BUILT = Artifacts(base=None, candidate=None)
FINE, SLOW = "fine-eager-fp32", "slow-eager-fp32"
TIMEOUT_S = 60.0
pytestmark = pytest.mark.usefixtures("module_forked")


def no_step(_text: str) -> None: ...


def tenth(_metric: str) -> float:
    return 0.1


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Side]:
    """Two copies of the code; most of the candidate's models do something else than the base's."""
    made = {}
    for name, models in ((BASE, BASE_MODELS), (CANDIDATE, CANDIDATE_MODELS)):
        folder = tmp_path_factory.mktemp(name)
        (folder / "odd_suite.py").write_text(SUITE + models)
        made[name] = Side(name=name, source=SuiteSource(root=str(folder), suites=("odd_suite.py",)))
    return made


@pytest.fixture(scope="module")
def session(sides: dict[str, Side], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PairSession]:
    patch = pytest.MonkeyPatch()
    patch.setenv("TRTGATE_LOCK_DIR", str(tmp_path_factory.mktemp("locks")))
    made = PairSession(sides[BASE], sides[CANDIDATE], CPU, tmp_path_factory.mktemp("logs"), timeout_s=TIMEOUT_S)
    yield made
    made.resident()
    pids = [pid for pair in made._pairs for pid in pids_of(pair)]
    made.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    patch.undo()


def pids_of(pair: Pair) -> list[int]:
    return [worker.pid for worker in pair.workers.values()]


def quadruples(count: int) -> Callable[[Pair], bool]:
    return lambda pair: len(pair.quadruples) >= count


def note_turns(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> list[str]:
    """Return a list that grows by the side of every turn of a quadruple."""
    order: list[str] = []
    original = pair._turn

    def turn(name: str, plan: Plan, rng: random.Random) -> Turn:
        if plan.cpu is not None:
            order.append(name)
        return original(name, plan, rng)

    monkeypatch.setattr(pair, "_turn", turn)
    return order


def test_quadruples_are_measured_in_turns_that_cancel_a_drift(
    session: PairSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = session.load_resident(FINE, BUILT)
    order = note_turns(monkeypatch, pair)
    session.measure(pair, quadruples(4), no_step)
    abba, baab = [BASE, CANDIDATE, CANDIDATE, BASE], [CANDIDATE, BASE, BASE, CANDIDATE]
    visits = [order[at : at + 4] for at in range(0, len(order), 4)]
    assert len(visits) == 4 * PAIR_ON_CPU.turns
    of_quadruples = [visits[at : at + PAIR_ON_CPU.turns] for at in range(0, len(visits), PAIR_ON_CPU.turns)]
    assert [of in ([abba] * PAIR_ON_CPU.turns, [baab] * PAIR_ON_CPU.turns) for of in of_quadruples] == [True] * 4
    assert [(len(found.base), len(found.candidate)) for found in pair.quadruples] == [(2, 2)] * 4
    for side in (BASE, CANDIDATE):
        measured = pair.measurement(FINE, side)
        assert (measured.clock, measured.primary) == ("host_mean", HOST)
        assert [len(turn.captures[0].blocks_us) for turn in measured.launches[0].turns] == [PAIR_ON_CPU.turns] * 8
        assert all(us >= 2000 for us in measured.blocks_us())
        assert all(turn.canary_us for turn in measured.launches[0].turns)


def test_both_orders_occur(session: PairSession, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = session.resident()
    first: list[str] = []

    def turn(name: str, _plan: Plan, _rng: random.Random) -> Turn:
        first.append(name)
        return Turn(clock=name, captures=[Capture(blocks_us=[float(len(first))], replays=1)], host_us=[])

    monkeypatch.setattr(pair, "_turn", turn)
    rng = random.Random(0)
    found = [pair.quadruple(rng) for _ in range(20)]
    for quadruple in found:
        assert [one.clock for one in (*quadruple.base, *quadruple.candidate)] == [BASE] * 2 + [CANDIDATE] * 2
        blocks = [us for one in (*quadruple.base, *quadruple.candidate) for us in one.captures[0].blocks_us]
        assert len(set(blocks)) == len(blocks) == 4 * PAIR_ON_CPU.turns
    assert set(first[:: 4 * PAIR_ON_CPU.turns]) == {BASE, CANDIDATE}
    pair.quadruples = []


def test_a_case_without_engines_is_not_profiled_and_the_next_pair_is_fresh(session: PairSession) -> None:
    with pytest.raises(SideError, match="only TensorRT's frontends are profiled") as caught:
        session.profile(FINE, BUILT, no_step)
    assert caught.value.side == BASE
    session.load_resident(FINE, BUILT).unload()


def test_a_pair_that_waits_is_profiled_and_ends_with_it(sides: dict[str, Side], tmp_path: Path) -> None:
    """It has imported: another would take ten seconds on a GPU's host."""
    session = PairSession(sides[BASE], sides[CANDIDATE], CPU, tmp_path, timeout_s=TIMEOUT_S, reuse=True)
    try:
        waiting = session.take(1, {FINE})
        session.put_back(waiting)
        with pytest.raises(SideError, match="only TensorRT's frontends are profiled"):
            session.profile(FINE, BUILT, no_step)
        assert (session._started, session._pairs, session._idle) == (1, [], [])
    finally:
        session.close()


def test_a_case_is_loaded_again_by_a_pair_that_has_not_had_it_and_stays(sides: dict[str, Side], tmp_path: Path) -> None:
    session = PairSession(sides[BASE], sides[CANDIDATE], CPU, tmp_path, timeout_s=TIMEOUT_S, cases_at_once=2)
    try:
        measured = session.load_resident(FINE, BUILT)
        session.unload(measured)
        assert session.load_fresh(FINE, BUILT).keys() == {BASE, CANDIDATE}
        (other,) = (pair for pair in session._residents if pair is not measured)
        assert (session._started, other.cases) == (2, {FINE})
        session.load_fresh(FINE, BUILT)  # nobody is left who has not had it
        assert (session._started, session._pairs) == (3, [measured, other])
    finally:
        session.close()


def test_a_pair_that_holds_a_case_for_later_does_not_load_another_again(sides: dict[str, Side], tmp_path: Path) -> None:
    session = PairSession(sides[BASE], sides[CANDIDATE], CPU, tmp_path, timeout_s=TIMEOUT_S, cases_at_once=2)
    try:
        session.unload(session.load_resident(FINE, BUILT, [NextPair(SLOW, BUILT)]))
        session.load_fresh(FINE, BUILT)
        assert (session._started, session._ahead[SLOW].cases) == (3, {SLOW})
    finally:
        session.close()


def test_a_session_that_is_closed_leaves_no_process_that_uses_the_gpu(tmp_path: Path, sides: dict[str, Side]) -> None:
    """Its own switcher of contexts has a context, too: it would stay while whoever closed the session goes on."""
    session, ended = PairSession(sides[BASE], sides[CANDIDATE], CPU, tmp_path, timeout_s=TIMEOUT_S), list[str]()
    switcher: Any = SimpleNamespace(close=lambda: ended.append("switcher"))
    session._pool._switcher = switcher
    session.close()
    assert (ended, session._pairs) == (["switcher"], [])


def test_all_workers_are_told_to_end_before_one_is_waited_for(tmp_path: Path) -> None:
    """A process that has a GPU takes a while to end; one that the pool does not have any more is left alone."""
    pool, done = WorkerPool(CPU, tmp_path, timeout_s=TIMEOUT_S), list[str]()

    def worker(name: str) -> Any:
        return SimpleNamespace(stop=lambda: done.append(f"stop {name}"), kill=lambda: done.append(f"kill {name}"))

    first, second, stays, gone = map(worker, ("first", "second", "stays", "gone"))
    pool._workers = [first, second, stays]
    pool.end(first, second, gone)
    assert (done, pool._workers) == (["stop first", "stop second", "kill first", "kill second"], [stays])


def test_each_side_profiles_what_is_stored_of_it() -> None:
    asked: dict[str, Any] = {}

    class Worker:
        def __init__(self, name: str) -> None:
            self.name = name

        def greet(self) -> None: ...

        def ask(self, request: Any, *_: Any) -> Any:
            asked[self.name] = request.artifact
            return SimpleNamespace(profile=f"profile of the {self.name}")

    pair = Pair(Worker(BASE), Worker(CANDIDATE), gpu=True)  # type: ignore[arg-type]
    found = pair.profile(FINE, Artifacts(base=Path("/stored"), candidate=None))
    assert found == {BASE: "profile of the base", CANDIDATE: "profile of the candidate"}
    assert asked == {BASE: "/stored", CANDIDATE: None}


def test_a_side_knows_whether_the_other_one_was_at_work_since_its_last_turn_of_the_device() -> None:
    """Also with host latency, which both sides measure at the end of a quadruple."""
    asked: list[tuple[str, bool, bool]] = []

    def worker(name: str) -> Any:
        def ask(request: Any, *_: Any) -> Any:
            plan = request.plan
            asked.append((name, bool(plan.captures), plan.after_other))
            captures = [Capture(blocks_us=[1.0], replays=1)] * bool(plan.captures)
            turn = Turn(clock="cuda_graph", captures=captures, host_us=[1.0], enqueue_us=[1.0])
            return SimpleNamespace(turn=turn)

        return SimpleNamespace(ask=ask)

    pair, rng = Pair(worker(BASE), worker(CANDIDATE), gpu=True), random.Random(0)
    pair.warm_up(rng)
    for _ in range(6):
        pair.quadruple(rng)
    other_since = {BASE: True, CANDIDATE: True}
    for side, captures, after_other in asked:
        assert after_other == other_since[side] or not captures
        other_since = {name: name != side or (was and not captures) for name, was in other_since.items()}
    assert sum(captures for _, captures, _ in asked) == 2 + 6 * 4


@pytest.mark.parametrize(
    ("host_us", "visits", "alone"), [(100.0, 4, 16), (10_000.0, 4, 16), (25_000.0, 1, 6), (1e6, 1, 1)]
)
def test_what_the_host_takes_on_a_gpu_is_measured_in_turns_of_its_own_on_one_cpu(
    host_us: float, visits: int, alone: int
) -> None:
    """A quadruple's device latency first, on any CPU; then short turns on one, fewer where a call takes long."""
    asked: list[tuple[str, Plan]] = []

    def worker(name: str) -> Any:
        def ask(request: Any, *_: Any) -> Any:
            plan = request.plan
            asked.append((name, plan))
            captures = [Capture(blocks_us=[50.0], replays=1)] * bool(plan.captures)
            us = [host_us] * 2 if plan.host_s else []
            return SimpleNamespace(
                turn=Turn(clock=name, captures=captures, host_us=us, enqueue_us=us, seconds=1.0 if captures else 0.1)
            )

        return SimpleNamespace(ask=ask)

    pair, rng = Pair(worker(BASE), worker(CANDIDATE), gpu=True), random.Random(0)
    pair.warm_up(rng)
    asked.clear()
    without = pair.quadruple(rng, device=False)
    assert len(asked) == 4 * alone
    assert {(plan.captures, plan.cpu) for _, plan in asked} == {(0, asked[0][1].cpu)}
    assert all(turn.host_us and not turn.captures for turn in (*without.base, *without.candidate))
    asked.clear()
    found, cpus = [], []
    for _ in range(12):
        found.append(pair.quadruple(rng))
        device, host = asked[:4], asked[4:]
        assert [name for name, _ in host] == [name for name, _ in device] * visits
        assert all(plan.captures and plan.cpu is None and not plan.host_s for _, plan in device)
        assert len({plan.cpu for _, plan in host}) == 1
        assert all(not plan.captures and plan.host_calls == 1 for _, plan in host)
        cpus.append(host[0][1].cpu)
        asked.clear()
    assert min(2, len(os.sched_getaffinity(0))) <= len(set(cpus))
    for turn in (*found[0].base, *found[0].candidate):
        assert turn.captures
        assert len(turn.host_us) == len(turn.enqueue_us) == 2 * visits
        assert turn.seconds == pytest.approx(1.0 + 0.1 * visits)


@pytest.mark.parametrize(("metrics", "device"), [((DEVICE,), True), ((HOST, ENQUEUE), False), ((DEVICE, HOST), True)])
def test_fresh_pairs_measure_no_device_latency_where_the_hosts_alone_is_suspected(
    metrics: tuple[str, ...], device: bool
) -> None:
    asked: list[dict[str, Any]] = []
    turn = Turn(clock="cuda_graph", captures=[], host_us=[1.0])
    fresh = SimpleNamespace(quadruples=[Quadruple(base=[turn] * 2, candidate=[turn] * 2)], unload=lambda: None)
    pairs = SimpleNamespace(
        take=lambda count, _cases: [fresh] * count, at_once=lambda _case: 2, load=lambda *_: None,
        put_back=lambda _pairs: None, measure=lambda *_, **given: asked.append(given),
    )  # fmt: skip
    suspicion = Suspicion(case_id=FINE, artifacts=BUILT, metrics=metrics)
    PairedGate(cast("PairSession", pairs)).measure([suspicion], 6, lambda _metric: 0.1, no_step)
    assert [one["device"] for one in asked] == [device] * 6


def test_the_turns_of_a_quadruple_on_a_cpu_keep_to_one_and_the_next_quadruple_to_any(
    session: PairSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, plans = session.resident(), list[Plan]()

    def turn(name: str, plan: Plan, _rng: random.Random) -> Turn:
        plans.append(plan)
        return Turn(clock=name, captures=[Capture(blocks_us=[1.0], replays=1)], host_us=[])

    monkeypatch.setattr(pair, "_turn", turn)
    for _ in range(12):
        pair.quadruple(random.Random(len(plans)))
    pair.quadruples = []
    cpus = [plan.cpu for plan in plans]
    turns = 4 * PAIR_ON_CPU.turns
    assert all(len(set(cpus[at : at + turns])) == 1 for at in range(0, len(cpus), turns))
    assert min(2, len(os.sched_getaffinity(0))) <= len(set(cpus))


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("side", [BASE, CANDIDATE])
def test_calls_of_either_side_that_start_threads_have_all_cpus_on_both(gpu: bool, side: str) -> None:
    """On one CPU two threads take as long as one: a call that no longer starts any would look the same."""
    cpus: set[int | None] = set()

    def worker(name: str) -> Any:
        def ask(request: Any, *_: Any) -> Any:
            plan = request.plan
            cpus.add(plan.cpu)
            captures = [Capture(blocks_us=[50.0], replays=1)] * bool(plan.captures)
            us = [100.0] * bool(plan.host_s)
            starts = bool(plan.threads_s) and name == side
            return SimpleNamespace(
                turn=Turn(clock=name, captures=captures, host_us=us, enqueue_us=us, starts_threads=starts)
            )

        return SimpleNamespace(ask=ask)

    pair = Pair(worker(BASE), worker(CANDIDATE), gpu=gpu)
    pair.warm_up(random.Random(0))
    pair.quadruple(random.Random(0))
    assert cpus == {None}


def test_the_next_case_is_measured_by_the_same_processes(session: PairSession) -> None:
    pair = session.load_resident(FINE, BUILT)
    before = pids_of(pair)
    pair.unload()
    again = session.load_resident(FINE, BUILT)
    assert again is pair
    assert pids_of(again) == before
    assert again.quadruples == []


def test_the_seconds_of_a_case_are_counted_by_what_is_done(session: PairSession) -> None:
    """The clock goes on by a second with each look at it, so each piece of work takes one."""
    session.end_residents()
    spent = spent_time.begin(map(float, itertools.count()).__next__)
    try:
        pair = session.load_resident(FINE, BUILT)
        session.measure(pair, quadruples(1), no_step)
        session.unload(pair)
    finally:
        spent_time.end(spent)
    found = spent.by_kind(spent.total_s)
    found.pop("rest")
    assert found == {"starting": 2.0, "waiting": 2.0, "loading": 1.0, "measuring": 2.0}


def test_screening_says_what_it_rests_on(session: PairSession) -> None:
    pair = session.load_resident(FINE, BUILT)
    screened = PairedGate(session).screen(pair, FINE, lambda _metric: 1.0, 1, no_step)
    (judgement,) = screened.judgements
    assert judgement.metric == HOST
    assert judgement.evidence.startswith(f"{len(screened.quadruples)} quadruples")
    assert len(screened.quadruples) in SCREENING_LOOKS
    assert judgement.verdict is not Verdict.REGRESSED  # it is not twice as slow as itself
    assert judgement.baseline >= 2000
    assert screened.base.clock == screened.candidate.clock
    assert screened.delay == 0


def test_a_delay_slows_the_candidate_and_goes_away(session: PairSession) -> None:
    pair = session.load_resident(FINE, BUILT)

    def fastest_us(side: str) -> float:
        return min(pair.measurement(FINE, side).blocks_us())

    delayed = session.measure(pair, quadruples(1), no_step, delay=4.0)
    assert delayed == 4.0
    assert fastest_us(CANDIDATE) >= 5 * 2000
    slow_us = fastest_us(CANDIDATE)
    assert fastest_us(BASE) < slow_us
    assert session.measure(pair, quadruples(1), no_step) == 0.0
    assert fastest_us(CANDIDATE) < slow_us


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("crashes", "loading: the worker ended with exit code 7"),
        ("raises", "loading: .*first line"),
        ("gone", "loading: case gone-eager-fp32 is not in the suite"),
        ("hangs", "loading: no answer within 1 s"),
    ],
)
def test_a_side_that_fails_is_named_and_the_next_pair_works(session: PairSession, case: str, reason: str) -> None:
    pair = session.resident()
    pair.greet()
    pids = pids_of(pair)
    if case == "hangs":
        for worker in pair.workers.values():
            worker._timeout_s = 1.0
    with pytest.raises(SideError, match=reason) as caught:
        session.load_resident(f"{case}-eager-fp32", BUILT)
    assert caught.value.side == CANDIDATE
    assert "\n" not in str(caught.value)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert session.resident() is not pair
    session.measure(session.load_resident(FINE, BUILT), quadruples(1), no_step)


def test_a_side_that_dies_unloading_does_not_fail_the_next_case(session: PairSession) -> None:
    pair = session.load_resident("dies-eager-fp32", BUILT)
    with pytest.raises(SideError, match=r"unloading: .*exit code 9") as caught:
        session.unload(pair)
    assert caught.value.side == CANDIDATE
    session.measure(session.load_resident(FINE, BUILT), quadruples(1), no_step)


def test_one_side_alone_is_built(session: PairSession, tmp_path: Path) -> None:
    """What the candidate would crash in is built by the base; nothing is asked of the other side."""
    pair = session.resident()
    built = session.build(pair, "crashes-eager-fp32", {BASE: tmp_path})
    assert set(built) == {BASE}
    assert not built[BASE].stored  # eager stores nothing
    assert built[BASE].build.engines == 0
    with pytest.raises(SideError, match=r"building: .*exit code 7") as caught:
        session.build(pair, "crashes-eager-fp32", {CANDIDATE: tmp_path})
    assert caught.value.side == CANDIDATE
    assert not any(psutil.pid_exists(pid) for pid in pids_of(pair))


def test_blocks_that_never_count_are_nobodys_fault(session: PairSession, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = session.load_resident(FINE, BUILT)
    asked = []
    void = Turn(clock="host", captures=[Capture(blocks_us=[], replays=1, void=["throttled"])], host_us=[])
    reply = type("Reply", (), {"turn": void})

    def ask(*arguments: object) -> object:
        asked.append(arguments)
        return reply

    monkeypatch.setattr(pair.workers[BASE], "ask", ask)
    with pytest.raises(DisturbedError, match="blocks of the base do not count: throttled") as caught:
        session.measure(pair, quadruples(1), no_step)
    assert not isinstance(caught.value, SideError)
    assert len(asked) == 20
    assert not any(psutil.pid_exists(pid) for pid in pids_of(pair))


def test_a_side_whose_suite_is_broken_is_named(sides: dict[str, Side], tmp_path: Path) -> None:
    (tmp_path / "odd_suite.py").write_text("raise RuntimeError('no luck')")
    base = msgspec.structs.replace(sides[BASE], source=SuiteSource(root=str(tmp_path), suites=("odd_suite.py",)))
    session = PairSession(base, sides[CANDIDATE], CPU, tmp_path / "logs", timeout_s=TIMEOUT_S)
    pair = session.resident()
    try:
        with pytest.raises(SideError, match="can't be imported: RuntimeError: no luck") as caught:
            session.greet(pair)
        assert caught.value.side == BASE
        assert session._pairs == []
    finally:
        session.close()
    assert not any(psutil.pid_exists(pid) for pid in pids_of(pair))


def test_ten_times_slower_is_suspected_and_confirmed_by_fresh_pairs(
    session: PairSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = session.load_resident(SLOW, BUILT)
    gate = PairedGate(session)
    screened = gate.screen(resident, SLOW, tenth, 1, no_step)
    assert [judgement.verdict for judgement in screened.judgements] == [Verdict.REGRESSED]
    resident.unload()

    started: list[Pair] = []
    start = session.start

    def start_and_note(count: int) -> list[Pair]:
        made = start(count)
        started.extend(made)
        return made

    monkeypatch.setattr(session, "start", start_and_note)
    suspicion = Suspicion(case_id=SLOW, artifacts=BUILT, metrics=(HOST,))
    ((judgement,),) = gate.confirm([suspicion], tenth, 1, no_step)
    assert judgement.verdict is Verdict.REGRESSED
    assert judgement.low > 1
    assert judgement.evidence.startswith("6 fresh pairs")
    assert len(started) == LOOKS[0]
    assert session._pairs == [resident]
    assert not any(psutil.pid_exists(pid) for pair in started for pid in pids_of(pair))


def test_pairs_that_confirmed_one_case_are_asked_of_the_next_but_never_twice_of_one(
    sides: dict[str, Side], tmp_path: Path
) -> None:
    session = PairSession(sides[BASE], sides[CANDIDATE], CPU, tmp_path, timeout_s=TIMEOUT_S, reuse=True)
    gate = PairedGate(session)

    def measured_by(case_id: str, count: int) -> set[int]:
        suspicion = Suspicion(case_id=case_id, artifacts=BUILT, metrics=(HOST,))
        assert len(gate.measure([suspicion], count, tenth, no_step)[0]) == count
        return {pid for pair in session._pairs if case_id in pair.cases for pid in pids_of(pair)}

    try:
        first = measured_by(FINE, 2)
        assert len(first) == 4
        assert measured_by(SLOW, 2) == first
        again = measured_by(FINE, 1)  # a pair that has not loaded it
        assert len(again - first) == 2
        assert all(psutil.pid_exists(pid) for pid in first | again)
    finally:
        session.close()
    assert not any(psutil.pid_exists(pid) for pid in first | again)


def test_no_more_pairs_wait_than_a_first_look_asks_for_and_none_where_memory_is_short(
    sides: dict[str, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = PairSession(sides[BASE], sides[CANDIDATE], CPU, tmp_path, timeout_s=TIMEOUT_S, reuse=True)
    try:
        pairs = session.take(LOOKS[0] + 1, {FINE})
        session.put_back(pairs)
        assert session._idle == session._pairs == pairs[: LOOKS[0]]
        monkeypatch.setattr(machine, "memory_bytes", lambda: 1 << 30)
        session.put_back(session.take(1, {FINE}))
        assert session._idle == session._pairs == []
    finally:
        session.close()


def test_pairs_that_are_expected_have_imported_when_they_are_asked_for(
    sides: dict[str, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_session, "LOOKS", (1,))
    session = PairSession(sides[BASE], sides[CANDIDATE], CPU, tmp_path, timeout_s=TIMEOUT_S, reuse=True)
    try:
        session.expect(FINE)
        assert session._pairs == []  # a CPU has the build to do
        monkeypatch.setattr(session, "_gpu", True)
        monkeypatch.setattr(session, "_memory", PairMemory(Accelerator(kind="gpu", name="small", memory_bytes=1 << 30)))
        session.expect(FINE)
        assert session._pairs == []  # nor has this GPU the memory
        monkeypatch.setattr(session._memory, "has_room", lambda _pairs: True)
        session.expect(FINE)
        session.imported()
        (pair,) = session._pairs
        assert all(FINE in (worker.cases or ()) for worker in pair.workers.values())
        session.expect(FINE)
        assert session.take(1, [FINE]) == session._pairs == [pair]
    finally:
        session.close()


def test_an_expected_pair_that_can_not_import_is_ended_and_another_asked_for(
    sides: dict[str, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_session, "LOOKS", (1,))
    (tmp_path / "odd_suite.py").write_text("raise RuntimeError('no luck')")
    broken = msgspec.structs.replace(sides[BASE], source=SuiteSource(root=str(tmp_path), suites=("odd_suite.py",)))
    session = PairSession(broken, sides[CANDIDATE], CPU, tmp_path, timeout_s=TIMEOUT_S, reuse=True)
    monkeypatch.setattr(session, "_gpu", True)
    monkeypatch.setattr(session._memory, "has_room", lambda _pairs: True)
    try:
        session.expect(FINE)
        session.imported()
        assert session._pairs == session._idle == []
        (other,) = session.take(1, [FINE])
        with pytest.raises(SideError):
            session.greet(other)
    finally:
        session.close()


# Loaded ahead

RAISES = "raises-eager-fp32"


def loads_noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by every case that a pair is asked to load."""
    noted: list[str] = []
    begin = Pair.begin_load

    def begin_load(pair: Pair, case_id: str, artifacts: Artifacts, *, pairs: int = 1) -> None:
        noted.append(f"{case_id} of {pairs}")
        begin(pair, case_id, artifacts, pairs=pairs)

    monkeypatch.setattr(Pair, "begin_load", begin_load)
    return noted


def test_the_next_cases_are_loaded_with_one_and_measured_by_pairs_that_stay(
    sides: dict[str, Side], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = loads_noted(monkeypatch)
    session = PairSession(sides[BASE], sides[CANDIDATE], CPU, tmp_path, timeout_s=TIMEOUT_S, cases_at_once=2)
    try:
        first = session.load_resident(FINE, BUILT, [NextPair(SLOW, BUILT), NextPair(RAISES, BUILT)])
        assert loads == [f"{FINE} of 2", f"{SLOW} of 2"]
        session.measure(first, quadruples(1), no_step)
        session.unload(first)
        second = session.load_resident(SLOW, BUILT, [NextPair(RAISES, BUILT)])
        assert len(loads) == 2  # it had been loaded
        assert second is not first
        session.measure(second, quadruples(1), no_step)
        assert min(second.measurement(SLOW, CANDIDATE).blocks_us()) >= 20_000
        session.unload(second)
        third = session.load_resident(FINE, BUILT, [NextPair(RAISES, BUILT)])  # what fails for later does not harm it
        session.measure(third, quadruples(1), no_step)
        assert third in (first, second)
        with pytest.raises(SideError, match="first line") as caught:
            session.load_resident(RAISES, BUILT)
        assert caught.value.side == CANDIDATE
        assert loads[2:] == [f"{FINE} of 2", f"{RAISES} of 2", f"{RAISES} of 1"]
    finally:
        session.close()
    assert session._pairs == []


def test_a_case_that_can_not_be_loaded_ends_those_that_loaded_with_it(sides: dict[str, Side], tmp_path: Path) -> None:
    session = PairSession(sides[BASE], sides[CANDIDATE], CPU, tmp_path, timeout_s=TIMEOUT_S, cases_at_once=2)
    try:
        with pytest.raises(SideError, match="first line"):
            session.load_resident(RAISES, BUILT, [NextPair(FINE, BUILT)])
        assert session.beside_others
        assert session._pairs == []
        session.load_alone()
        session.load_resident(FINE, BUILT, [NextPair(SLOW, BUILT)])
        assert not session.beside_others
        assert len(session._pairs) == 1
    finally:
        session.close()


class Crowded:
    """Stands in for pairs that have room for one case: one beside another fails, or `alone_too` any."""

    def __init__(self, *, alone_too: bool) -> None:
        self.beside_others = self.alone = False
        self._alone_too = alone_too
        self.asked: list[int] = []

    def load_resident(self, _case_id: str, _artifacts: Artifacts, after: Sequence[NextPair]) -> Any:
        self.beside_others = bool(after)
        self.asked.append(len(after))
        if after or self._alone_too:
            raise SideError(CANDIDATE, "out of memory")
        raise DisturbedError("it was loaded")

    def end_residents(self) -> None: ...

    def load_alone(self) -> None:
        self.alone = True


@pytest.mark.parametrize(("alone_too", "error"), [(True, SideError), (False, DisturbedError)])
def test_what_fails_beside_other_cases_is_tried_once_more_alone(alone_too: bool, error: type[Exception]) -> None:
    pairs = Crowded(alone_too=alone_too)
    built = {name: Prebuilt(case_id=FINE, build=Build(build_s=1.0)) for name in (BASE, CANDIDATE)}
    situation: Any = SimpleNamespace(case=SimpleNamespace(id=FINE), limit_of=tenth, tests=1)
    workers: Any = SimpleNamespace(pairs=pairs, folder=None)
    for after in ([NextPair(SLOW, BUILT)], []):
        with pytest.raises(error), BaseMeasurer(workers, situation, built, after) as measurer:
            measurer.measure(no_step)
    assert pairs.asked == [1, 0, 0]


def test_both_sides_that_were_built_again_are_what_fresh_pairs_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Artifacts] = []

    def in_fresh_pairs(_pairs: Any, _situation: Any, artifacts: Artifacts, _wanted: Any, _step: Any) -> list[Any]:
        loaded.append(artifacts)
        assert all(folder is not None and folder.is_dir() for folder in (artifacts.base, artifacts.candidate))
        return []

    monkeypatch.setattr(base_measurer, "in_fresh_pairs", in_fresh_pairs)
    replies = {name: SimpleNamespace(stored=True, build=Build(build_s=1.0)) for name in (BASE, CANDIDATE)}
    pairs = SimpleNamespace(
        fresh=lambda *, only_builds: contextlib.nullcontext(), greet=lambda _pair: None, imported=lambda: None,
        build=lambda _pair, _case_id, _folders: replies,
    )  # fmt: skip
    situation: Any = SimpleNamespace(case=SimpleNamespace(id=FINE))
    workers: Any = SimpleNamespace(pairs=pairs, folder=RunFolder(tmp_path))
    with BaseMeasurer(workers, situation) as measurer:
        measurer.rebuild(Rebuild(), no_step)
        measurer.pairs(PairStep(LOOKS[0], ("device",)), no_step)
    ((base, candidate),) = [(one.base, one.candidate) for one in loaded]
    assert base != candidate
    assert not base.exists()  # what is built again goes with its case


@pytest.mark.parametrize(("side", "killed", "builds"), [(BASE, True, 2), (BASE, False, 1), (CANDIDATE, True, 1)])
def test_a_base_that_is_killed_while_both_are_built_again_is_tried_once_more_alone(
    side: str, killed: bool, builds: int, tmp_path: Path
) -> None:
    asked: list[str] = []

    def build(_pair: Any, _case_id: str, _folders: Any) -> Any:
        asked.append("build")
        if asked == ["build"]:
            error = SideError(side, "killed" if killed else "it is broken")
            raise error from (KilledError("by signal 9") if killed else None)
        return {name: SimpleNamespace(stored=True, build=Build(build_s=1.0)) for name in (BASE, CANDIDATE)}

    pairs = SimpleNamespace(
        fresh=lambda *, only_builds: contextlib.nullcontext(), greet=lambda _pair: None, imported=lambda: None,
        build=build, end_residents=lambda: asked.append("end residents"),
    )  # fmt: skip
    situation: Any = SimpleNamespace(case=SimpleNamespace(id=FINE))
    workers: Any = SimpleNamespace(pairs=pairs, folder=RunFolder(tmp_path))
    with BaseMeasurer(workers, situation) as measurer:
        failing = pytest.raises(SideError) if builds == 1 else contextlib.nullcontext()
        with failing:
            measurer.rebuild(Rebuild(), no_step)
    assert asked == ["build", "end residents", "build"][: 1 + 2 * (builds == 2)]


@pytest.mark.parametrize("side", [BASE, CANDIDATE])
def test_a_side_that_could_not_be_built_ahead_is_named(side: str) -> None:
    built = {name: Prebuilt(case_id=FINE, build=Build(build_s=1.0)) for name in (BASE, CANDIDATE)}
    built[side] = Prebuilt(case_id=FINE, problem=f"{FINE}: building: no answer", fault=True)
    situation: Any = SimpleNamespace(case=SimpleNamespace(id=FINE))
    workers: Any = SimpleNamespace(pairs=None, folder=None)
    with BaseMeasurer(workers, situation, built) as measurer, pytest.raises(SideError) as caught:
        measurer.measure(no_step)
    assert (caught.value.side, str(caught.value)) == (side, "building: no answer")
    assert is_fault(caught.value)
