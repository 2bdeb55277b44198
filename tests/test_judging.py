"""Which stored sessions a measurement is held against: this card's own, else each other card once."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trtgate import Case, Model, Settings
from trtgate.common.accelerator import Accelerator
from trtgate.common.run_folder import RunFolder
from trtgate.gate import baselines, judging, measurement_summary, sentences
from trtgate.gate.baseline_record import CaseRecord, State, StoredSession
from trtgate.gate.baselines import Run
from trtgate.gate.case_result import CaseResult
from trtgate.gate.gate import Gate
from trtgate.gate.run_options import Options
from trtgate.records.measurement import Build, Capture, CaseMeasurement, GpuState, Launch, Loaded, Turn
from trtgate.suite.selection import Selection
from trtgate.suite.suite_source import SuiteSource
from trtgate.verdict import Judgement, Verdict

CASE = Case(Model("small", lambda: None, ()), Settings(frontend="eager", precision="fp32"))
HERE = Accelerator(kind="gpu", name="H100", uuid="HERE")
TESTS = 100


def measured(us: float, clock: str = "cuda_graph") -> CaseMeasurement:
    captures = [Capture(blocks_us=[us, us], replays=10)] * 4
    launches = [
        Launch(loaded=Loaded(seconds=1.0), turns=[Turn(clock=clock, captures=captures, host_us=[us])]) for _ in range(3)
    ]
    return CaseMeasurement(case_id=CASE.id, launches=launches, uuid=HERE.uuid)


def stored(*sessions: tuple[str, float]) -> CaseRecord:
    return CaseRecord(
        case=CASE.id, settings={}, verdict="unchanged",
        sessions=[
            StoredSession(recorded="2026-01-01T00:00:00", uuid=uuid, clock="cuda_graph", metrics={"device": [[us]] * 3})
            for uuid, us in sessions
        ],
    )  # fmt: skip


def judged(us: float, *sessions: tuple[str, float], card: Accelerator = HERE) -> Judgement:
    (found,) = judging.against_stored(CASE, measured(us), stored(*sessions), card, lambda _metric: 0.01, TESTS)
    return found


@pytest.mark.parametrize("sessions", [1, 8, 20])
def test_many_sessions_of_one_card_do_not_say_how_far_another_card_lies_off(sessions: int) -> None:
    found = judged(101.9, *[("THERE", 100 + 0.01 * number) for number in range(sessions)])
    assert found.verdict is Verdict.UNDERPOWERED
    assert found.evidence == "stored sessions of 1 other card"
    assert found.detectable > 0.03


def test_a_card_with_sessions_is_held_against_these_alone() -> None:
    others = [(f"CARD-{number}", 98.0) for number in range(6)]
    found = judged(100.0, *others, ("HERE", 100.1), ("HERE", 100.0))
    assert found.verdict is Verdict.UNCHANGED
    assert found.baseline == pytest.approx(100.05)
    assert found.evidence == "2 stored sessions of this card"
    assert judged(102.0, *others, ("HERE", 100.0)).verdict is Verdict.REGRESSED


def test_queued_events_repeat_less_well_than_graphs_and_one_session_of_them_says_less() -> None:
    def against_one(us: float, clock: str) -> Judgement:
        limit_of = lambda _metric: 0.01  # noqa: E731
        (found,) = judging.against_stored(CASE, measured(us, clock), stored(("HERE", 100.0)), HERE, limit_of, TESTS)
        return found

    assert against_one(103.4, "cuda_graph").verdict is Verdict.REGRESSED
    assert against_one(103.4, "cuda_events").verdict is Verdict.UNDERPOWERED  # as an unchanged module was once
    assert against_one(96.6, "cuda_events").verdict is Verdict.UNDERPOWERED
    assert against_one(130.0, "cuda_events").verdict is Verdict.REGRESSED


def test_where_only_this_card_has_sessions_they_are_called_just_that() -> None:
    assert judged(100.0, ("HERE", 100.0)).evidence == "1 stored session"
    cpu = Accelerator(kind="cpu", name="cpu")
    assert judged(100.0, ("", 100.0), ("", 100.0), card=cpu).evidence == "2 stored sessions"


def test_of_eight_other_cards_it_is_known_how_far_they_lie_apart() -> None:
    eight = [(f"CARD-{number}", 100 + 0.02 * number) for number in range(8)]
    twice = [*eight, *[("CARD-0", 100.0)] * 8]
    for sessions in (eight, twice):
        found = judged(102.0, *sessions)
        assert found.verdict is Verdict.REGRESSED
        assert found.baseline == pytest.approx(100.07)
        assert found.evidence == "stored sessions of 8 other cards"


def test_other_cards_say_how_far_sessions_of_one_card_lie_apart() -> None:
    one = ("HERE", 100.0)
    assert judged(102.0, one).verdict is Verdict.REGRESSED
    apart = [("THERE", 100.0), ("THERE", 103.0), ("ELSEWHERE", 90.0), ("ELSEWHERE", 92.5)]
    assert judged(102.0, *apart, one).verdict is Verdict.UNDERPOWERED
    alike = [(f"CARD-{number // 2}", 90.0 + number // 2) for number in range(20)]
    assert judged(102.0, *alike, one).verdict is Verdict.REGRESSED


@pytest.mark.parametrize(
    ("state", "words"), [({"sm_clock_mhz": 1755.0}, "1755 MHz"), ({"canary_us": {"sm_clock": 600.0}}, "sm_clock")]
)
def test_the_state_is_held_against_what_the_latency_is_held_against(state: dict[str, Any], words: str) -> None:
    usual = State(sm_clock_mhz=1980.0, canary_us={"sm_clock": 500.0})
    odd = msgspec.structs.replace(usual, **state)

    def record(here: State | None) -> CaseRecord:
        both = stored(("THERE", 100.0), ("HERE", 100.0))
        there, mine = both.sessions
        sessions = [msgspec.structs.replace(there, state=odd), msgspec.structs.replace(mine, state=here or usual)]
        return msgspec.structs.replace(both, sessions=sessions if here else sessions[:1])

    before, states = measured(100.0), [GpuState(sm_clock_mhz=1980, temperature_c=40, power_w=300.0, throttle=0)]
    replace = msgspec.structs.replace
    launches = [
        replace(one, turns=[replace(turn, canary_us=dict(usual.canary_us), states=states) for turn in one.turns])
        for one in before.launches
    ]
    now = replace(before, launches=launches)

    def problem(stored: CaseRecord) -> str:
        return measurement_summary.incomparable(now, stored.compared_with(HERE.uuid, HERE.versions))

    assert problem(record(usual)) == ""
    assert words in problem(record(odd))
    assert words in problem(record(None))


def test_what_to_do_about_too_little_evidence_is_said() -> None:
    said = sentences.sentence(CASE.id, Verdict.UNDERPOWERED, [judged(101.0, ("THERE", 100.0))], "device")
    assert said.endswith("would be seen: record one on this card, or raise the limit")
    said = sentences.sentence(CASE.id, Verdict.UNDERPOWERED, [judged(100.9, ("HERE", 100.0))], "device")
    assert said.endswith("would be seen: record more sessions, or raise the limit")


def test_an_error_of_all_tensors_together_is_not_held_against_that_of_the_worst_tensor() -> None:
    """Baselines from before outputs were compared leaf by leaf have the former, as `output_error`."""
    now = {"leaf_error": 1e-2, "engines": 1.0}

    def metrics(before: dict[str, float]) -> dict[str, Verdict]:
        found = judging.counted(CASE, now, before, lambda _metric: 1.0, TESTS)
        return {one.metric: one.verdict for one in found}

    assert metrics({"output_error": 1e-4, "engines": 1.0}) == {}
    assert metrics({"output_error": 1e-2, "leaf_error": 1e-4}) == {"leaf_error": Verdict.REGRESSED}
    assert metrics({"leaf_error": 1e-2}) == {"leaf_error": Verdict.UNCHANGED}
    older = msgspec.json.decode(b'{"build_s": 1.0, "output_error": 0.001}', type=Build)
    assert "leaf_error" not in measurement_summary.build_figures(older)


def test_the_baselines_of_this_repository_can_be_read() -> None:
    files = sorted((Path(__file__).parent.parent / "baselines").glob("*/latency.json"))
    assert files
    for file in files:
        assert all(record.sessions for record in baselines.read(file).cases.values())


def options_in(tmp_path: Path) -> Options:
    return Options(
        source=SuiteSource(root="."), selection=Selection(), baselines=tmp_path, compare=True, base=None,
        compare_file=None, update=False, accepted=(), require=frozenset(), limits={}, command_limits={}, launches=1,
        timeout_s=1.0, strict_layers=False, zoo=False, cache=None, prebuild=None, builds_in_turn=False,
        gpus="", build_only=False, report=None, timing_off="",
    )  # fmt: skip


def test_what_changes_how_figures_are_read_is_said_once_with_its_cases(tmp_path: Path) -> None:
    gate = Gate(options_in(tmp_path), HERE, RunFolder(tmp_path / "runs"))
    empty, plain = (Build(build_s=1.0, remarks=texts) for texts in (("its output holds no value",), ()))
    for name, build in (("a", empty), ("b", plain), ("c", empty), ("d", empty), ("d", empty), ("e", None)):
        gate.remark(name, build)
    turn = measured(101.0).launches[0].turns[0]
    launches = [
        Launch(loaded=Loaded(seconds=1.0), turns=[msgspec.structs.replace(turn, note=f"later calls take {growth} %")])
        for growth in (31, 32)
    ]
    gate.add(CaseResult(case_id=CASE.id, measurement=CaseMeasurement(case_id=CASE.id, launches=launches)))
    assert [str(one) for one in gate.remarks] == [
        "NOTICE: a, c and 1 more: its output holds no value",
        f"NOTICE: {CASE.id}: later calls take 32 %",
    ]


def test_a_module_that_is_kept_stays_for_the_profile_of_its_run(tmp_path: Path) -> None:
    runs = RunFolder(tmp_path / "runs")
    gate, artifact = Gate(options_in(tmp_path), HERE, runs), runs.private("net") / "artifact"
    artifact.mkdir()
    (artifact / "compiled.pt2").write_bytes(b"compiled")
    gate.keep(CASE, artifact)
    assert (artifact / "compiled.pt2").read_bytes() == b"compiled"
    shutil.rmtree(artifact)
    (kept,) = (tmp_path / "runs").rglob("compiled.pt2")
    assert kept.read_bytes() == b"compiled"
    runs.close()


def test_the_change_since_the_anchor_is_one_more_judgement_that_shares_the_error_rate(tmp_path: Path) -> None:
    options = options_in(tmp_path)
    gate = Gate(options, HERE, RunFolder(tmp_path / "runs"))
    for sessions, tests in ((3, 3), (4, 6)):  # device, host and enqueue, and as many since the anchor
        record = stored(*[("HERE", 100.0)] * sessions)
        gate.baseline = Run(path=tmp_path, accelerator=HERE, cases={CASE.id: record}, document={})
        assert gate.tests([CASE]) == tests


def test_other_cards_have_anchors_of_their_own() -> None:
    record = stored(*[("THERE", 50.0)] * 4, *[("HERE", 100.0)] * 4)
    found = judging.since_anchor(measured(101.0), record, HERE, lambda _metric: 0.01, TESTS)
    assert (found["device"].baseline, found["device"].limit) == (pytest.approx(100.0), pytest.approx(0.03))
    assert found["device"].evidence == "the anchor of 2026-01-01"
    elsewhere = msgspec.structs.replace(HERE, uuid="ELSEWHERE")
    assert judging.since_anchor(measured(101.0), record, elsewhere, lambda _metric: 0.01, TESTS) == {}


@pytest.mark.parametrize("lacking", [0, 2, 5])
def test_a_session_without_a_metric_hides_no_creep_of_it(lacking: int) -> None:
    """As one that was recorded without load between others: the anchor is the first sessions that have it."""
    levels = [100.0 * 1.3**number for number in range(9)]
    sessions = [
        msgspec.structs.replace(one, metrics={**one.metrics, **({} if number == lacking else {"host": [[us]] * 3})})
        for number, (us, one) in enumerate(zip(levels, stored(*[("HERE", 100.0)] * 8).sessions, strict=False))
    ]
    record = msgspec.structs.replace(stored(), sessions=sessions)
    now = measured(100.0)
    turns = [msgspec.structs.replace(now.launches[0].turns[0], host_us=[levels[8]])]
    now = msgspec.structs.replace(now, launches=[Launch(loaded=Loaded(seconds=1.0), turns=turns)] * 3)
    found = judging.since_anchor(now, record, HERE, lambda _metric: 0.01, TESTS)
    first = [us for number, us in enumerate(levels) if number != lacking][:3]
    assert found["host"].baseline == pytest.approx(math.prod(first) ** (1 / 3))
    assert (found["host"].verdict, found["device"].verdict) == (Verdict.REGRESSED, Verdict.UNCHANGED)
