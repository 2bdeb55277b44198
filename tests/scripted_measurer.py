"""A measurer without processes: it gives what a test wrote down, and notes what it was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trtgate import Case, Model, Settings
from trtgate.common.accelerator import Accelerator
from trtgate.gate.baseline_record import CaseRecord, State, StoredSession
from trtgate.gate.case_result import CaseResult
from trtgate.gate.driver import drive
from trtgate.gate.policy import Measured, Pair, Rebuild, Rebuilt, Reloaded, Situation
from trtgate.records.measurement import Build, Capture, CaseMeasurement, Launch, Loaded, Quadruple, Turn

CASE = Case(Model("small", lambda: None, ()), Settings(frontend="eager", precision="fp32"))
TENSORRT = Case(Model("net", lambda: None, ()), Settings(frontend="dynamo"))
HERE = Accelerator(kind="gpu", name="H100", uuid="HERE")
STATE = State(canary_us={"sm_clock": 500.0})


@dataclass
class ScriptedMeasurer:
    """Each list is what successive requests of a kind get; an exception in it is raised instead."""

    measured: Sequence[Measured | CaseMeasurement | Exception] = ()
    fresh: Sequence[CaseMeasurement | Exception] = ()
    rebuilt: Sequence[Rebuilt | Exception] = ()
    reloaded: Sequence[Reloaded | Exception] = ()
    paired: Sequence[list[list[Quadruple]] | Exception] = ()
    asked: list[str] = field(default_factory=list)
    host: Sequence[CaseMeasurement | Exception] = ()
    awaited: list[bool] = field(default_factory=list)
    """Of each build again: whether pairs were to follow."""

    def _next(self, kind: str, script: Sequence[Any]) -> Any:
        number = sum(one.startswith(kind) for one in self.asked)
        self.asked.append(kind)
        assert number < len(script), f"nothing is written down for {kind}"
        if isinstance(script[number], Exception):
            raise script[number]
        return script[number]

    def measure(self, step: Any) -> Measured:
        found = self._next("measure", self.measured)
        return Measured(found) if isinstance(found, CaseMeasurement) else found

    def measure_host(self, step: Any) -> CaseMeasurement:
        return self._next("host", self.host)

    def measure_fresh(self, step: Any) -> CaseMeasurement:
        return self._next("fresh", self.fresh)

    def rebuild(self, wanted: Rebuild, step: Any) -> Rebuilt:
        self.awaited.append(wanted.pairs_next)
        return self._next("rebuild", self.rebuilt)

    def reload(self, step: Any) -> Reloaded:
        return self._next("reload", self.reloaded)

    def pairs(self, wanted: Pair, step: Any) -> list[list[Quadruple]]:
        found = self._next("pairs", self.paired)
        self.asked[-1] = f"pairs {wanted.count}"
        return found


def judged(measurer: ScriptedMeasurer, **given: Any) -> CaseResult:
    """Drive a case through the policy; `given` are fields of the situation, at a limit of 3 % and three tests."""
    situation = {"case": CASE, "accelerator": HERE, "limit_of": lambda _metric: 0.03, "tests": 3, **given}
    return drive(Situation(**situation), measurer, lambda _text: None)


def turn(us: float, clock: str = "cuda_graph", canary_us: float = 500.0) -> Turn:
    captures = [Capture(blocks_us=[us], replays=1)] * 4
    return Turn(clock=clock, captures=captures, host_us=[us], enqueue_us=[us], canary_us={"sm_clock": canary_us})


VOID = Turn(clock="cuda_graph", captures=[Capture(blocks_us=[], replays=1, void=["hot"] * 4)], host_us=[100.0])


def measurement(*launches_us: float | Turn, build: Build | None = None, memory: int | None = None) -> CaseMeasurement:
    launches = [
        Launch(
            loaded=Loaded(seconds=1.0, gpu_memory_bytes=memory),
            turns=[us if isinstance(us, Turn) else turn(us)],
        )
        for us in launches_us
    ]
    return CaseMeasurement(case_id=CASE.id, launches=launches, uuid=HERE.uuid, seconds=2.0, build=build)


def record(*sessions: Sequence[float], figures: dict[str, float] | None = None) -> CaseRecord:
    stored = [
        StoredSession(
            recorded="", uuid=HERE.uuid, clock="cuda_graph", metrics={"device": [[us] for us in launches]}, state=STATE
        )
        for launches in sessions
    ]
    return CaseRecord(case=CASE.id, settings={}, verdict="unchanged", sessions=stored, figures=figures or {})


def pairs(change: float, count: int, spread: float = 0.001) -> list[list[Quadruple]]:
    """Return pairs whose candidate is slower by a fraction, with a known spread around it."""
    made = []
    for number in range(count):
        us = 100 * (1 + change) * (1 + spread * (number % 3 - 1))
        made.append([Quadruple(base=[turn(100.0)] * 2, candidate=[turn(us)] * 2)] * 4)
    return made
