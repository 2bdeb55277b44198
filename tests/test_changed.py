"""`--trtgate-changed`: which cases are the same as a proven session, what is measured of them, and what is said."""

from __future__ import annotations

import datetime
import json
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
import torch

from trtgate import Case, Model, Settings
from trtgate.common import accelerator
from trtgate.common.accelerator import Accelerator
from trtgate.common.run_folder import RunFolder
from trtgate.gate import known_programs, measurers
from trtgate.gate.baseline_record import CaseRecord, StoredSession
from trtgate.gate.case_result import CaseResult
from trtgate.gate.gate import Gate
from trtgate.gate.known_programs import CHECKED, Known
from trtgate.gate.run_options import ChangedOnly
from trtgate.records.measurement import HOST_ALONE, Build, Capture, CaseMeasurement, Launch, Loaded, Turn
from trtgate.records.program_part import ProgramPart
from trtgate.report import terminal_table
from trtgate.report.case_row import row_of
from trtgate.timing import plans, turns
from trtgate.torch_trt import runtime_cache
from trtgate.verdict import Verdict

from .in_process import InProcess, ScriptedSession
from .scripted_measurer import CASE, HERE, STATE, TENSORRT, ScriptedMeasurer, judged, measurement
from .storing_frontend import Storing
from .test_judging import options_in

NOW = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)
RECORDED = "2026-11-20T00:00:00+00:00"
PROGRAM = ProgramPart(graph="g", weights="w", constants="c", inputs="i", versions={"torch": "2.14.0"})
MACHINE = {"card": "H100", "uuid": HERE.uuid, "power limit W": "700.0", "clock": "1"}
BUILD = Build(build_s=1.0, program=PROGRAM, artifact="this one")
OTHERWISE = msgspec.structs.replace


# Which sessions vouch for a case


def session(**given: Any) -> StoredSession:
    fields: dict[str, Any] = {
        "recorded": RECORDED, "uuid": HERE.uuid, "clock": "cuda_graph", "metrics": {"device": [[100.0]]},
        "program": PROGRAM, "machine": MACHINE, "proven": True, "artifact": "another",
    }  # fmt: skip
    return StoredSession(**fields | given)


def known(*sessions: StoredSession, case: Case = TENSORRT, build: Build | None = BUILD, **wanted: Any) -> Known | None:
    record = CaseRecord(case=case.id, settings={}, verdict="unchanged", sessions=list(sessions))
    return known_programs.known(case, build, record, MACHINE, ChangedOnly(**wanted), NOW)


def test_a_proven_session_of_the_same_program_on_the_same_machine_vouches() -> None:
    found = known(session(recorded="2026-11-01T00:00:00+00:00"), session())
    assert found is not None
    assert (found.recorded, found.clock) == (RECORDED, "cuda_graph")


@pytest.mark.parametrize(
    "other",
    [
        {"proven": False}, {"program": None}, {"machine": {}}, {"machine": MACHINE | {"power limit W": "500.0"}},
        {"machine": MACHINE | {"clock": "2"}}, {"program": OTHERWISE(PROGRAM, weights="others")},
        {"program": OTHERWISE(PROGRAM, versions={"torch": "2.13.0"})}, {"recorded": "2026-10-20T00:00:00+00:00"},
        {"recorded": ""}, {"recorded": "2026-11-20T00:00:00"}, {"recorded": "2027-11-20T00:00:00+00:00"},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_no_other_does(other: dict[str, Any]) -> None:
    assert known(session(**other)) is None
    assert known(session(**other), session()) is not None


@pytest.mark.parametrize("other", [OTHERWISE(PROGRAM, weights="others"), None])
def test_after_a_session_of_another_program_on_the_card_none_does(other: ProgramPart | None) -> None:
    """The case is held against that one: who goes back to a slower program is to hear of it."""
    assert known(session(), session(program=other)) is None
    assert known(session(), session(program=other, machine={}, proven=False)) is None
    assert known(session(), session(program=other, uuid="another card")) is not None
    assert known(session(), session(proven=False)) is not None


def test_one_that_measured_this_very_compiled_module_need_not_be_proven() -> None:
    assert known(session(proven=False, artifact=BUILD.artifact)) is not None
    assert known(session(proven=False, artifact=""), build=OTHERWISE(BUILD, artifact="")) is None


@pytest.mark.parametrize(
    ("cache", "vouches"), [("artifact", True), ("none", True), ("own", False), ("none+own", False)]
)
def test_none_vouches_whose_kernels_came_from_a_runtime_cache_of_a_users_own(cache: str, vouches: bool) -> None:
    """Nobody knows what that held."""
    assert (known(session(runtime_cache=cache)) is not None) == vouches


@pytest.mark.parametrize(("supported", "cache"), [(True, "artifact"), (False, "none")])
def test_the_machine_part_names_where_kernels_come_from(
    supported: bool, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_cache, "is_supported", lambda: supported)
    card = Accelerator(kind="gpu", name="H100", uuid="U")
    assert known_programs.machine_part(card, "one")["runtime cache"] == cache


def test_a_measurement_says_where_kernels_came_from_and_why() -> None:
    of = {"artifact": "", "none": "its cache is of another card"}
    launches = [Launch(loaded=Loaded(seconds=1.0, runtime_cache=cache, note=note)) for cache, note in of.items()]
    found = CaseMeasurement(case_id="a", launches=launches)
    assert (found.runtime_cache, found.notes) == ("artifact+none", ["its cache is of another card"])


def test_its_age_is_an_option() -> None:
    assert known(session(), days=8.0) is None
    assert known(session(), days=10.0) is not None


@pytest.mark.parametrize("frontend", ["torch_compile", "eager", "inductor"])
def test_other_frontends_and_what_has_no_program_are_measured(frontend: str) -> None:
    assert known(session(), case=Case(Model("net", lambda: None, ()), Settings(frontend=frontend))) is None
    assert known(session(), build=OTHERWISE(BUILD, program=None)) is None
    assert known(session(), build=None) is None
    assert known_programs.known(TENSORRT, BUILD, None, MACHINE, ChangedOnly(), NOW) is None


def test_one_in_twenty_is_checked_at_random_as_the_seed_says() -> None:
    def checked(seed: int) -> set[str]:
        cases = [Case(Model(f"net{number}", lambda: None, ()), Settings(frontend="dynamo")) for number in range(2000)]
        return {case.id for case in cases if (found := known(session(), case=case, seed=seed)) and found.checked}

    first = checked(1)
    assert 0.5 * CHECKED < len(first) / 2000 < 1.5 * CHECKED
    assert first == checked(1) != checked(2)


def test_the_machine_is_the_card_its_drivers_its_power_limit_and_our_clock() -> None:
    card = Accelerator(
        kind="gpu", name="H100", uuid="U", driver="1", cuda="13.0", power_limit_w=700.0, max_sm_clock_mhz=1980
    )
    before = known_programs.machine_part(card, "one")
    assert before["clock"]
    for change in ({"uuid": "V"}, {"driver": "2"}, {"cuda": "13.1"}, {"power_limit_w": 500.0}, {"max_sm_clock_mhz": 1}):
        assert known_programs.machine_part(OTHERWISE(card, **change), "one") != before
    assert known_programs.machine_part(card, "many") != before
    assert known_programs.machine_part(card, "one") == before


def test_of_several_cards_each_is_its_own_machine(tmp_path: Path) -> None:
    """Another power limit of the second one is no other of the first, and is seen."""
    first = Accelerator(kind="gpu", name="H100", uuid="U", power_limit_w=700.0)
    second = OTHERWISE(first, uuid="V", power_limit_w=500.0)
    gate = Gate(options_in(tmp_path), first, RunFolder(tmp_path / "runs"))
    for card in (first, second):
        gate.situation(TENSORRT, accelerator=card, tests=1, accepted=False, pairable=False)
        result = CaseResult(
            case_id=TENSORRT.id,
            verdict=Verdict.UNCHANGED,
            measurement=OTHERWISE(measurement(*[1.0] * 5), uuid=card.uuid),
        )
        (stored,) = gate.record_of(TENSORRT, result).sessions
        assert (stored.machine["uuid"], stored.machine["power limit W"]) == (card.uuid, str(card.power_limit_w))


# What is done with such a case


def record() -> CaseRecord:
    given = {metric: [[100.0]] * 5 for metric in ("device", "host", "enqueue")}
    one = StoredSession(recorded=RECORDED, uuid=HERE.uuid, clock="cuda_graph", metrics=given, state=STATE)
    return CaseRecord(case=CASE.id, settings={}, verdict="unchanged", sessions=[one] * 8)


def host(us: float, build: Build | None = None) -> CaseMeasurement:
    turn = Turn(clock=HOST_ALONE, captures=[], host_us=[us], enqueue_us=[us])
    launches = [Launch(loaded=Loaded(seconds=1.0), turns=[turn])] * 5
    return CaseMeasurement(case_id=CASE.id, launches=launches, uuid=HERE.uuid, build=build)


SAME, CHECK = Known(recorded=RECORDED, clock="cuda_graph"), Known(recorded=RECORDED, clock="cuda_graph", checked=True)


def test_its_device_latency_is_left_out_and_what_the_host_sees_is_judged() -> None:
    measurer = ScriptedMeasurer(host=[host(100.0)])
    found = judged(measurer, record=record(), known=SAME)
    assert measurer.asked == ["host"]
    assert (found.verdict, found.stored, found.moved, found.measurement.launches) == (Verdict.SAME, False, "", [])
    assert {one.metric for one in found.judgements} == {"host", "enqueue"}
    assert found.sentence == (
        f"{CASE.id} is the same as in the session of {RECORDED}: nothing that decides its device latency differs"
    )


def test_where_the_host_looks_slower_all_is_measured_and_confirmed_as_ever() -> None:
    slow = measurement(*[Turn(clock="cuda_graph", captures=[Capture(blocks_us=[100.0], replays=1)] * 4, host_us=[500.0],
                              enqueue_us=[500.0], canary_us={"sm_clock": 500.0})] * 5)  # fmt: skip
    measurer = ScriptedMeasurer(host=[host(500.0)], measured=[slow], fresh=[slow])
    found = judged(measurer, record=record(), known=SAME)
    assert measurer.asked == ["host", "measure", "fresh"]
    assert found.verdict is Verdict.REGRESSED
    assert not found.moved


def test_what_a_call_does_more_of_is_not_hidden() -> None:
    """Another count of the build is a suspicion, and so the case is measured as any other."""
    from trtgate.records.measurement import CallCounts

    build = Build(build_s=1.0, calls=CallCounts(counts={"kernel_launches": 20}))
    measured = OTHERWISE(measurement(*[100.0] * 5), build=build)
    measurer = ScriptedMeasurer(host=[host(100.0, build)], measured=[measured])
    stored = OTHERWISE(record(), figures={"kernel_launches": 10.0})
    with pytest.raises(AssertionError, match="nothing is written down for rebuil"):
        judged(measurer, record=stored, known=SAME)
    assert measurer.asked[:2] == ["host", "measure"]


def test_one_that_is_checked_is_measured_as_any_other() -> None:
    measurer = ScriptedMeasurer(measured=[measurement(*[100.0] * 5)])
    found = judged(measurer, record=record(), known=CHECK)
    assert measurer.asked == ["measure"]
    assert (found.verdict, found.moved, found.checked) == (Verdict.UNCHANGED, "", True)


@pytest.mark.parametrize(("us", "verdict"), [(120.0, Verdict.REGRESSED), (80.0, Verdict.IMPROVED)])
def test_one_that_is_checked_and_moved_says_so_in_its_own_sentence(us: float, verdict: Verdict) -> None:
    measured = measurement(*[us] * 5)
    found = judged(ScriptedMeasurer(measured=[measured], fresh=[measured]), record=record(), known=CHECK)
    assert found.verdict is verdict
    assert f"its device latency moved by {us / 100 - 1:+.2%}" in found.moved
    assert "run it without --trtgate-changed" in found.moved


@pytest.mark.parametrize(("artifact", "red"), [("before", True), ("anew", False)])
def test_another_build_that_is_faster_is_no_sign_of_something_unseen(artifact: str, red: bool) -> None:
    """Builds of one program may differ in their kernels."""
    session = OTHERWISE(record().sessions[0], artifact="before")
    measured = OTHERWISE(measurement(*[80.0] * 5), build=Build(build_s=1.0, artifact=artifact))
    found = judged(
        ScriptedMeasurer(measured=[measured]), record=OTHERWISE(record(), sessions=[session] * 8), known=CHECK
    )
    assert (found.verdict, bool(found.moved)) == (Verdict.IMPROVED, red)


def test_without_a_baseline_or_a_comparison_nothing_is_the_same() -> None:
    measurer = ScriptedMeasurer(measured=[measurement(*[100.0] * 5)])
    assert judged(measurer, known=SAME, new="NEW").verdict is Verdict.NEW


def test_a_turn_of_what_the_host_sees_makes_no_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, restored = [], []

    class Inference:
        def __call__(self) -> None:
            calls.append(1)

        def restore(self) -> None:
            restored.append(len(calls))

    monkeypatch.setattr(turns.canary, "gpu_canary", lambda _spin: {"sm_clock": 500.0})
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    plan = OTHERWISE(plans.HOST_ALONE, warmup_s=0.0, host_s=0.0)
    turn = turns.on_gpu(Inference(), None, None, plan, random.Random(0))  # type: ignore[arg-type]
    assert (turn.clock, turn.captures, turn.canary_us) == (HOST_ALONE, [], {"sm_clock": 500.0})
    assert len(turn.host_us) == len(turn.enqueue_us) == 10
    assert restored == [10]  # what warming up changed is put back before anything is read
    found = CaseMeasurement(case_id="a", launches=[Launch(loaded=Loaded(seconds=1.0), turns=[turn])])
    assert (found.primary, found.blocks_us(), found.samples("host")) == ("device", [], [[turn.host_us]])


def test_it_is_counted_apart() -> None:
    results = [
        CaseResult(case_id=name, verdict=verdict, measurement=CaseMeasurement(case_id=name, launches=[]))
        for name, verdict in (("a", Verdict.SAME), ("b", Verdict.SAME), ("c", Verdict.UNDERPOWERED))
    ]
    rows = [row_of(result) for result in results]
    assert terminal_table.counts(rows) == "3 cases: 1 underpowered, 2 same"
    assert str(terminal_table.table(rows)).count("same") == 2


# A run of pytest


CARD = Accelerator(kind="gpu", name="NVIDIA Test", memory_bytes=80 << 30, uuid="GPU-1", power_limit_w=700.0)
SUITE = """
import trtgate

@trtgate.model(frontends=("dynamo", "eager"), precisions=("fp32",))
def alpha(batch):
    import torch

    torch.manual_seed({seed})
    return torch.nn.Linear(4, 4).eval(), torch.ones(batch, 4)
"""
DYNAMO, EAGER = "alpha-dynamo-fp32-b1-mbs5", "alpha-eager-fp32-b1"
LATENCY = ("suite.py", "-m", "trtgate_latency", "--trtgate-prebuild=0", "-p", "no:randomly")
COMPARE = (*LATENCY, "--benchmark-compare", "--trtgate-launches=5")


class GpuSession(ScriptedSession):
    """Measures as on a GPU, and remembers of which cases it was asked for device latency."""

    asked: list[tuple[str, bool]] = []  # noqa: RUF012
    latency_us = 100.0

    def measure(self, case_id: str, *_others: Any) -> CaseMeasurement:
        return self._measured(case_id, device=True)

    def measure_host(self, case_id: str, *_others: Any) -> CaseMeasurement:
        return self._measured(case_id, device=False)

    def _measured(self, case_id: str, *, device: bool) -> CaseMeasurement:
        self.asked.append((case_id, device))
        captures = [Capture(blocks_us=[self.latency_us], replays=1)] * 4 if device else []
        clock = "cuda_graph_one_stream" if device else HOST_ALONE
        turn = Turn(clock=clock, captures=captures, host_us=[200.0], enqueue_us=[50.0], canary_us={"sm_clock": 500.0})
        launches = [Launch(loaded=Loaded(seconds=1.0), turns=[turn])] * 5
        return CaseMeasurement(case_id=case_id, launches=launches, uuid=CARD.uuid, seconds=2.0)


@pytest.fixture
def gpu(here: InProcess, storing: Storing, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """A checkout whose run sees a GPU, with a recorded baseline that a second run has proven."""
    monkeypatch.setattr(accelerator, "detect", lambda: CARD)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("trtgate.timing.used_gpu.check", lambda _seen: None)
    monkeypatch.setattr(measurers, "Session", GpuSession)
    monkeypatch.setattr(GpuSession, "asked", [])
    (here.path / "suite.py").write_text(SUITE.format(seed=0))
    for _ in range(2):
        status, said = here.run(*LATENCY, "--trtgate-update-baselines")
        assert status == 0, said
    GpuSession.asked.clear()
    return here


def test_a_run_measures_what_changed_and_says_what_it_left_out(gpu: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[int] = []
    situation = Gate.situation

    def noted(gate: Gate, case: Case, **given: Any) -> Any:
        shared.append(given["tests"])
        return situation(gate, case, **given)

    monkeypatch.setattr(Gate, "situation", noted)
    arguments = (
        *COMPARE,
        "--trtgate-changed",
        "--trtgate-changed-seed=1",
        "--trtgate-report=r.json",
        "--junitxml=j.xml",
    )
    status, said = gpu.run(*arguments, "--trtgate-require=baseline,verdict", "-W", "error")
    assert status == 0, said
    assert GpuSession.asked == [(DYNAMO, False), (EAGER, True)]
    assert "2 cases: 1 unchanged, 1 same" in said
    assert "--trtgate-changed-seed 1 chooses the same ones again" in said
    report = {case["case_id"]: case for case in json.loads((gpu.path / "r.json").read_text())["cases"]}
    assert {case_id: case["said"] for case_id, case in report.items()} == {DYNAMO: "same", EAGER: "unchanged"}
    assert "nothing that decides its device latency differs" in report[DYNAMO]["sentence"]
    newest = max((gpu.path / ".trtgate" / "runs").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    assert [one["extra_info"]["trtgate"]["case"] for one in json.loads(newest.read_text())["benchmarks"]] == [EAGER]
    said_of = [
        one.get("value") for one in ElementTree.parse(gpu.path / "j.xml").iter("property")
        if one.get("name") == "trtgate_verdict"
    ]  # fmt: skip
    assert said_of == ["same", "unchanged"]
    GpuSession.asked.clear()
    (gpu.path / "suite.py").write_text(SUITE.format(seed=1))
    status, said = gpu.run(*arguments)
    assert (status, GpuSession.asked) == (0, [(DYNAMO, True), (EAGER, True)])
    assert "2 cases: 2 unchanged" in said
    GpuSession.asked.clear()
    assert gpu.run(*COMPARE)[0] == 0
    assert GpuSession.asked == [(DYNAMO, True), (EAGER, True)]
    assert len(set(shared)) == 1  # the error rate is shared by the cases that were collected, measured or not


def test_one_that_is_checked_and_moved_makes_the_run_red(gpu: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = ("--trtgate-changed", "--trtgate-changed-seed=1", "--trtgate-frontends=dynamo")
    status, said = gpu.run(*COMPARE, *seeded, "--benchmark-only", "-W", "error")
    assert (status, GpuSession.asked) == (0, [(DYNAMO, False)]), said
    assert "1 case: 1 same" in said
    GpuSession.asked.clear()
    monkeypatch.setattr(known_programs, "CHECKED", 1.0)
    status, said = gpu.run(*COMPARE, "--trtgate-changed", "--trtgate-frontends=dynamo")
    assert (status, GpuSession.asked) == (0, [(DYNAMO, True)])
    assert "1 case: 1 unchanged" in said
    assert f"that of 1 was, at random ({DYNAMO})" in said
    monkeypatch.setattr(GpuSession, "latency_us", 80.0)
    status, said = gpu.run(*COMPARE, "--trtgate-changed", "--trtgate-frontends=dynamo")
    assert status == 1
    assert "its device latency moved by -20.00%: something decides it that trtgate does not see" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--trtgate-changed",), "add --benchmark-compare"),
        (("--trtgate-changed", "--trtgate-update-baselines"), "a recording needs all of them"),
        (("--trtgate-changed", "--trtgate-base=HEAD"), "ask trtgate affected"),
        (("--trtgate-changed-days=3", "--benchmark-compare"), "go with --trtgate-changed"),
        (("--trtgate-changed", "--trtgate-changed-days=-1", "--benchmark-compare"), "positive number of days"),
        (("--trtgate-changed", "--trtgate-changed-days=nan", "--benchmark-compare"), "positive number of days"),
    ],
)
def test_what_contradicts_it_is_refused(here: InProcess, arguments: tuple[str, ...], words: str) -> None:
    status, said = here.run("suite.py", *arguments)
    assert status == 4
    assert words in said
