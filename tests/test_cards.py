"""Many cards: who measures what, for real with workers on two simulated devices, and what goes wrong."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from trtgate import Case, Model, Settings
from trtgate.common import accelerator
from trtgate.common.accelerator import Accelerator
from trtgate.common.errors import TrtgateError
from trtgate.gate.card_jobs import CardState, Job
from trtgate.gate.gpu_queue import GpuQueue
from trtgate.gate.measurers import Workers
from trtgate.launches.session import NextCase
from trtgate.pytest_plugin import measuring_ahead
from trtgate.records.measurement import Build

from .pytest_folder import is_alive

TWO_CARDS = """
from trtgate.common import accelerator
from trtgate.common.accelerator import Accelerator

CARDS = [Accelerator(kind="cpu", name="card", uuid=f"CARD-{number}") for number in range(2)]
accelerator.detect_all = lambda wanted: CARDS if wanted == "all" else [CARDS[int(n)] for n in wanted.split(",")]
"""
"""A conftest that gives a machine without a GPU two cards: their workers time on the CPU, under a lock for each."""
SAYS_WHEN_IT_WAITS = """
from pathlib import Path

from trtgate.gate.gpu_queue import GpuQueue as Cards

result = Cards.result

def waits(*given):
    Path("waits").touch()
    return result(*given)

Cards.result = waits
"""
"""`python -m` ends by SIGINT itself, whoever handled it, if that came within exec, as where a dataclass is made."""


class FakeGate:
    """Stands for a gate with a card: says who measured what, and waits for the other where it is told to."""

    def __init__(self, uuid: str, *, together: threading.Barrier | None = None, wrong: frozenset[str] = frozenset()):
        self.accelerator = Accelerator(kind="gpu", name="test", uuid=uuid)
        self.measured: list[str] = []
        self.loaded: list[list[str]] = []
        """Of each case that was measured: itself, and what was to be loaded with it."""
        self.stopped = threading.Event()
        self._together = together
        self._wrong = wrong

    def run(self, case: Case, artifact: Path | None, build: Build, step: Any) -> Any:
        if case.model.name == "hangs":
            self.stopped.wait()
            step("the next thing")
        if self._together is not None:
            self._together.wait(30)
        self.measured.append(case.model.name)
        if case.model.name in self._wrong:
            raise TrtgateError(f"{case.model.name} is wrong")
        step("measuring")
        return case.model.name

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self.stopped.set()


def job(name: str, cost_s: float | None = None, home: str = "") -> Job:
    case = Case(Model(name, lambda: None, ()), Settings(frontend="eager"))
    return Job(case=case, artifact=None, build=Build(build_s=1.0), cost_s=cost_s, home=home)


def cards(gates: list[FakeGate], *jobs: Job, loaded_together: int = 1) -> GpuQueue:
    def measure(gate: Any, job: Job, step: Any, after: Any) -> Any:
        gate.loaded.append([one.case_id.split("-")[0] for one in (NextCase(job.case.id, None), *after)])
        return gate.run(job.case, job.artifact, job.build, step)

    named = {one.case.model.name: one for one in jobs}
    states = [CardState(together=loaded_together) for _ in gates]
    return GpuQueue(cast("list[Workers]", gates), named, measure, cards=states)


def silent(_text: str) -> None:
    pass


def test_cases_of_no_card_go_to_whichever_is_free_the_longest_first() -> None:
    gates = [FakeGate(name, together=threading.Barrier(1)) for name in ("A",)]
    shared = cards(gates, job("short", 1.0), job("long", 9.0), job("unknown"))
    assert [shared.result(name, silent) for name in ("short", "long", "unknown")] == ["short", "long", "unknown"]
    shared.close()
    assert gates[0].measured == ["unknown", "long", "short"]


def test_two_cards_measure_at_the_same_time() -> None:
    barrier = threading.Barrier(2)  # passed only if both are at work at once
    gates = [FakeGate(name, together=barrier) for name in ("A", "B")]
    shared = cards(gates, *(job(f"case{number}", 1.0) for number in range(4)))
    for number in range(4):
        shared.result(f"case{number}", silent)
    shared.close()
    assert [len(gate.measured) for gate in gates] == [2, 2]
    assert shared.idle() == []


def test_a_card_loads_with_its_case_those_that_it_measures_next() -> None:
    (gate,) = gates = [FakeGate("A")]
    shared = cards(gates, *(job(f"case{number}", 9.0 - number) for number in range(5)), loaded_together=3)
    for number in range(5):
        shared.result(f"case{number}", silent)
    shared.close()
    assert gate.loaded == [
        ["case0", "case1", "case2"], ["case1", "case2"], ["case2"], ["case3", "case4"], ["case4"]
    ]  # fmt: skip


def test_a_card_takes_no_more_of_the_last_cases_than_its_share() -> None:
    """Of six cases one of two cards loads three, the other two, though each could load five; then one is left."""
    barrier = threading.Barrier(2)
    gates = [FakeGate(name, together=barrier) for name in ("A", "B")]
    shared = cards(gates, *(job(f"case{number}", 1.0) for number in range(6)), loaded_together=5)
    for number in range(6):
        shared.result(f"case{number}", silent)
    shared.close()
    assert sorted(max(map(len, gate.loaded)) for gate in gates) == [2, 3]
    assert sorted(gates[0].measured + gates[1].measured) == [f"case{number}" for number in range(6)]


def test_a_case_whose_sessions_are_of_one_card_is_measured_there() -> None:
    gates = [FakeGate("A"), FakeGate("B")]
    shared = cards(gates, job("one", home="A"), job("two", home="A"), job("three", home="A"))
    for name in ("one", "two", "three"):
        shared.result(name, silent)
    shared.close()
    assert gates[1].measured == []
    assert shared.idle() == ["B"]


@pytest.mark.parametrize(
    ("recorded", "wanted"),
    [
        ([], ""),
        (["C"], ""),
        (["B"], "B"),
        (["C", "B"], "B"),
        (["A", "B"], "B"),
        (["A", "D"], "D"),
        (["B", "A", "D"], ""),
    ],
)
def test_a_case_belongs_to_a_card_here_that_has_sessions_of_it_if_not_all_have(
    recorded: list[str], wanted: str
) -> None:
    assert measuring_ahead.home_of(recorded, ("A", "B", "D"), {"A": 2.0, "B": 1.0}) == wanted


def test_a_case_recorded_on_a_card_that_is_not_here_goes_anywhere_and_leaves_none_idle() -> None:
    gates = [FakeGate("A"), FakeGate("B")]
    shared = cards(gates, job("one", home="C"), job("two", home="A"))
    assert (shared.result("one", silent), shared.result("two", silent)) == ("one", "two")
    shared.close()
    assert shared.idle() == []


def test_what_goes_wrong_with_a_case_is_its_own_and_is_told_to_who_waits() -> None:
    gates = [FakeGate("A", wrong=frozenset({"bad"}))]
    shared = cards(gates, job("bad", 2.0), job("good", 1.0))
    said: list[str] = []
    with pytest.raises(TrtgateError, match="bad is wrong"):
        shared.result("bad", said.append)
    assert shared.result("good", said.append) == "good"
    shared.close()
    assert said in (["good-eager-fp32: measuring"], [])  # a case that is done already has nothing more to tell


def test_closing_ends_what_is_under_way() -> None:
    gates = [FakeGate("A")]
    shared = cards(gates, job("hangs", 2.0), job("later", 1.0))
    shared.close()
    assert gates[0].measured == []
    with pytest.raises(TrtgateError, match="the run ended"):
        shared.result("hangs", silent)


def test_a_run_shares_its_cases_among_the_cards_and_records_which(folder: Any) -> None:
    names = ("alpha", "beta", "gamma", "delta")
    folder.suite(*names)
    (folder.path / "conftest.py").write_text(TWO_CARDS)
    recorded = folder.gate("--trtgate-gpus=all", "--trtgate-update-baselines")
    assert recorded.ret == 0
    recorded.assert_outcomes(passed=8)
    recorded.stdout.fnmatch_lines(["trtgate: 2 x card, baselines of *", "built ahead: 4 cases by 2 processes*"])
    (file,) = folder.path.glob("baselines/*/latency.json")
    assert set(cards_of(file).values()) == {"CARD-0", "CARD-1"}

    with folder.edited(file) as document:  # two each, whoever was quicker
        for number, entry in enumerate(document["benchmarks"]):
            (session,) = entry["extra_info"]["trtgate"]["sessions"]
            session["uuid"], session["state"]["canary_us"] = f"CARD-{number % 2}", {}
    before, runs = cards_of(file), set(folder.path.glob(".trtgate/runs/*.json"))
    compared = folder.gate(
        "--trtgate-gpus=all", "--benchmark-compare", "-m", "trtgate_latency", "--trtgate-limit=host=900%"
    )
    assert compared.ret == 0
    compared.assert_outcomes(passed=4)
    (run,) = set(folder.path.glob(".trtgate/runs/*.json")) - runs
    assert cards_of(run) == before


def cards_of(file: Path) -> dict[str, str]:
    records = [entry["extra_info"]["trtgate"] for entry in json.loads(file.read_text())["benchmarks"]]
    return {record["case"]: record["sessions"][-1]["uuid"] for record in records}


def test_a_slow_case_fails_as_on_one_card_and_a_crash_is_its_own(folder: Any) -> None:
    folder.suite("alpha", "beta")
    (folder.path / "conftest.py").write_text(TWO_CARDS)
    assert folder.gate("--trtgate-gpus=all", "--trtgate-update-baselines").ret == 0
    (file,) = folder.path.glob("baselines/*/latency.json")
    with folder.edited(file) as document:
        for entry in document["benchmarks"]:
            entry["extra_info"]["trtgate"]["sessions"][0]["state"]["canary_us"] = {}
    folder.suite("alpha", "beta", dies="os._exit(7) if IN_WORKER and measuring() else None")
    done = folder.gate("--trtgate-gpus=all", "--benchmark-compare", "-m", "trtgate_latency", ALPHA_MS=60)
    assert done.ret == 1
    output = folder.output_of(done)
    assert "alpha-eager-fp32-b1 is slower: host latency" in output
    assert "dies-eager-fp32-b1: measuring: the worker ended with exit code 7" in output
    assert done.parseoutcomes()["failed"] == 2  # and beta is too noisy to be told, or unchanged


def test_ctrl_c_ends_the_workers_of_all_cards(folder: Any) -> None:
    hang = "(open({name!r}, 'w').write(str(os.getpid())), time.sleep(600)) if measuring() else None"
    folder.suite(**{name: hang.format(name=name) for name in ("alpha", "beta")})
    (folder.path / "conftest.py").write_text(TWO_CARDS + SAYS_WHEN_IT_WAITS)
    run = folder.start("--trtgate-gpus=all", "--trtgate-launches=1", "-m", "trtgate_latency", forked=True)
    measuring = [folder.path / name for name in ("alpha", "beta")]
    folder.wait_until(lambda: all(file.exists() for file in (*measuring, folder.path / "waits")))  # at once
    workers = [int(file.read_text()) for file in measuring]
    assert [is_alive(pid) for pid in {run.pid, *workers}] == [True] * 3
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == pytest.ExitCode.INTERRUPTED, output
    assert [pid for pid in workers if is_alive(pid)] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trtgate-gpus=all",), ("--trtgate-gpus=all", "there is no GPU")),
        (("--trtgate-gpus=0", "-n2"), ("--trtgate-gpus", "drop -n")),
        (("--trtgate-gpus=0", "--trtgate-base=HEAD"), ("--trtgate-gpus", "a base", "drop one")),
    ],
)
def test_what_can_not_be_is_refused(folder: Any, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    folder.suite("alpha")
    folder.refused(folder.gate(*options), *words)


CARDS = [Accelerator(kind="gpu", name=name, memory_bytes=80 << 30, uuid=f"GPU-{n}") for n, name in enumerate("AAB")]


@pytest.mark.parametrize(
    ("wanted", "found"), [("0", ["GPU-0"]), ("0,1", ["GPU-0", "GPU-1"]), (" 1 , 0 ,1", ["GPU-1", "GPU-0"])]
)
def test_cards_are_named_by_number(monkeypatch: pytest.MonkeyPatch, wanted: str, found: list[str]) -> None:
    monkeypatch.setattr(accelerator, "_gpus", lambda: CARDS)
    assert [card.uuid for card in accelerator.detect_all(wanted)] == found


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [("3", "no GPU '3': there are 3, from 0 to 2"), ("", "no GPU ''"), ("x", "no GPU 'x'"), ("all", "different kinds")],
)
def test_what_names_no_card_is_said(monkeypatch: pytest.MonkeyPatch, wanted: str, problem: str) -> None:
    monkeypatch.setattr(accelerator, "_gpus", lambda: CARDS)
    with pytest.raises(TrtgateError, match=problem):
        accelerator.detect_all(wanted)
