"""A run's memory: what was measured, judged against what, and what is to be stored. Knows no pytest.

It is longer than other files: measuring, judging, confirming and storing share the state of one run.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from .. import verdict
from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError
from ..common.metrics import SAMPLED
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..launches.base_revision import BaseRevision
from ..launches.comparison_side import Side
from ..launches.pair import BASE, CANDIDATE, Artifacts, DisturbedError, SideError
from ..launches.pair_session import PairSession
from ..launches.session import NextCase, Session
from ..records.measurement import Build, CaseMeasurement
from ..records.profile_record import Profile
from ..suite.cases import Case
from ..verdict import Judgement, Verdict
from . import baselines, judging, kept_artifacts, measurement_summary
from .base_comparison import BaseComparison
from .baseline_record import CaseRecord
from .baselines import Run
from .case_result import CaseResult
from .judging import LimitOf
from .paired_gate import Suspicion, confirmed
from .run_options import Options
from .sentences import about_new


class Gate:
    """Measures cases with workers and judges them against one baseline, or against a base measured beside them.

    Raises TrtgateError, on construction, for a baseline file that is broken or of another accelerator, and for a base
    that can't be made ready.
    """

    def __init__(self, options: Options, accelerator: Accelerator, folder: Path) -> None:
        self.options = options
        self.accelerator = accelerator
        self.folder = RunFolder(folder)
        self.results: dict[str, CaseResult] = {}
        self.lines: list[str] = []
        """What is worth saying at the end, beside the verdicts."""
        self.cases_collected: list[Case] = []
        self.cases_at_once = 1
        """How many cases workers load together; to be said before they start."""
        self.accepted: set[str] = set()
        """Ids of cases that may be stored although they regressed."""
        self.baseline = self._find_baseline() if options.compare else None
        self.base_cases: list[str] = []
        self._session: Session | None = None
        self._pairs: PairSession | None = None
        self._kept: dict[str, Path] = {}
        self._logs = self.folder.logs
        self._base: BaseRevision | None = None
        if options.base is not None:
            self._base = BaseRevision(options.base, options.source, folder, timeout_s=options.timeout_s)

    # What it is compared with

    @property
    def baseline_path(self) -> Path:
        """Where this accelerator's baseline lies, or would."""
        return self.options.compare_file or baselines.path_of(self.options.baselines, self.accelerator.key)

    def _find_baseline(self) -> Run | None:
        path = self.baseline_path
        if not path.exists():
            return None
        found = baselines.read(path)
        if found.accelerator.key != self.accelerator.key:
            raise TrtgateError(
                f"{path} was recorded on {found.accelerator.key}, and this machine is {self.accelerator.key}: "
                "latencies of different accelerators can't be compared"
            )
        return found

    @property
    def tests(self) -> int:
        """How many statistical judgements the run makes: they share the error rate (Bonferroni)."""
        gpu = self.accelerator.kind == "gpu"
        return max(1, sum(len(judging.statistical_metrics(case, gpu=gpu)) for case in self.cases_collected))

    # Workers

    def start(self) -> None:
        """Start the workers: they import while the first case is built. A base must answer first.

        Raises TrtgateError when the base can't import its suite.
        """
        if self._base is None:
            self.session().start()
            return
        pair = self.pairs().resident()
        try:
            self.base_cases = pair.greet()[BASE]
        except SideError as error:
            self.pairs().close()
            raise TrtgateError(f"the {error.side} {self.options.base} can't be used: {error}") from error

    def session(self) -> Session:
        """Return the session of resident workers."""
        if self._session is None:
            self._session = Session(
                self.options.source,
                self.accelerator,
                self._logs,
                launches=self.options.launches,
                timeout_s=self.options.timeout_s,
                tensorrt=any(case.settings.uses_tensorrt for case in self.cases_collected),
                cases_at_once=self.cases_at_once,
            )
        return self._session

    def pairs(self) -> PairSession:
        """Return the session of pairs: the base's code beside the candidate's, or, without a base, the same twice."""
        if self._pairs is None:
            candidate = Side(name=CANDIDATE, source=self.options.source)
            base = self._base.side if self._base else msgspec.structs.replace(candidate, name=BASE)
            self._pairs = PairSession(base, candidate, self.accelerator, self._logs, timeout_s=self.options.timeout_s)
        return self._pairs

    def on(self, accelerator: Accelerator) -> Gate:
        """Return this gate with workers on another card of the key; what it measures it returns and does not keep."""
        other = copy.copy(self)
        other.accelerator, other.results = accelerator, {}
        other._session = other._pairs = None
        other._logs = self.folder.logs / accelerator.uuid
        return other

    def stop(self) -> None:
        """End the workers under another thread's hands: it sees them gone."""
        for session in (self._session, self._pairs):
            if session is not None:
                session.stop()

    def close_workers(self) -> None:
        """End the workers."""
        for session in (self._session, self._pairs):
            if session is not None:
                session.close()

    def close(self) -> None:
        """End the workers, and remove what goes with the run."""
        self.close_workers()
        if self._base is not None:
            self._base.close()
        self.folder.close()

    # Against a baseline

    def run(
        self, case: Case, artifact: Path | None, build: Build, step: OnStep, after: Sequence[NextCase] = ()
    ) -> CaseResult:
        """Measure a case and judge it; a suspect is measured again in fresh launches, and built again if need be.

        Where as many launches again might tell what these can't, they are measured too.

        `after` may be loaded with it. Raises LaunchError when a launch fails.
        """
        result = self._measured(case, artifact, build, step, after)
        if self._further_might_tell(case, result):
            result = self._measured_further(case, result, artifact, step)
        suspects = {judgement.metric for judgement in result.judgements if judgement.verdict is Verdict.REGRESSED}
        if suspects:
            result = self._measure_again(case, result, suspects, artifact, step)
        self.results[case.id] = result
        return result

    def _measured(
        self, case: Case, artifact: Path | None, build: Build | None, step: OnStep, after: Sequence[NextCase] = ()
    ) -> CaseResult:
        measurement = self.session().measure(case.id, artifact, step, after)
        measurement.build = build
        if measurement.blocks_us():
            return self._judge(case, measurement)
        said = f"{case.id}: not one block counts: {measurement_summary.void_problem(measurement)}"
        if not self.options.compare or self.options.update:
            raise TrtgateError(said)
        nothing = CaseMeasurement(case_id=case.id, launches=[])
        return CaseResult(case_id=case.id, measurement=nothing, verdict=Verdict.UNDERPOWERED, sentence=said)

    def _further_might_tell(self, case: Case, result: CaseResult) -> bool:
        record = self._record(case.id)
        if self.options.update or result.verdict is not Verdict.UNDERPOWERED or not result.judgements or record is None:
            return False  # what can't be told is recorded all the same
        limit_of = self._limit_of(case)
        return judging.further_might_tell(case, result.measurement, record, self.accelerator, limit_of, self.tests)

    def _measured_further(self, case: Case, first: CaseResult, artifact: Path | None, step: OnStep) -> CaseResult:
        """Judge by the launches that there are and as many fresh ones, unless these can't be compared."""
        step("too noisy to tell: measuring further launches")
        self.session().renew()
        more, record = self.session().measure(case.id, artifact, step), self._record(case.id)
        assert record is not None
        problem = measurement_summary.void_problem(more) or measurement_summary.incomparable(more, record)
        if problem:
            self.lines.append(f"{case.id}: further launches do not count: {problem}")
            return first
        launches, seconds = first.measurement.launches, first.measurement.seconds
        both = msgspec.structs.replace(
            first.measurement, launches=[*launches, *more.launches], seconds=seconds + more.seconds
        )
        self.lines.append(f"{case.id}: {len(launches)} launches could not tell; judged by {len(both.launches)}")
        return self._judge(case, both)

    def _limit_of(self, case: Case) -> LimitOf:
        return lambda metric: self.options.limit(metric, case, {})

    def _record(self, case_id: str) -> CaseRecord | None:
        return self.baseline.cases.get(case_id) if self.baseline else None

    def recorded(self, case_id: str, figure: str) -> float | None:
        """Return a figure of a case's baseline, such as how long it measured; None where there is none."""
        record = self._record(case_id)
        return None if record is None else record.figures.get(figure)

    def cards_of(self, case_id: str) -> list[str]:
        """Return the cards that a case has stored sessions of, those with most of them first."""
        record = self._record(case_id)
        return [] if record is None else record.cards

    def _judge(self, case: Case, measurement: CaseMeasurement) -> CaseResult:
        result = CaseResult(case_id=case.id, measurement=measurement, stored=True)
        if not self.options.compare:
            return result
        void, record = measurement_summary.void_problem(measurement), self._record(case.id)
        if void:
            result.verdict, result.sentence, result.stored = Verdict.UNDERPOWERED, f"{case.id}: {void}", False
        elif record is None:
            result.verdict, result.sentence = Verdict.NEW, self._new_sentence(case)
        else:
            self._judge_stored(case, result, record)
        return result

    def _judge_stored(self, case: Case, result: CaseResult, record: CaseRecord) -> None:
        measurement = result.measurement
        problem = measurement_summary.incomparable(measurement, record)
        if problem:
            result.verdict, result.stored = Verdict.INCOMPARABLE, case.id in self.accepted
            result.sentence = f"{case.id}: {problem}"
            return
        judged = judging.against_stored(case, measurement, record, self.accelerator, self._limit_of(case), self.tests)
        if measurement.primary not in {judgement.metric for judgement in judged}:
            raise TrtgateError(
                f"{self.baseline_path}: case {case.id} has no {measurement.primary} latency; record it anew"
            )
        self._conclude(case, result, judged)

    def _conclude(self, case: Case, result: CaseResult, judgements: list[Judgement]) -> None:
        result.conclude(judgements)
        result.stored = result.verdict is not Verdict.REGRESSED or case.id in self.accepted

    def _measure_again(
        self, case: Case, first: CaseResult, suspects: set[str], artifact: Path | None, step: OnStep
    ) -> CaseResult:
        """Let fresh processes say whether what is suspected is so: each suspected metric by what it depends on."""
        again: dict[str, Judgement] = {}
        if suspects & judging.OF_THE_BUILD:
            step("building again in a fresh process")
            again |= self._built_again(case)
        sampled = suspects - judging.OF_THE_BUILD
        kept = self._kept_artifact(case) if artifact else None
        timed = [metric for metric in SAMPLED if metric in sampled]
        if timed and kept is not None:
            again |= self._confirmed_beside_kept(case, Artifacts(base=kept, candidate=artifact), timed, step)
            sampled -= again.keys()
        result = first
        if sampled:
            step("slower than the baseline: measuring again in fresh launches")
            self.session().renew()
            result = self._measured(case, artifact, first.measurement.build, step)
            if result.judgements:
                again |= {one.metric: one for one in result.judgements if one.metric in sampled}
            elif any(judgement.verdict is Verdict.REGRESSED for judgement in again.values()):
                result = first
                again |= {metric: _unconfirmed(first, metric) for metric in sampled}
            else:  # the machine's state changed meanwhile, or too many blocks are void
                return result
        self._conclude(
            case,
            result,
            [
                verdict.confirm_stored(judgement, again.get(judgement.metric, judgement))
                for judgement in first.judgements
            ],
        )
        return result

    def _confirmed_beside_kept(
        self, case: Case, artifacts: Artifacts, metrics: list[str], step: OnStep
    ) -> dict[str, Judgement]:
        """Confirm in pairs; nothing is said where the kept compiled module fails: that is not the candidate's fault."""
        suspicion = Suspicion(case_id=case.id, artifacts=artifacts, metrics=tuple(metrics))
        try:
            return confirmed(self.pairs(), suspicion, self._limit_of(case), self.tests, step)
        except DisturbedError as error:
            reason = str(error)
        except SideError as error:
            if error.side == CANDIDATE:
                raise
            reason = f"it failed: {error}"
        self.lines.append(f"{case.id}: not measured beside the baseline's compiled module: {reason}")
        return {}

    def _built_again(self, case: Case) -> dict[str, Judgement]:
        record = self._record(case.id)
        assert record is not None
        with self.folder.temporary(CANDIDATE) as folders:
            build = self.session().build_fresh(case.id, folders[CANDIDATE])
        figures = measurement_summary.build_figures(build)
        judged = judging.counted(case, figures, record.figures, self._limit_of(case), self.tests)
        return {judgement.metric: judgement for judgement in judged}

    def _kept_artifact(self, case: Case) -> Path | None:
        """Return the baseline's compiled module, if this machine keeps it for this very card and these versions."""
        record = self._record(case.id)
        if record is None:
            return None
        recorded = record.of_card(self.accelerator.uuid)[-1].recorded
        found, reason = kept_artifacts.find(self.folder.path, case.id, recorded, self.accelerator)
        if found is None:
            self.lines.append(f"{case.id}: not measured beside the baseline's compiled module: {reason}")
        return found

    # Against a base

    def run_against_base(self, case: Case, step: OnStep) -> CaseResult:
        """Measure a case beside its base and judge it. Raises LaunchError for what the candidate can't do."""
        beside = BaseComparison(self.pairs(), self.folder, case, self._limit_of(case), self.tests, step)
        self.results[case.id] = beside.result()
        return self.results[case.id]

    def profiles_beside_base(self, case: Case, step: OnStep) -> tuple[Profile, Profile]:
        """Profile a case on both sides; returns the base's and the candidate's. Raises SideError."""
        found = self.pairs().profile(case.id, step)
        return found[BASE], found[CANDIDATE]

    # What is stored and said

    def _new_sentence(self, case: Case) -> str:
        return about_new([case.id], self.accelerator.key, self.other_keys())

    def other_keys(self) -> list[str]:
        """Return the other accelerators that there are baselines for."""
        return [key for key in baselines.keys(self.options.baselines) if key != self.accelerator.key]

    def keep(self, case: Case, artifact: Path) -> None:
        """Keep a case's compiled module, to be measured beside later ones if its baseline is stored."""
        kept = self.folder.private("kept") / "artifact"
        artifact.rename(kept)
        self._kept[case.id] = kept

    def missing(self, excused: set[str]) -> list[str]:
        """Return the cases of the baseline, or of the base, that got no result and are not in `excused`."""
        stored: list[str] = list(self.baseline.cases) if self.baseline else self.base_cases
        return [case_id for case_id in stored if case_id not in self.results and case_id not in excused]

    def save_run(self, document: Mapping[str, Any]) -> Path:
        """Store everything this run measured so far, regressed cases too. Raises TrtgateError."""
        return self.folder.save_run(document, self.accelerator.key)

    def update_baseline(self, run: Run) -> list[baselines.Update]:
        """Write the cases of a saved run that may be stored, and keep their compiled modules."""
        ids = [case_id for case_id, result in self.results.items() if result.stored]
        done = baselines.update(self.options.baselines, run, ids) if ids else []
        for update in done:
            kept = self._kept.get(update.case_id)
            if kept is not None:
                recorded = run.cases[update.case_id].sessions[-1].recorded
                uuid = self.results[update.case_id].measurement.uuid
                card = msgspec.structs.replace(self.accelerator, uuid=uuid)
                kept_artifacts.keep(self.folder.path, kept, update.case_id, recorded, card)
        return done


def _unconfirmed(result: CaseResult, metric: str) -> Judgement:
    """Return a suspicion of which a second measurement could say nothing."""
    judged = next(judgement for judgement in result.judgements if judgement.metric == metric)
    return msgspec.structs.replace(judged, verdict=Verdict.UNCONFIRMED)
