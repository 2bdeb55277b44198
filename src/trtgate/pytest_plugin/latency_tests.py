"""What a latency test calls: measure, hand the samples to pytest-benchmark, turn the verdict into an outcome."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from .. import frontends
from ..common.errors import PROBLEMS, TrtgateError
from ..common.explanations import Explanation, explained
from ..suite import quarantines
from ..suite.cases import Case
from . import build_only, loading_ahead
from .built_case import BuiltCase, said
from .gate_run import GateRun
from .markers import held_to
from .profile_tests import profiles_of

if TYPE_CHECKING:
    from ..gate.case_result import CaseResult


class ReplayTimer:
    """A timer for pytest-benchmark whose differences are durations that were measured already, in seconds."""

    def __init__(self) -> None:
        self.durations: list[float] = []
        self._calls = 0

    def __call__(self) -> float:
        """Return 0 at the start of a round and its duration at the end. Raises TrtgateError after the last."""
        self._calls += 1
        if self._calls > 2 * len(self.durations):
            said = "this test's benchmark was asked to time more than trtgate measured: a conftest or plugin calls it"
            said = f"{said}, or replaces the fixture latency_gate"
            raise TrtgateError(explained(said, Explanation.OUTSIDE_INTERFERENCE))
        return 0.0 if self._calls % 2 else self.durations[self._calls // 2 - 1]


TIMER = pytest.StashKey[ReplayTimer]()


class LatencyGate:
    """Measures a built case, hands the samples to pytest-benchmark, and turns the verdict into an outcome."""

    def __init__(self, run: GateRun, item: pytest.Item, limits: dict[str, float]) -> None:
        self._run = run
        self._item = item
        self._timer = item.stash[TIMER]
        self._limits = limits

    def __call__(self, benchmark: Any, built: BuiltCase) -> None:
        """Fail, skip or pass the calling test. Raises TrtgateError when the case is wrong or can't be measured."""
        options, case = self._run.options, held_to(self._limits, built.case)
        if options.build_only:
            self._build(built)
            return
        if options.timing_off:
            pytest.skip(explained(f"not timed: {options.timing_off}", Explanation.NOTHING_COMPARED))
        self._run.failed.add(case.id)  # until it is known to be otherwise
        try:
            result = (self._measured_beside_base if options.base else self._measured)(case, built)
            self._run.gate.add(result)
            if result.measurement.launches:
                self._hand_over(benchmark, case, result)
                self._run.benchmarks[case.id] = benchmark
            elif result.verdict == "same" or self._run.stage is not None:
                benchmark.skipped = True  # it has no samples, and pytest-benchmark need not warn
        except BaseException:
            benchmark.has_error = True
            raise
        with contextlib.suppress(*PROBLEMS):  # a run that is killed keeps what it measured; the end says what failed
            self._run.save_case(benchmark)
        self._run.failed.discard(case.id)
        from ..report import junit  # and with it NumPy and SciPy

        self._item.user_properties += junit.properties(result)
        if self._run.stage is None:  # else `trtgate merge` concludes
            self._conclude(benchmark, case, result, built)

    def _build(self, built: BuiltCase) -> None:
        made, frontend = built.check(), frontends.get(built.case.settings.frontend)
        left = "nothing: it can't be stored" if frontends.stores(built.case) and not made.artifact else frontend.stores
        ways = [said(built.case.id, built.build.ways)] if built.build.ways else []
        found = build_only.BuiltForLater(case_id=built.case.id, build=built.build, left=left, notes=made.notes + ways)
        self._item.user_properties.append(build_only.property_of(found))

    def _measured(self, case: Case, built: BuiltCase) -> CaseResult:
        from ..gate.card_jobs import Job

        run, name = self._run, self._item.nodeid
        job = Job(case=case, artifact=built.artifact, build=built.build)
        if run.gpu_queue is not None and name in run.gpu_queue:
            with run.devices.progress(run, case.id) as step:
                return run.gpu_queue.result(name, step)
        with run.progress(case.id) as step:
            return run.measure(run.workers[0], job, step, loading_ahead.after(run, self._item))

    def _measured_beside_base(self, case: Case, built: BuiltCase) -> CaseResult:
        run, after = self._run, loading_ahead.pairs_after(self._run, self._item)
        with run.progress(case.id) as step:
            return run.measure_beside_base(case, step, built.ahead_beside_base(), after)

    def _hand_over(self, benchmark: Any, case: Case, result: CaseResult) -> None:
        seconds = [us * 1e-6 for us in result.measurement.blocks_us()]
        self._timer.durations = seconds
        benchmark.pedantic(_nothing, rounds=len(seconds))
        if benchmark.stats is None or benchmark.stats.stats.data != seconds:
            said = f"{case.id}: pytest-benchmark stored other samples than were measured: a conftest or plugin replaces"
            said = f"{said} its timer or its `benchmark` fixture for this test"
            raise TrtgateError(explained(said, Explanation.OUTSIDE_INTERFERENCE))
        benchmark.extra_info["trtgate"] = msgspec.to_builtins(self._run.gate.record_of(case, result))

    def _conclude(self, benchmark: Any, case: Case, result: CaseResult, built: BuiltCase) -> None:
        from ..gate.outcome import Kind, outcome
        from ..gate.sentences import advice

        run, quarantine = self._run, case.settings.quarantine
        accepted, verdict = case.id in run.accepted, str(result.verdict or "")
        expired = quarantine is not None and quarantines.in_force(quarantine) is None
        regressed = verdict == "regressed" and not accepted
        if regressed or expired or result.moved:
            benchmark.has_error = True  # pytest-benchmark would save it all the same
        where = ""
        if regressed and not expired:
            run.where[case.id] = profiles_of(run).where(built)
            where = run.where[case.id].sentence
        found = outcome(
            verdict, case.id, result.sentence, require=run.options.require, quarantine=quarantine,
            accepted=accepted and result.stored, updating=run.options.update, suspected=result.suspected, where=where,
            moved=result.moved,
            advice=advice(verdict, case.id, beside_base=run.options.base is not None) if regressed else "",
        )  # fmt: skip
        if found.kind is Kind.FAILED:
            run.gate.add(msgspec.structs.replace(result, stored=False))
            pytest.fail(found.text, pytrace=False)
        if found.kind is Kind.SKIPPED:
            for notice in found.notices:
                (run.notices if notice.loud else run.undecided).append(notice)
            pytest.skip(found.text)
        run.notices += found.notices
        if verdict == "new" and not run.options.update:
            run.new.append(case.id)


def _nothing() -> None:
    """What pytest-benchmark is told to time: the durations were measured before."""
