"""The hooks of a run that has a suite: what is collected, refused, skipped, and started."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import pytest

from ..common.errors import PROBLEMS, TrtgateError, is_fault, sentence_of
from ..common.escaping import terminal
from ..common.explanations import Explanation, bare, explained
from ..common.spent_time import Work, during
from ..gate.outcome import PROBLEM, Kind, outcome
from ..suite.cases import Case
from . import outcome_guard, report_collector, rerun_plugins, suite_file, suite_tests
from .case_items import case_id_of, is_accuracy, is_coverage, is_latency, is_placeholder, is_profile
from .gate_run import GateRun
from .latency_tests import TIMER, ReplayTimer
from .markers import marker_limits
from .refusals import refusal, refusals
from .suite_file import NoTests, SuiteFile

UNUSED_BENCHMARK = "Benchmark fixture was not used at all"
"""pytest-benchmark's warning for a test that failed before it could be timed: noise beside the failure."""


class Hooks:
    """The hooks of collecting and running."""

    def __init__(self, run: GateRun) -> None:
        self._run = run
        self._deselected = False

    # Collecting

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        """Count the seconds of collecting."""
        with during(Work.COLLECTING):
            return (yield)

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Collect the suite's file, or the files of the models named on the command line, as tests."""
        return SuiteFile.from_parent(parent, path=file_path) if self._is_suite(file_path) else None

    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Keep pytest from importing the suite's file as a test module too, when it is named on the command line."""
        return NoTests.from_parent(parent, path=module_path) if self._is_suite(module_path) else None

    def _is_suite(self, path: Path) -> bool:
        return path.resolve() in self._run.suites.files()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give every selected case to the tests that ask for one."""
        if "trtgate_case" not in metafunc.fixturenames:
            if metafunc.function.__module__ == suite_tests.__name__:
                said = "a conftest.py or a plugin replaces the fixture `compiled` of the gate: give it another name"
                self._run.suite_problem = explained(said, Explanation.OUTSIDE_INTERFERENCE)
            return
        ids: list[str] = []
        try:
            ids = [
                case.id for case in suite_file.cases_for(self._run, metafunc) if self._run.options.selection.takes(case)
            ]
        except PROBLEMS as error:
            self._run.suite_problem = sentence_of(error)
        if "latency_gate" in metafunc.fixturenames:
            self._run.latency.made.update(ids)
        if metafunc.definition.get_closest_marker("trtgate_accuracy"):
            self._run.accuracy.made.update(ids)
        metafunc.parametrize("trtgate_case", ids, ids=ids, indirect=True, scope="session")

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Remember what the user left out: a comparison that compares nothing is then no mistake."""
        for kind, is_of_kind in ((self._run.latency, is_latency), (self._run.accuracy, is_accuracy)):
            kind.deselected.update(case_id for item in items if is_of_kind(item) and (case_id := case_id_of(item)))
        self._deselected = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark what this machine can't run with its reason, and refuse unknown options and names."""
        if self._run.suites.parts and not self._run.suite_problem:
            self._keep_problem(lambda: self._run.options.selection.select(self._run.catalogue))
        items[:] = [item for item in items if not suite_file.is_doubled(self._run, item)]
        ours = [item for item in items if case_id_of(item) is not None]
        if not ours or self._run.suite_problem:
            return
        items[:] = [item for item in items if not is_placeholder(item)]
        if self._run.options.build_only:
            others = [item for item in items if not is_latency(item)]
            items[:] = [item for item in items if is_latency(item)]
            self._run.config.hook.pytest_deselected(items=others)
        if self._run.accelerator.kind != "gpu":
            items.sort(key=is_coverage, reverse=True)  # first what is asked here, while the workers import torch
        self._keep_problem(self._check_cases)
        for item in ours:
            case_id = case_id_of(item)
            assert case_id is not None
            item.user_properties.append((report_collector.CASE, case_id))
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{UNUSED_BENCHMARK}"))
            if is_coverage(item):
                reason = self._why_no_coverage(case_id)
                if reason and "baseline" not in self._run.options.require:
                    item.add_marker(pytest.mark.skip(reason=reason))
                continue
            self._keep_problem(partial(self._mark_unavailable, item, self._run.suite.cases[case_id]))

    def _keep_problem(self, check: Callable[[], object]) -> None:
        try:
            check()
        except PROBLEMS as error:
            self._run.suite_problem = sentence_of(error)

    def _check_cases(self) -> None:
        from ..torch_trt import compile_options

        for pattern in self._run.options.accepted:
            if not (accepted := fnmatch.filter(self._run.catalogue.cases, pattern)):
                raise TrtgateError(f"--trtgate-accept {pattern}: the suite has no such case")
            self._run.accepted.update(accepted)
        for case in self._run.suite.cases.values():
            compile_options.check_options(case.id, case.settings)

    def _requires_gpu(self, case_id: str) -> bool:
        return "gpu" in self._run.options.require and not self._run.quarantine_of(case_id)

    def _mark_unavailable(self, item: pytest.Item, case: Case) -> None:
        """Let a test of what this machine can't take skip; what it lacks fails later where a GPU is required."""
        lacking, refused = self._run.devices.unavailable(self._run, case)
        if not (reason := lacking or refused):
            return
        self._run.skip_reasons[case.id] = reason
        if lacking and self._requires_gpu(case.id):
            self._run.required.add(case.id)
        else:
            item.add_marker(pytest.mark.skip(reason=explained(reason, Explanation.UNAVAILABLE)))

    def _why_no_coverage(self, case_id: str) -> str:
        from ..suite import zoo

        case = self._run.catalogue.cases[case_id]
        reason = "" if case_id in self._run.suite.cases else zoo.unavailable(case.model.name)
        reason = reason or self._run.devices.no_coverage(case)
        return explained(reason, Explanation.UNAVAILABLE) if reason else ""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Refuse what was found to be wrong, and count what will be judged: the error rate is shared among it.

        pytest calls this even when a hook before it raised, so all is raised here.
        """
        if self._run.suite_problem:
            raise refusal(self._run.suite_problem, Explanation.SUITE_PROBLEM)
        self._run.notices += self._run.suites.notices()
        latency = [item for item in session.items if is_latency(item)]
        with refusals(Explanation.SUITE_PROBLEM):
            for item in latency:
                marker_limits(item)
        if session.config.option.collectonly:
            return
        self._run.profiled_cases = {str(case_id_of(item)) for item in session.items if is_profile(item)}
        self._run.latency_cases = {case_id for case_id in map(case_id_of, latency) if case_id is not None}
        if self._run.latency_cases and self._run.baseline_problem:
            raise refusal(self._run.baseline_problem, Explanation.BASELINE_BROKEN)
        if self._compares_nothing(session):
            raise refusal(
                "a comparison was asked for, and no latency test was collected: name the folder of the suite, or the "
                "saved run that your own benchmarks are to be compared with",
                Explanation.NOTHING_COMPARED,
            )
        runnable = self._run.latency_cases - self._run.skip_reasons.keys()
        if self._run.judges:
            with refusals(Explanation.OPTION_CONFLICT):
                rerun_plugins.refuse(item for item in latency if case_id_of(item) in runnable)
        asked = {"baseline", "verdict"} & set(session.config.getoption("trtgate_require") or ())
        if runnable:
            self._refuse_unjudged(asked)
        if runnable and not self._run.options.timing_off:
            self._run.cases_collected = [self._run.suite.cases[case_id] for case_id in sorted(runnable)]
            with refusals(Explanation.BASE_FAILED):
                _ = self._run.gate, self._run.base  # what is wrong with the baseline or the base is refused now

    def _refuse_unjudged(self, asked: set[str]) -> None:
        """Raise pytest.UsageError where verdicts are asked for and this run of latency tests gives none."""
        options, why = self._run.options, ""
        if not (self._run.judges or options.update or options.timing_off):
            why = "nothing is compared: add --benchmark-compare"
        elif options.timing_off and not options.build_only:  # coverage and profiles have baselines too
            asked, why = asked & {"verdict"}, f"{options.timing_off}: leave latency tests out, or drop one of the two"
        if asked and why:
            said = f"--trtgate-require={','.join(sorted(asked))} asks for verdicts, and {why}"
            raise refusal(said, Explanation.NOTHING_COMPARED)

    def _compares_nothing(self, session: pytest.Session) -> bool:
        options, excused = self._run.options, self._run.latency_cases or self._deselected
        nothing = options.compare and options.compare_file is None and not excused
        return nothing and not all(options.update and is_coverage(item) for item in session.items)

    # Running

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Start the workers early, and refuse a GPU that NVML sees and torch can't use."""
        if session.config.option.collectonly or session.testsfailed:
            return
        ours = {case_id_of(item) for item in session.items if not is_coverage(item)} - {None}
        if ours or self._run.judges or self._run.stage is not None:
            from .run_end import Ending  # and with it NumPy, SciPy and rich

            self._run.config.pluginmanager.register(Ending(self._run), "trtgate-ending")
        with refusals(Explanation.BUILD_FAILED):
            if ours - self._run.skip_reasons.keys() or not self._run.devices.here:
                self._run.devices.begin(self._run, session.items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Fail what a required GPU would have run, and give latency tests their timer."""
        case_id = case_id_of(item)
        if case_id is None or is_coverage(item):
            return
        if case_id in self._run.required:
            said = f"{case_id}: {self._run.skip_reasons[case_id]} (--trtgate-require=gpu)"
            pytest.fail(explained(said, Explanation.UNAVAILABLE), pytrace=False)
        if is_latency(item):
            timer = item.stash[TIMER] = ReplayTimer()
            theirs = item.get_closest_marker("benchmark")
            keywords = {"group": case_id, **(theirs.kwargs if theirs else {}), "timer": timer}
            item.add_marker(pytest.mark.benchmark(**keywords), append=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Show what is wrong as one sentence, not as a traceback into this package.

        A quarantined case only skips. One that is known to fail is an xfail, and fails when it does not.
        """
        case_id = case_id_of(pyfuncitem)
        expected = None if case_id is None or is_coverage(pyfuncitem) else self._run.expected_failure_of(case_id)
        verdict, problem, result = "", "", None
        try:
            result = yield
        except PROBLEMS as error:
            if case_id is None:
                raise
            problem = sentence_of(error)
            if isinstance(error, OSError) or is_fault(error):  # no failure that is expected, or in quarantine
                pyfuncitem.user_properties.append((outcome_guard.PROPERTY, problem[:200]))
                said = bare(problem) if case_id in problem else f"{case_id}: {bare(problem)}"
                pytest.fail(terminal(explained(said, Explanation.FILE_FAULT)), pytrace=False)
            verdict = PROBLEM
        except (Exception, pytest.fail.Exception) as error:
            if case_id is not None:
                pyfuncitem.user_properties.append((outcome_guard.PROPERTY, str(error)[:200]))
            raise
        if case_id is None:
            return result
        quarantine = self._run.quarantine_of(case_id)
        found = outcome(verdict, case_id, problem, quarantine=quarantine, expected_failure=expected)
        if found.kind is Kind.FAILED:
            pyfuncitem.user_properties.append((outcome_guard.PROPERTY, found.text[:200]))
            pytest.fail(found.text, pytrace=False)
        if found.kind is Kind.EXPECTED_FAILURE:
            pytest.xfail(found.text)
        if found.kind is Kind.SKIPPED:  # all tests of a case that can't be built say the same
            self._run.notices += [notice for notice in found.notices if notice not in self._run.notices]
            pytest.skip(found.text)
        return result

    def pytest_report_header(self) -> str:
        """Name the device and the key of its baselines."""
        run = self._run
        return f"trtgate: {run.times}{run.accelerator.name}, baselines of {run.accelerator.key}{run.devices.about}"

    def pytest_unconfigure(self) -> None:
        """End the workers, however the run ended."""
        self._run.close()
