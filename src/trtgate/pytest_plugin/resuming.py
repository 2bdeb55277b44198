"""`--trtgate-resume`: a run that is started again takes what it measured before it was ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from ..common import run_places
from ..common.errors import PROBLEMS, sentence_of
from ..common.explanations import Explanation, explained
from ..common.metrics import METRICS
from ..common.notices import Notice, Severity
from ..common.run_places import EVIDENCE
from ..common.text_columns import first_few, number_of
from ..common.version import VERSION
from .stage_evidence import now

if TYPE_CHECKING:
    from ..common.steps import OnStep
    from ..fleet.kept_evidence import KeptEvidence, RunIdentity
    from ..gate.case_result import CaseResult
    from ..gate.driver import Measurer
    from ..gate.policy import Situation
    from ..records.program_part import ProgramPart

MOST_NAMED = 3


class Resuming:
    """Keeps what was measured of each case, and takes what an earlier attempt kept; threads may share it."""

    def __init__(self, run: Any) -> None:
        self._run = run  # a `gate_run.GateRun`, which has this
        self._guard = threading.RLock()
        self._taken: list[str] = []
        self._failed = False

    def drive(
        self, situation: Situation, made: Callable[[Situation], Measurer], step: OnStep, program: ProgramPart | None
    ) -> CaseResult:
        """Judge what was kept of a case and of its program, or measure it and keep that. Raises as `driver.drive`."""
        from ..gate import driver
        from ..gate.policy import Conclude

        kept = self._kept_of(situation, program)
        if kept is not None:
            card = msgspec.structs.replace(situation.accelerator, uuid=kept.found.uuid)
            situation = msgspec.structs.replace(situation, evidence=kept.found.evidence, accelerator=card)
            self._taken.append(situation.case.id)
        situation, concluded = driver.gather(situation, made(situation), step)
        assert isinstance(concluded, Conclude)
        if kept is None:
            self._keep(situation, program)
        return concluded.result

    @cached_property
    def _identity(self) -> RunIdentity | None:
        """What an earlier attempt must have in common with this one; None where the code has no name."""
        from ..fleet.kept_evidence import RunIdentity
        from ..fleet.manifest import digest_of_suite
        from ..fleet.merged_run import digest_of
        from ..gate import history

        run, options = self._run, self._run.options
        commit = history.commit_of(run.json.commit_info)
        if not commit.id or commit.dirty:
            why = "has changes that no commit has" if commit.id else "is in no git repository"
            said = f"nothing is resumed or kept for that: the code {why} (--trtgate-resume)"
            run.say(explained(said, Explanation.NOT_RESUMED), Severity.WARNING)
            return None
        return RunIdentity(
            trtgate=VERSION, key=run.accelerator.key, versions=run.accelerator.versions, commit=commit.id,
            suite=digest_of_suite(options.source.root, options.source.sha256),
            baseline=digest_of(run.gate.baseline_path) if run.gate.baseline else "",
            launches=options.launches, streams=options.streams, cold_starts=options.cold_starts, load=options.load,
            tests=run.gate.tests(run.cases_collected),
        )  # fmt: skip

    @cached_property
    def _store(self) -> dict[str, KeptEvidence]:
        from ..fleet import kept_evidence

        folder, identity = self._run.options.runs, self._identity
        if folder is None or identity is None:
            return {}
        try:
            found, broken = kept_evidence.read(folder, identity)
        except PROBLEMS as error:
            found, broken = {}, [f"nothing is resumed: {sentence_of(error)}"]
        self._run.notices += [Notice(explained(said, Explanation.NOT_RESUMED), Severity.WARNING) for said in broken]
        return found

    def _kept_of(self, situation: Situation, program: ProgramPart | None) -> KeptEvidence | None:
        from ..fleet import kept_evidence

        with self._guard:
            found = self._store.get(situation.case.id)
        return found if found and kept_evidence.fits(found, _limits(situation), program) else None

    def _keep(self, situation: Situation, program: ProgramPart | None) -> None:
        """Put what was measured of a case where runs are kept; where that fails, a line says so once."""
        from ..fleet.kept_evidence import KeptEvidence
        from ..fleet.stage_record import CaseEvidence

        folder, identity, run = self._run.options.runs, self._identity, self._run
        if folder is None or identity is None or self._failed:
            return
        uuid = situation.accelerator.uuid
        found = CaseEvidence(
            evidence=situation.evidence, uuid=uuid, recorded=now(), pairable=situation.pairable,
            machines={uuid: run.gate.machine(uuid)},
        )  # fmt: skip
        kept = KeptEvidence(
            run=identity, case_id=situation.case.id, limits=_limits(situation), program=program,
            found=found,
        )  # fmt: skip
        try:
            name = run.run_folder.named(identity.key)
            content = msgspec.json.encode(kept)
            run_places.put(folder, name, content, key=identity.key, commit=identity.commit, kind=EVIDENCE)
        except PROBLEMS as error:
            self._failed = True
            said = f"what is measured is not kept for a run that resumes: {sentence_of(error)}"
            run.say(explained(said, Explanation.NOT_RESUMED), Severity.WARNING)

    def said(self) -> list[Notice]:
        """Return what the end of the run says of it."""
        count = len(self._taken)
        if not count:
            return []
        which = first_few(sorted(self._taken), MOST_NAMED)
        return [Notice(f"resumed: a run that was ended measured {number_of(count, 'case')}: {which}", Severity.NOTICE)]


def _limits(situation: Situation) -> dict[str, float]:
    return {metric: situation.limit_of(metric) for metric in METRICS}
