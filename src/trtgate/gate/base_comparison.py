"""Judges a case beside a base: built on both sides, measured in turns, what is suspected confirmed by fresh pairs."""

from __future__ import annotations

from pathlib import Path

from .. import verdict
from ..common.metrics import GPU_MEMORY, METRICS, SAMPLED
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..launches.pair import BASE, CANDIDATE, Artifacts, DisturbedError, SideError
from ..launches.pair_session import PairSession
from ..launches.worker_handle import LaunchError
from ..records.measurement import CaseMeasurement
from ..suite.cases import Case
from ..verdict import Judgement, Verdict
from . import judging, measurement_summary
from .case_result import CaseResult
from .judging import LimitOf
from .paired_gate import PairedGate, Suspicion, confirmed


class BaseComparison:
    """One case beside its base; `tests` is how many judgements of the run share the error rate."""

    def __init__(
        self, pairs: PairSession, folder: RunFolder, case: Case, limit_of: LimitOf, tests: int, step: OnStep
    ) -> None:
        self._pairs = pairs
        self._folder = folder
        self._case = case
        self._limit_of = limit_of
        self._tests = tests
        self._step = step

    def result(self) -> CaseResult:
        """Build, measure, judge.

        What the base can't do is `incomparable`; what the candidate can't do raises LaunchError.
        """
        case_id = self._case.id
        result = CaseResult(case_id=case_id, measurement=CaseMeasurement(case_id=case_id, launches=[]))
        try:
            with self._folder.temporary(BASE, CANDIDATE) as folders:
                self._fill(result, folders)
        except DisturbedError as error:
            result.verdict, result.sentence = Verdict.UNDERPOWERED, f"{case_id}: {error}"
        except SideError as error:
            if error.side == CANDIDATE:
                raise LaunchError(f"{case_id}: {error}") from error
            result.verdict, result.sentence = Verdict.INCOMPARABLE, f"{case_id}: the base failed: {error}"
        return result

    def _fill(self, result: CaseResult, folders: dict[str, Path]) -> None:
        case, pairs = self._case, self._pairs
        pair = pairs.resident()
        if case.id not in pairs.greet(pair)[BASE]:
            result.verdict, result.sentence = Verdict.NEW, f"{case.id}: the base has no such case"
            return
        self._step("building base and candidate")
        built = pairs.build(pair, case.id, folders)
        stored = {name: folders[name] if built[name].stored else None for name in folders}
        artifacts = Artifacts(base=stored[BASE], candidate=stored[CANDIDATE])
        self._step("loading base and candidate")
        pair = pairs.load_resident(case.id, artifacts)
        screened = PairedGate(pairs).screen(pair, case.id, self._limit_of, self._tests, self._step)
        pairs.unload(pair)
        screened.base.build, screened.candidate.build = built[BASE].build, built[CANDIDATE].build
        result.measurement, result.base = screened.candidate, screened.base
        if screened.incomparable:
            result.verdict, result.sentence = Verdict.INCOMPARABLE, f"{case.id}: {screened.incomparable}"
            return
        now, before = measurement_summary.figures(screened.candidate), measurement_summary.figures(screened.base)
        counted = judging.counted(case, now, before, self._limit_of, self._tests)
        result.conclude(self._confirmed(artifacts, [*screened.judgements, *counted]))

    def _confirmed(self, artifacts: Artifacts, judged: list[Judgement]) -> list[Judgement]:
        suspects = {judgement.metric for judgement in judged if judgement.verdict is Verdict.REGRESSED}
        again: dict[str, Judgement] = {}
        if suspects & judging.OF_THE_BUILD:
            self._step("suspected: building base and candidate again in fresh processes")
            again |= self._built_again()
        if GPU_MEMORY in suspects:
            again |= self._loaded_again(artifacts)
        timed = tuple(metric for metric in SAMPLED if metric in suspects)
        if timed:
            suspicion = Suspicion(case_id=self._case.id, artifacts=artifacts, metrics=timed)
            again |= confirmed(self._pairs, suspicion, self._limit_of, self._tests, self._step)
        return [verdict.confirm_stored(judgement, again.get(judgement.metric, judgement)) for judgement in judged]

    def _built_again(self) -> dict[str, Judgement]:
        (pair,) = self._pairs.start(1)
        try:
            with self._folder.temporary(BASE, CANDIDATE) as folders:
                built = self._pairs.build(pair, self._case.id, folders)
        finally:
            self._pairs.end(pair)
        now, before = (measurement_summary.build_figures(built[name].build) for name in (CANDIDATE, BASE))
        return self._counted(now, before)

    def _loaded_again(self, artifacts: Artifacts) -> dict[str, Judgement]:
        loaded, figure = self._pairs.load_fresh(self._case.id, artifacts), METRICS[GPU_MEMORY].figure
        now, before = ({figure: float(loaded[name].gpu_memory_bytes or 0)} for name in (CANDIDATE, BASE))
        return self._counted(now, before)

    def _counted(self, now: dict[str, float], before: dict[str, float]) -> dict[str, Judgement]:
        judged = judging.counted(self._case, now, before, self._limit_of, self._tests)
        return {judgement.metric: judgement for judgement in judged}
