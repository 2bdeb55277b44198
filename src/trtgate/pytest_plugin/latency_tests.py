"""What a latency test calls: measure, hand the samples to pytest-benchmark, turn the verdict into an outcome."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from .. import frontends
from ..common.errors import TrtgateError
from ..suite import quarantines
from ..suite.cases import Case
from . import build_only, loading_ahead, report_collector
from .built_case import BuiltCase
from .gate_run import GateRun
from .profile_tests import profiles_of

if TYPE_CHECKING:
    from ..gate.case_result import CaseResult
    from ..suite.quarantines import Quarantine


class ReplayTimer:
    """A timer for pytest-benchmark whose differences are durations that were measured already, in seconds."""

    def __init__(self) -> None:
        self.durations: list[float] = []
        self._calls = 0

    def __call__(self) -> float:
        """Return 0 at the start of a round and its duration at the end."""
        self._calls += 1
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
            pytest.skip(f"not timed: {options.timing_off}")
        self._run.failed.add(case.id)  # until it is known to be otherwise
        try:
            result = self._measured_beside_base(case) if options.base else self._measured(case, built)
            if result.measurement.launches:
                self._hand_over(benchmark, case, result)
                self._run.benchmarks[case.id] = benchmark
        except BaseException:
            benchmark.has_error = True
            raise
        with contextlib.suppress(TrtgateError):  # a run that is killed keeps what it measured; the end says what failed
            self._run.save()
        self._run.failed.discard(case.id)
        self._item.user_properties += report_collector.properties(result)
        self._conclude(benchmark, case, result, built)

    def _build(self, built: BuiltCase) -> None:
        built.check()
        assert built.build is not None
        frontend = frontends.get(built.case.settings.frontend)
        left = "nothing: it can't be stored" if frontend.stores_artifact and not built.artifact else frontend.stores
        found = build_only.BuiltForLater(case_id=built.case.id, build=built.build, left=left, notes=built.notes)
        self._item.user_properties.append(build_only.property_of(found))

    def _measured(self, case: Case, built: BuiltCase) -> CaseResult:
        built.check()
        assert built.build is not None
        queue, name = self._run.gpu_queue, self._item.nodeid
        if queue is not None and name in queue:
            with self._run.progress(f"{len(self._run.gates)} GPUs") as step:
                result = self._run.gate.results[case.id] = queue.result(name, step)
        else:
            with self._run.progress(case.id) as step:
                result = self._run.gate.run(
                    case, built.artifact, built.build, step, loading_ahead.after(self._run, self._item)
                )
        if _expired(case) and case.id not in self._run.gate.accepted:
            result.stored = False  # its test will fail
        if self._run.options.update and result.stored and built.artifact is not None:
            self._run.gate.keep(case, built.artifact)
        return result

    def _measured_beside_base(self, case: Case) -> CaseResult:
        with self._run.progress(case.id) as step:
            return self._run.gate.run_against_base(case, step)

    def _hand_over(self, benchmark: Any, case: Case, result: CaseResult) -> None:
        seconds = [us * 1e-6 for us in result.measurement.blocks_us()]
        self._timer.durations = seconds
        benchmark.pedantic(_nothing, rounds=len(seconds))
        if benchmark.stats is None or benchmark.stats.stats.data != seconds:
            raise TrtgateError(
                f"{case.id}: pytest-benchmark stored other samples than were measured: a conftest or plugin "
                "replaces its timer or its `benchmark` fixture for this test"
            )
        from ..gate.measurement_summary import record_of

        record = record_of(case, result, self._run.accelerator.uuid, base=str(self._run.options.base or ""))
        benchmark.extra_info["trtgate"] = msgspec.to_builtins(record)

    def _conclude(self, benchmark: Any, case: Case, result: CaseResult, built: BuiltCase) -> None:
        from ..verdict import Verdict

        options, said = self._run.options, result.sentence
        quarantine = quarantines.in_force(case.settings.quarantine)
        if expired := _expired(case):
            self._fail_expired(benchmark, expired, result)
        require = frozenset[str]() if quarantine else options.require
        if result.verdict is Verdict.REGRESSED:
            self._conclude_regressed(benchmark, quarantine, result, built)
        if result.verdict in (Verdict.UNDERPOWERED, Verdict.INCOMPARABLE):
            if "verdict" in require:
                pytest.fail(f"{said} (--trtgate-require=verdict)", pytrace=False)
            self._run.undecided.append(f"{result.verdict}: {said}")
            pytest.skip(said)
        if result.verdict is Verdict.NEW and not options.update:
            if "baseline" in require:
                pytest.fail(f"{said} (--trtgate-require=baseline)", pytrace=False)
            self._run.new.append(result.case_id)
        if result.verdict is Verdict.UNCONFIRMED:
            self._run.lines.append(f"unconfirmed: {said}")

    def _conclude_regressed(
        self, benchmark: Any, quarantine: Quarantine | None, result: CaseResult, built: BuiltCase
    ) -> None:
        if result.case_id in self._run.gate.accepted:
            self._run.lines.append(f"accepted: {result.sentence}")
            return
        benchmark.has_error = True  # pytest-benchmark would save it all the same
        from ..gate.sentences import advice

        where = profiles_of(self._run).where(built)
        result.where, result.layer_changes = where.sentence, where.changes
        said = [result.sentence, result.where]
        if quarantine is None:
            what_to_do = advice(result.verdict or "", result.case_id, beside_base=self._run.options.base is not None)
            pytest.fail("\n".join(line for line in (*said, what_to_do) if line), pytrace=False)
        self._run.lines += [f"{quarantine}: {said[0]}", *filter(None, said[1:])]

    def _fail_expired(self, benchmark: Any, quarantine: Quarantine, result: CaseResult) -> None:
        from ..verdict import Verdict

        accepted = result.case_id in self._run.gate.accepted
        regressed = f"{result.sentence}\n" if result.verdict is Verdict.REGRESSED and not accepted else ""
        benchmark.has_error = True
        pytest.fail(
            f"{regressed}{result.case_id}: its quarantine ({quarantine.reason}) ended on {quarantine.until}: "
            "take it out of the suite, or give it another date",
            pytrace=False,
        )


def held_to(limits: dict[str, float], case: Case) -> Case:
    """Return the case with a test's own limits, which win over the suite's."""
    settings = msgspec.structs.replace(case.settings, limits=case.settings.limits | limits)
    return msgspec.structs.replace(case, settings=settings)


def _expired(case: Case) -> Quarantine | None:
    quarantine = case.settings.quarantine
    return None if quarantines.in_force(quarantine) else quarantine


def _nothing() -> None:
    """What pytest-benchmark is told to time: the durations were measured before."""
