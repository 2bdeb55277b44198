"""A case that its launches can't tell from noise is measured by as many again, where that might tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trtgate import Case, Model, Settings
from trtgate.common.accelerator import Accelerator
from trtgate.gate import judging
from trtgate.gate.baseline_record import CaseRecord, State, StoredSession
from trtgate.gate.gate import Gate
from trtgate.gate.run_options import Options
from trtgate.records.measurement import Build, Capture, CaseMeasurement, Launch, Loaded, Turn
from trtgate.suite.cases import Selection
from trtgate.suite.suite_source import SuiteSource
from trtgate.verdict import Verdict

CASE = Case(Model("small", lambda: None, ()), Settings(frontend="eager", precision="fp32"))
HERE = Accelerator(kind="gpu", name="H100", uuid="HERE")
STATE = State(canary_us={"sm_clock": 500.0})
BASELINE = (100.0, 98.6, 101.3, 100.8, 99.3)
NOISY, STEADY, WILD = (98.5, 102.0, 100.5), (100.0, 99.0, 101.0), (96.0, 105.0, 103.0)


class ScriptedSession:
    """Measures what a test says, three launches a time."""

    def __init__(self, *measured: Sequence[float | Turn]) -> None:
        self.left = list(measured)
        self.renewed: list[int] = []
        """How many measurements were left when its processes were replaced."""

    def renew(self) -> None:
        self.renewed.append(len(self.left))

    def measure(self, case_id: str, _artifact: Path | None, _step: Any, _after: Any = ()) -> CaseMeasurement:
        return measurement(*self.left.pop(0), case_id=case_id)


def turn(us: float, clock: str = "cuda_graph", canary_us: float = 500.0) -> Turn:
    captures = [Capture(blocks_us=[us], replays=1)] * 4
    return Turn(clock=clock, captures=captures, host_us=[us], canary_us={"sm_clock": canary_us})


VOID = Turn(clock="cuda_graph", captures=[Capture(blocks_us=[], replays=1, void=["hot"] * 4)], host_us=[100.0])


def measurement(*launches_us: float | Turn, case_id: str = CASE.id) -> CaseMeasurement:
    launches = [
        Launch(loaded=Loaded(seconds=1.0), turns=[us if isinstance(us, Turn) else turn(us)]) for us in launches_us
    ]
    return CaseMeasurement(case_id=case_id, launches=launches, uuid=HERE.uuid, seconds=2.0)


def record(*sessions: Sequence[float]) -> CaseRecord:
    stored = [
        StoredSession(
            recorded="", uuid=HERE.uuid, clock="cuda_graph", metrics={"device": [[us] for us in launches]}, state=STATE
        )
        for launches in sessions
    ]
    return CaseRecord(case=CASE.id, settings={}, verdict="unchanged", sessions=stored)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A gate at a limit of 3 %, and a function that lets it measure what a test says."""
    options = Options(
        source=SuiteSource(root="."), selection=Selection(), baselines=tmp_path, compare=True, base=None,
        compare_file=None, update=False, accepted=(), require=frozenset(), limits={"device": 0.03}, command_limits={},
        launches=3, timeout_s=1.0, strict_layers=False, zoo=False, cache=None, prebuild=None, gpus="",
        build_only=False, report=None, timing_off="",
    )  # fmt: skip
    monkeypatch.setattr(Gate, "_record", lambda _self, _case_id: record(BASELINE))

    def run(*measured: Sequence[float | Turn], update: bool = False) -> tuple[Any, ScriptedSession, list[str]]:
        made = Gate(msgspec.structs.replace(options, update=update), HERE, tmp_path / "folder")
        session = ScriptedSession(*measured)
        monkeypatch.setattr(made, "session", lambda: session)
        return made.run(CASE, None, Build(build_s=1.0), lambda _text: None), session, made.lines

    return run


def test_noisy_launches_are_joined_by_as_many_fresh_ones(gate: Any) -> None:
    result, session, lines = gate(NOISY, STEADY)
    assert result.verdict is Verdict.UNCHANGED
    assert len(result.measurement.launches) == 6
    assert result.measurement.seconds == 4.0
    assert session.renewed == [1]
    assert lines == [f"{CASE.id}: 3 launches could not tell; judged by 6"]


def test_they_are_measured_once_however_noisy_they_are(gate: Any) -> None:
    result, session, _ = gate(NOISY, WILD, STEADY)
    assert result.verdict is Verdict.UNDERPOWERED
    assert session.left == [STEADY]


@pytest.mark.parametrize("launches_us", [(100.0, 100.5, 99.5), WILD])
def test_none_are_measured_where_these_tell_or_more_would_not(gate: Any, launches_us: Sequence[float]) -> None:
    result, session, lines = gate(launches_us, STEADY)
    assert len(result.measurement.launches) == 3
    assert (session.left, lines) == ([STEADY], [])


def test_a_suspect_is_measured_once_more_and_no_further(gate: Any) -> None:
    result, session, lines = gate((110.0, 110.1, 109.9), STEADY, STEADY)
    assert result.verdict is Verdict.UNCONFIRMED
    assert (session.left, lines) == ([STEADY], [])


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ((VOID, 100.0, 100.0), "4 of 12 blocks do not count: hot"),
        ((turn(100.0, clock="cuda_events"),) * 3, "cuda_events"),
        ((turn(100.0, canary_us=600.0),) * 3, "another state"),
    ],
)
def test_further_launches_that_can_not_be_compared_do_not_count(
    gate: Any, further: Sequence[float | Turn], words: str
) -> None:
    result, _, lines = gate(NOISY, further)
    assert result.verdict is Verdict.UNDERPOWERED
    assert result.judgements
    assert result.stored
    assert len(result.measurement.launches) == 3
    assert words in lines[0]
    assert "further launches do not count" in lines[0]


def test_while_recording_no_more_are_measured(gate: Any) -> None:
    result, session, _ = gate(NOISY, STEADY, update=True)
    assert (result.verdict, result.stored, session.left) == (Verdict.UNDERPOWERED, True, [STEADY])


def test_where_too_few_sessions_are_the_reason_more_launches_would_not_tell() -> None:
    """The prior's 0.1 % between sessions is what a limit of 0.3 % fails at."""
    judged = (CASE, measurement(100.0, 100.0, 100.0), record((100.0, 100.0, 100.0)), HERE)
    assert not judging.further_might_tell(*judged, lambda _metric: 0.003, 1)
    apart = (CASE, measurement(*NOISY), record(BASELINE), HERE)
    assert judging.further_might_tell(*apart, lambda _metric: 0.03, 3)


def test_without_a_baseline_no_more_are_measured(gate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "_record", lambda _self, _case_id: None)
    result, session, _ = gate(WILD, STEADY)
    assert (result.verdict, session.left) == (Verdict.NEW, [STEADY])
