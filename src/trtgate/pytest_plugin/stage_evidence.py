"""What a stage of a larger run measures, step by step, as far as it is this stage's to do."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from ..common.run_places import Place
    from ..common.steps import OnStep
    from ..fleet.manifest import Manifest
    from ..fleet.stage_record import CaseEvidence, Open
    from ..gate.case_result import CaseResult
    from ..gate.driver import Measurer
    from ..gate.policy import Situation
    from ..gate.run_options import Options
    from ..suite.cases import Case, Suite


class StageEvidence:
    """What was found so far. Raises TrtgateError, on construction, for a file to confirm that is none."""

    def __init__(self, options: Options) -> None:
        self.open = _read_open(options.confirm)
        """What is to be confirmed; None for a shard."""
        self.shard = options.shard
        self.manifest: Manifest | None = None
        """Known once the cases are collected."""
        self.of_cases: dict[str, CaseEvidence] = {}
        self.unchecked: list[str] = []
        """Cases of the baseline whose accuracy a filter left out."""

    @property
    def part(self) -> str:
        """`2/8`, or that it confirms."""
        from ..fleet.stage_record import CONFIRMATION

        return self.shard or CONFIRMATION

    def family(self, suite: Suite) -> list[Case]:
        """Return the cases that share the error rate: those of all shards that are timed."""
        return [] if self.manifest is None else [suite.cases[name] for name in self.manifest.timed]

    def drive(
        self, situation: Situation, made: Callable[[Situation], Measurer], step: OnStep, machine: dict[str, str]
    ) -> CaseResult:
        """Do the steps of this stage; `made` makes the measurer, `machine` is the card's. Raises as `driver.drive`.

        The result is what was measured, without a verdict.
        """
        from ..fleet.stage_record import CaseEvidence
        from ..gate import driver
        from ..gate.case_result import CaseResult
        from ..gate.policy import Conclude, is_of_first_stage, together

        case_id, replace = situation.case.id, msgspec.structs.replace
        machines = {situation.accelerator.uuid: machine}
        if self.open is not None:
            before = self.open.evidence[case_id]
            first_card = replace(situation.accelerator, uuid=before.uuid)
            machines = {**machines, **before.machines}
            situation = replace(situation, evidence=before.evidence, accelerator=first_card, known=before.known)
        does = is_of_first_stage if self.open is None else lambda _step: True
        situation, wanted = driver.gather(situation, made(situation), step, does=does)
        found = situation.evidence
        self.of_cases[case_id] = CaseEvidence(
            evidence=found, uuid=situation.accelerator.uuid, recorded=now(), pairable=situation.pairable,
            lacking=situation.beside_base and bool(situation.new), known=situation.known, machines=machines,
        )  # fmt: skip
        if isinstance(wanted, Conclude):
            return CaseResult(case_id=case_id, measurement=wanted.result.measurement, base=wanted.result.base)
        assert found.first is not None
        first, more = found.first.candidate, found.further
        measurement = first if more is None else together(first, more)
        return CaseResult(case_id=case_id, measurement=measurement, base=found.first.base)


def _read_open(path: Place | None) -> Open | None:
    if path is None:
        return None
    from ..fleet import stage_record

    return stage_record.read_open(path)


def now(timespec: str = "seconds") -> str:
    """Return the time: UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec=timespec)
