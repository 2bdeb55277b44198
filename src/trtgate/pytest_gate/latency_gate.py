"""What a latency test calls: measure, hand the samples to pytest-benchmark, turn the verdict into an outcome."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ..cases import Case
from ..errors import TrtgateError
from .built_case import BuiltCase
from .run import GateRun

if TYPE_CHECKING:
    from ..gate import CaseResult


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

    def __init__(self, run: GateRun, timer: ReplayTimer) -> None:
        self._run = run
        self._timer = timer

    def __call__(self, benchmark: Any, built: BuiltCase) -> None:
        """Fail, skip or pass the calling test. Raises TrtgateError when the case is wrong or can't be measured."""
        options, gate = self._run.options, self._run.gate
        if options.timing_off:
            pytest.skip(f"not timed: {options.timing_off}")
        self._run.failed.add(built.case.id)  # until it is known to be otherwise
        try:
            built.check()
            assert built.build is not None
            with self._run.progress(built.case.id) as step:
                result = gate.run(built.case, built.artifact, built.build, step)
            self._hand_over(benchmark, built.case, result)
        except BaseException:
            benchmark.has_error = True
            raise
        self._run.benchmarks[built.case.id] = benchmark
        with contextlib.suppress(TrtgateError):  # a run that is killed keeps what it measured; the end says what failed
            self._run.save()
        self._run.failed.discard(built.case.id)
        self._conclude(benchmark, result)

    def _hand_over(self, benchmark: Any, case: Case, result: CaseResult) -> None:
        seconds = [us * 1e-6 for us in result.measurement.blocks_us()]
        self._timer.durations = seconds
        benchmark.pedantic(_nothing, rounds=len(seconds))
        if benchmark.stats is None or benchmark.stats.stats.data != seconds:
            raise TrtgateError(
                f"{case.id}: pytest-benchmark stored other samples than were measured: a conftest or plugin "
                "replaces its timer or its `benchmark` fixture for this test"
            )
        benchmark.extra_info["trtgate"] = msgspec.to_builtins(self._run.gate.record(case, result))

    def _conclude(self, benchmark: Any, result: CaseResult) -> None:
        from ..verdict import Verdict

        options, said = self._run.options, result.sentence
        if result.verdict is Verdict.REGRESSED:
            if result.case_id in self._run.gate.accepted:
                self._run.lines.append(f"accepted: {said}")
                return
            benchmark.has_error = True  # pytest-benchmark would save it all the same
            pytest.fail(said, pytrace=False)
        if result.verdict in (Verdict.UNDERPOWERED, Verdict.INCOMPARABLE):
            if "verdict" in options.require:
                pytest.fail(f"{said} (--trtgate-require=verdict)", pytrace=False)
            self._run.undecided.append(f"{result.verdict}: {said}")
            pytest.skip(said)
        if result.verdict is Verdict.NEW and not options.update:
            if "baseline" in options.require:
                pytest.fail(f"{said} (--trtgate-require=baseline)", pytrace=False)
            self._run.new.append(result.case_id)
        if result.verdict is Verdict.UNCONFIRMED:
            self._run.lines.append(f"unconfirmed: {said}")


def _nothing() -> None:
    """What pytest-benchmark is told to time: the durations were measured before."""
