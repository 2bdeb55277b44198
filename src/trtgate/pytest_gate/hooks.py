"""The hooks and fixtures of a run that has a suite: glue between pytest, pytest-benchmark and `trtgate.gate`."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from .. import accelerator
from ..cases import Case, Suite
from ..errors import TrtgateError
from ..options import Options
from ..report.progress import Progress
from . import suite_tests
from .latency_gate import TIMER, ReplayTimer

if TYPE_CHECKING:
    from ..gate import Gate

NEEDS_GPU = "needs a GPU, and there is none (NVML)"
COLUMNS = ["median", "iqr", "rounds"]


class SuiteFile(pytest.Module):
    """A suite's file as a collector: its tests are those of `trtgate.suite_tests`, for every case."""

    def _getobj(self) -> Any:
        return suite_tests


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
        self._point_pytest_benchmark_at_our_baseline()

    def _point_pytest_benchmark_at_our_baseline(self) -> None:
        option = self.config.option
        if option.benchmark_columns is None:
            option.benchmark_columns = COLUMNS
        if self.options.compare and self.options.compare_file is None:
            found = self.gate.baseline  # read and checked here; pytest-benchmark would skip a broken one
            option.benchmark_compare = os.path.relpath(found.path) if found else []
        elif self.options.compare_file is not None:
            option.benchmark_compare = os.path.relpath(self.gate.baseline_path)

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
        """The suite, imported."""
        try:
            return self.options.source.load()
        except TrtgateError as error:
            raise pytest.UsageError(f"trtgate: {error}") from error

    @contextmanager
    def progress(self, case_id: str) -> Generator[Callable[[str], None]]:
        """Show the steps of a case while it is worked on."""
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        capture: Any = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is None:
            yield lambda _text: None
            return

        def write(text: str) -> None:
            with capture.global_and_fixture_disabled():
                reporter.write(text, flush=True)

        shown = Progress(write, live=reporter.isatty and not self.config.option.verbose < 0)
        try:
            yield lambda text: shown.step(f"{case_id}: {text}")
        finally:
            shown.done()

    # Collecting

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Collect the suite's file, or the files of the models named on the command line, as tests."""
        source = self.options.source
        files = [source.suite_file()] if source.suite else source.factory_files()
        if file_path.resolve() not in files:
            return None
        return SuiteFile.from_parent(parent, path=file_path)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Give every selected case to the tests that ask for one."""
        if "trtgate_case" not in metafunc.fixturenames:
            return
        try:
            cases = self.suite.select(self.options.selection)
        except TrtgateError as error:
            raise pytest.UsageError(f"trtgate: {error}") from error
        ids = [case.id for case in cases]
        metafunc.parametrize("trtgate_case", ids, ids=ids, indirect=True, scope="session")

    def pytest_deselected(self) -> None:
        """Remember that the user filtered: what was not run is then not missing."""
        self.deselected = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark what this machine can't run with its reason, and refuse unknown options and names."""
        ours = [item for item in items if _case_id(item) is not None]
        if not ours:
            return
        self._refuse_bad_cases()
        for item in ours:
            case_id = _case_id(item)
            assert case_id is not None
            reason = self._skip_reason(self.suite.cases[case_id])
            if reason:
                self.skip_reasons[case_id] = reason
                if "gpu" not in self.options.require:
                    item.add_marker(pytest.mark.skip(reason=reason))

    def _refuse_bad_cases(self) -> None:
        from .. import torch_trt

        try:
            for case_id in self.options.accepted:
                if case_id not in self.suite.cases:
                    raise TrtgateError(f"--trtgate-accept {case_id}: the suite has no such case")
            for case in self.suite.cases.values():
                torch_trt.check_options(case.id, case.settings.options)
        except TrtgateError as error:
            raise pytest.UsageError(f"trtgate: {error}") from error

    def _skip_reason(self, case: Case) -> str:
        from .. import frontends

        if case.settings.gpu_only and self.accelerator.kind != "gpu":
            return NEEDS_GPU
        return frontends.get(case.settings.frontend).unavailable()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count what will be judged: the error rate of the whole run is shared among it."""
        if session.config.option.collectonly:
            return
        ids = {_case_id(item) for item in session.items if _is_latency(item)}
        self.latency_cases = {case_id for case_id in ids if case_id is not None}
        if self.options.compare and not self.latency_cases and not self.deselected and session.items:
            raise pytest.UsageError(
                "trtgate: a comparison was asked for, and no latency test was collected: name the folder of the suite"
            )
        runnable = self.latency_cases - self.skip_reasons.keys()
        if runnable and not self.options.timing_off:
            self.gate.cases_collected = len(runnable)

    # Running

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Start the workers early, and refuse a GPU that NVML sees and torch can't use."""
        if session.config.option.collectonly or session.testsfailed:
            return
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
            pytest.fail(str(error), pytrace=False)

    # pytest-benchmark

    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Add the accelerator; drop clock readings, which differ at every run, and 150 lines of CPU flags."""
        machine_info["accelerator"] = msgspec.to_builtins(self.accelerator)
        cpu = machine_info.get("cpu", {})
        for name in [name for name in cpu if name.startswith("hz_") or name == "flags"]:
            del cpu[name]

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Mark the file as one that `trtgate.baselines` can read."""
        from ..baselines import SCHEMA

        output_json["trtgate"] = {"schema": SCHEMA}

    @pytest.hookimpl(wrapper=True)
    def pytest_benchmark_compare_machine_info(
        self, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
    ) -> Generator[None, object, object]:
        """Show differences that matter in one line; pytest-benchmark's own warning is kilobytes of JSON."""
        before = compared_benchmark["machine_info"]
        if "accelerator" not in before:
            return (yield)
        changed = accelerator.differences(
            msgspec.convert(before["accelerator"], accelerator.Accelerator), self.accelerator
        )
        if changed:
            self.lines.append("since the baseline was last recorded: " + ", ".join(changed))
        compared_benchmark["machine_info"] = machine_info
        try:
            return (yield)
        finally:
            compared_benchmark["machine_info"] = before

    # Finishing

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Store the run and the baseline, and turn a run red whose baseline has cases that nobody ran."""
        if not self.options.compare and not self.benchmarks:
            return
        try:
            self._store()
            self._report_missing(session)
        except TrtgateError as error:
            self.lines.append(f"ERROR: {error}")
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def _store(self) -> None:
        if not self.benchmarks:
            return
        from .. import baselines

        path = self.gate.save_run(self._document())
        self.lines.append(f"run saved: {os.path.relpath(path, self.config.invocation_params.dir)}")
        if self.options.update:
            for change in self.gate.update_baseline(baselines.read(path)):
                self.lines.append(f"stored: {baselines.describe(change)}")

    def _document(self) -> dict[str, Any]:
        hook = self.config.hook
        machine_info = hook.pytest_benchmark_generate_machine_info(config=self.config)
        hook.pytest_benchmark_update_machine_info(config=self.config, machine_info=machine_info)
        commit_info = hook.pytest_benchmark_generate_commit_info(config=self.config)
        hook.pytest_benchmark_update_commit_info(config=self.config, commit_info=commit_info)
        fixtures = list(self.benchmarks.values())
        failed = [fixture for fixture in fixtures if fixture.has_error]
        for fixture in failed:
            fixture.has_error = False  # a run file holds regressed cases too, so that one can be accepted later
        all_stats = [fixture.stats for fixture in fixtures]
        document: dict[str, Any] = hook.pytest_benchmark_generate_json(
            config=self.config,
            benchmarks=all_stats,
            include_data=False,
            machine_info=machine_info,
            commit_info=commit_info,
        )
        for fixture in failed:
            fixture.has_error = True
        hook.pytest_benchmark_update_json(config=self.config, benchmarks=all_stats, output_json=document)
        return document

    def _report_missing(self, session: pytest.Session) -> None:
        missing = self.gate.missing(self.failed)
        if not missing:
            return
        full = self.latency_cases == set(self.suite.cases) and not self.deselected and not session.shouldstop
        reasons = {case_id: self.skip_reasons.get(case_id, "not in the suite or not run") for case_id in missing}
        if not full:
            self.lines.append(f"not run, as asked: {len(missing)} cases of the baseline")
            return
        for case_id, reason in reasons.items():
            self.lines.append(f"MISSING: {case_id} is in the baseline and was not measured: {reason}")
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_report_header(self) -> str:
        """Name the device and the key of its baselines."""
        return f"trtgate: {self.accelerator.name}, baselines of {self.accelerator.key}"

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Show the table and the lines."""
        if not self.benchmarks and not self.lines:
            return
        from ..report import terminal

        terminalreporter.section("trtgate")
        if self.benchmarks:
            terminalreporter.write_line(terminal.describe(self.accelerator))
            rows = [result.row() for result in self.gate.results.values()]
            writer = terminalreporter._tw if hasattr(terminalreporter, "_tw") else None
            terminalreporter.write(
                terminal.table(rows, width=getattr(writer, "fullwidth", 100), color=terminalreporter.hasmarkup)
            )
        for line in self.lines:
            loud = line.startswith(("MISSING", "ERROR", "NEW"))
            terminalreporter.write_line(line, red=line.startswith(("MISSING", "ERROR")), bold=loud)

    def pytest_unconfigure(self) -> None:
        """End the workers, however the run ended."""
        if "gate" in self.__dict__:
            self.gate.close()


def _case_id(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("trtgate_case")


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
