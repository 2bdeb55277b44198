"""The hooks and fixtures of a run that has a suite: glue between pytest, pytest-benchmark and `trtgate.gate`."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .. import accelerator
from ..cases import Case, Suite
from ..errors import TrtgateError
from ..options import Options
from ..report.progress import Progress
from . import suite_tests
from .benchmark_hooks import BenchmarkHooks
from .latency_gate import TIMER, ReplayTimer

if TYPE_CHECKING:
    from ..gate import Gate

NEEDS_GPU = "needs a GPU, and there is none (NVML)"
UNUSED_BENCHMARK = "Benchmark fixture was not used at all"
"""pytest-benchmark's warning for a test that failed before it could be timed: noise beside the failure."""
COLUMNS = ["median", "iqr", "rounds"]
ALL_COLUMNS = ["min", "max", "mean", "stddev", "median", "iqr", "outliers", "ops", "rounds", "iterations"]
"""pytest-benchmark's default up to 5.2; later ones say None where the user named none."""


class SuiteFile(pytest.Module):
    """A suite's file as a collector: its tests are those of `trtgate.suite_tests`, for every case."""

    def _getobj(self) -> Any:
        return suite_tests


class NoTests(pytest.File):
    """What pytest itself would make of a suite's file named on the command line: nothing, `SuiteFile` does."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Return nothing."""
        return []


PLUGIN = pytest.StashKey["GatePlugin"]()


class GatePlugin:
    """One run with a suite."""

    def __init__(self, config: pytest.Config, options: Options) -> None:
        self.config = config
        config.stash[PLUGIN] = self
        self.options = options
        self.folder = config.rootpath / ".trtgate"
        self.lines: list[str] = []
        self.benchmarks: dict[str, Any] = {}
        self.failed: set[str] = set()
        self.deselected = False
        self.latency_cases: set[str] = set()
        self.skip_reasons: dict[str, str] = {}
        self.baseline_problem = ""
        self.suite_problem = ""
        self.new: list[str] = []
        self.undecided: list[str] = []
        self.benchmark_hooks = BenchmarkHooks(self)
        self._point_pytest_benchmark_at_our_baseline()

    def _point_pytest_benchmark_at_our_baseline(self) -> None:
        option = self.config.option
        if option.benchmark_columns is None or list(option.benchmark_columns) == ALL_COLUMNS:
            option.benchmark_columns = COLUMNS
        if not self.options.compare:
            return
        try:
            found = self.gate.baseline  # read and checked here; pytest-benchmark would skip a broken one
        except TrtgateError as error:
            if self.options.compare_file is None:
                raise
            self.baseline_problem = str(error)  # if no case of ours is run, it may be a run of the user's own
        else:
            option.benchmark_compare = os.path.relpath(found.path) if found else []

    # What a run is made of, made when first needed

    @cached_property
    def accelerator(self) -> accelerator.Accelerator:
        """The device of this run."""
        return accelerator.detect()

    @cached_property
    def gate(self) -> Gate:
        """The run's memory; importing it imports NumPy and SciPy."""
        from ..gate import Gate

        return Gate(self.options, self.accelerator, self.folder)

    @cached_property
    def suite(self) -> Suite:
        """The suite, imported. Raises TrtgateError."""
        return self.options.source.load()

    @contextmanager
    def progress(self, case_id: str) -> Generator[Callable[[str], None]]:
        """Show the steps of a case while it is worked on."""
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is None or self.config.option.verbose < 0:
            yield lambda _text: None
            return

        def uncaptured() -> AbstractContextManager[None]:
            return nullcontext() if capture is None else capture.global_and_fixture_disabled()

        def write_line(text: str) -> None:
            with uncaptured():
                reporter.write_line(text)

        def overwrite(text: str) -> None:
            with uncaptured():
                reporter.write(f"\r\x1b[K{text}", flush=True)

        shown = Progress(write_line, overwrite if reporter.isatty else None)
        try:
            yield lambda text: shown.step(f"{case_id}: {text}")
        finally:
            shown.done()

    # Collecting

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Collect the suite's file, or the files of the models named on the command line, as tests."""
        return SuiteFile.from_parent(parent, path=file_path) if self._is_suite(file_path) else None

    def pytest_pycollect_makemodule(self, module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Keep pytest from importing the suite's file as a test module too, when it is named on the command line."""
        return NoTests.from_parent(parent, path=module_path) if self._is_suite(module_path) else None

    def _is_suite(self, path: Path) -> bool:
        source = self.options.source
        return path.resolve() in ([source.suite_file()] if source.suite else source.factory_files())

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give every selected case to the tests that ask for one."""
        if "trtgate_case" not in metafunc.fixturenames:
            return
        ids: list[str] = []
        try:
            ids = [case.id for case in self.suite.select(self.options.selection)]
        except TrtgateError as error:
            self.suite_problem = str(error)
        metafunc.parametrize("trtgate_case", ids, ids=ids, indirect=True, scope="session")

    def pytest_deselected(self) -> None:
        """Remember that the user filtered: a comparison that compares nothing is then no mistake."""
        self.deselected = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark what this machine can't run with its reason, and refuse unknown options and names."""
        ours = [item for item in items if _case_id(item) is not None]
        if not ours or self.suite_problem:
            return
        try:
            self._check_cases()
        except TrtgateError as error:
            self.suite_problem = str(error)
        for item in ours:
            case_id = _case_id(item)
            assert case_id is not None
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{UNUSED_BENCHMARK}"))
            reason = self._skip_reason(self.suite.cases[case_id])
            if reason:
                self.skip_reasons[case_id] = reason
                if "gpu" not in self.options.require:
                    item.add_marker(pytest.mark.skip(reason=reason))

    def _check_cases(self) -> None:
        from .. import torch_trt

        for pattern in self.options.accepted:
            accepted = fnmatch.filter(self.suite.cases, pattern)
            if not accepted:
                raise TrtgateError(f"--trtgate-accept {pattern}: the suite has no such case")
            self.gate.accepted.update(accepted)
        for case in self.suite.cases.values():
            torch_trt.check_options(case.id, case.settings.options)

    def _skip_reason(self, case: Case) -> str:
        from .. import frontends

        if case.settings.gpu_only and self.accelerator.kind != "gpu":
            return NEEDS_GPU
        return frontends.get(case.settings.frontend).unavailable()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Refuse what was found to be wrong, and count what will be judged: the error rate is shared among it.

        pytest calls this even when a hook before it raised, so all is raised here.
        """
        if self.suite_problem:
            raise pytest.UsageError(f"trtgate: {self.suite_problem}")
        if session.config.option.collectonly:
            return
        ids = {_case_id(item) for item in session.items if _is_latency(item)}
        self.latency_cases = {case_id for case_id in ids if case_id is not None}
        if self.latency_cases and self.baseline_problem:
            raise pytest.UsageError(f"trtgate: {self.baseline_problem}")
        if self._compares_nothing(session):
            raise pytest.UsageError(
                "trtgate: a comparison was asked for, and no latency test was collected: name the folder of the "
                "suite, or the saved run that your own benchmarks are to be compared with"
            )
        runnable = self.latency_cases - self.skip_reasons.keys()
        if runnable and not self.options.timing_off:
            self.gate.cases_collected = len(runnable)

    def _compares_nothing(self, session: pytest.Session) -> bool:
        bare = self.options.compare and self.options.compare_file is None
        return bare and not self.latency_cases and not self.deselected and bool(session.items)

    @property
    def judges(self) -> bool:
        """Whether latencies are compared with a baseline of ours."""
        return self.options.compare and not self.baseline_problem

    # Running

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Start the workers early, and refuse a GPU that NVML sees and torch can't use."""
        if session.config.option.collectonly or session.testsfailed:
            return
        if self.latency_cases or self.judges:
            from .ending import Ending  # and with it NumPy, SciPy and rich

            self.config.pluginmanager.register(Ending(self), "trtgate-ending")
        ours = {_case_id(item) for item in session.items} - {None} - self.skip_reasons.keys()
        if not ours:
            return
        if self.accelerator.kind == "gpu":
            _require_usable_gpu(self.accelerator)
        if self.latency_cases - self.skip_reasons.keys() and not self.options.timing_off:
            self.gate.start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Fail what a required GPU would have run, and give latency tests their timer."""
        case_id = _case_id(item)
        if case_id is None:
            return
        if case_id in self.skip_reasons and "gpu" in self.options.require:
            pytest.fail(f"{case_id}: {self.skip_reasons[case_id]} (--trtgate-require=gpu)", pytrace=False)
        if _is_latency(item):
            timer = item.stash[TIMER] = ReplayTimer()
            theirs = item.get_closest_marker("benchmark")
            keywords = {"group": case_id, **(theirs.kwargs if theirs else {}), "timer": timer}
            item.add_marker(pytest.mark.benchmark(**keywords), append=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Show what is wrong as one sentence, not as a traceback into this package."""
        try:
            return (yield)
        except TrtgateError as error:
            if _case_id(pyfuncitem) is None:
                raise
            problem = str(error)
        pytest.fail(problem, pytrace=False)

    def pytest_report_header(self) -> str:
        """Name the device and the key of its baselines."""
        return f"trtgate: {self.accelerator.name}, baselines of {self.accelerator.key}"

    def pytest_unconfigure(self) -> None:
        """End the workers, however the run ended."""
        if "gate" in self.__dict__:
            self.gate.close()


def _case_id(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    case_id = None if callspec is None else callspec.params.get("trtgate_case")
    return case_id if isinstance(case_id, str) else None  # pytest's placeholder where there is no case


def _is_latency(item: pytest.Item) -> bool:
    return _case_id(item) is not None and "latency_gate" in getattr(item, "fixturenames", ())


def _require_usable_gpu(seen: accelerator.Accelerator) -> None:
    import torch

    if not torch.cuda.is_available():
        raise pytest.UsageError(
            f"trtgate: NVML sees {seen.name}, driver {seen.driver}, and torch {torch.__version__} can't use it: "
            "`trtgate doctor` says what it needs; CUDA_VISIBLE_DEVICES= runs without it"
        )
    uuid = str(torch.cuda.get_device_properties(0).uuid)
    if seen.uuid.startswith("GPU-") and uuid not in seen.uuid:
        raise pytest.UsageError(
            f"trtgate: torch's first GPU is GPU-{uuid}, NVML's is {seen.uuid}: set CUDA_VISIBLE_DEVICES to one UUID"
        )
