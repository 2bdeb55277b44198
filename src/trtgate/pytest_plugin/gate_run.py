"""One run with a suite: its options, device, suite and gate, and what it has found so far."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from ..common import spent_time
from ..common.accelerator import Accelerator
from ..common.errors import PROBLEMS, sentence_of
from ..common.notices import Notice, Severity
from ..common.run_folder import RunFolder
from ..common.steps import OnStep
from ..gate.run_options import Options
from ..suite import quarantines
from ..suite.cases import Case, Suite
from ..torch_trt import modelopt_package
from .benchmark_json import PytestJson, choose_columns
from .case_items import TestsOfKind
from .collected_suites import CollectedSuites
from .shown_steps import estimate, shown_steps

if TYPE_CHECKING:
    from ..gate.card_jobs import Job
    from ..gate.case_result import CaseResult
    from ..gate.device_workers import DeviceWorkers
    from ..gate.driver import Measurer
    from ..gate.gate import Gate
    from ..gate.gpu_queue import GpuQueue
    from ..gate.measurers import Workers
    from ..gate.policy import Situation
    from ..launches.base_revision import BaseRevision
    from ..launches.pair import NextPair
    from ..launches.prebuild import Prebuilt
    from ..launches.session import NextCase
    from ..profiles.profile_gate import Where
    from ..records.coverage_record import Coverage
    from ..records.measurement import Build
    from ..suite.expected_failures import ExpectedFailure
    from ..suite.quarantines import Quarantine
    from .device_protocol import Devices
    from .resuming import Resuming
    from .stage_evidence import StageEvidence

RUN = pytest.StashKey["GateRun"]()


class GateRun:
    """What a run with a suite knows and remembers; hooks, fixtures and the ending share it."""

    def __init__(self, config: pytest.Config, options: Options, devices: Devices) -> None:
        self.config = config
        config.stash[RUN] = self
        self.options = options
        """Their source has the suites that were collected, once one was."""
        self.suites = CollectedSuites(options.source)
        self.devices = devices
        self.accelerators = self.devices.accelerators
        self.accelerator = self.accelerators[0]
        """What this process itself builds and profiles on."""
        self.run_folder = RunFolder(config.rootpath / ".trtgate", self.say, label=options.part_label)
        self.spent = spent_time.begin()
        """Where its seconds go."""
        self.notices: list[Notice] = []
        """What is worth saying at the end, beside the table of latencies."""
        self.coverage_notices: list[Notice] = []
        self.environment: list[str] = []
        self.prebuilt: dict[str, Prebuilt] = {}
        self.prebuilt_of_base: dict[str, Prebuilt] = {}
        self.gpu_queue: GpuQueue | None = None
        """Who measures, where several cards share the cases."""
        self.benchmarks: dict[str, Any] = {}
        self.failed, self.latency_cases = set[str](), set[str]()
        self.latency_tests: list[tuple[pytest.Item, str | None]] = []
        """Them and their cases in order, where the next ones' cases are loaded ahead."""
        self.profiled_cases: set[str] = set()
        """Those that a test profiles: who builds one keeps it."""
        self.latency, self.accuracy = TestsOfKind(), TestsOfKind()
        self.skip_reasons: dict[str, str] = {}
        self.required: set[str] = set()
        """Those of them that fail, since what they lack was required."""
        self.coverage_of_builds: dict[str, Coverage] = {}
        self.coverage_problems: dict[str, str] = {}
        """Why others have none, where it was asked for ahead."""
        self.baseline_problem = self.suite_problem = ""
        self.new, self.undecided = list[str](), list[Notice]()
        self.cases_collected: list[Case] = []
        """Those that will be timed."""
        self.accepted: set[str] = set()
        """Ids of cases that may be stored although they got worse."""
        self.cases_at_once = 1
        """How many cases workers load together."""
        self.profiles = False
        """Whether tests profile what is built ahead of them."""
        self.base_cases: list[str] = []
        self.where: dict[str, Where] = {}
        """In which layers regressed cases lost their time."""
        self.stage: StageEvidence | None = None  # of a run that is one of several
        self.resuming: Resuming | None = None  # of one that may have been begun before
        self.json = PytestJson(config)
        self._point_pytest_benchmark_at_our_baseline()

    def _point_pytest_benchmark_at_our_baseline(self) -> None:
        option = self.config.option
        choose_columns(option)
        if not self.options.compare:
            return
        from ..gate.baselines import BrokenFileError

        try:
            found = self.gate.baseline  # read and checked here; pytest-benchmark would skip a broken one
        except PROBLEMS as error:
            if self.options.compare_file is None or isinstance(error, BrokenFileError):
                raise
            self.baseline_problem = sentence_of(error)  # if no case of ours is run, it may be a run of the user's own
        else:
            option.benchmark_compare = os.path.relpath(self.gate.baseline_path) if found else []

    # What a run is made of, made when first needed

    @cached_property
    def gate(self) -> Gate:
        """The run's memory; importing it imports NumPy and SciPy."""
        from ..gate.gate import Gate

        return Gate(self.options, self.accelerator, self.run_folder)

    @property
    def folder(self) -> Path:
        """Where its files go, made when first asked for. Raises TrtgateError where none can be written."""
        return self.run_folder.path

    @property
    def results(self) -> Mapping[str, CaseResult]:
        """What came of each case so far; asking imports nothing."""
        return self.gate.results if "gate" in self.__dict__ else {}

    @cached_property
    def base(self) -> BaseRevision | None:
        """What `trtgate ab` compares with, made ready; None without. Raises TrtgateError."""
        from .beside_base import made_ready

        return made_ready(self.options, self.config, self.folder)

    @cached_property
    def workers(self) -> Sequence[DeviceWorkers]:
        """Those who measure: the workers of each card."""
        return self.devices.workers(self)

    @property
    def times_tensorrt(self) -> bool:
        """Whether a case that will be timed needs torch_tensorrt."""
        return any(case.settings.uses_tensorrt for case in self.cases_collected)

    def workers_beside_base(self) -> Workers:
        """Return those of the one card of this machine on which a base is measured."""
        return cast("Workers", self.workers[0])  # --trtgate-ray and --trtgate-gpus refuse a base

    def start_workers(self) -> None:
        """Let all workers start. Raises TrtgateError when a base can't import its suite."""
        for workers in self.workers:
            self.base_cases = workers.start()

    def _situation(
        self, case: Case, accelerator: Accelerator, *, pairable: bool = False, build: Build | None = None
    ) -> Situation:
        family = self.cases_collected if self.stage is None else self.stage.family(self.suite)
        return self.gate.situation(
            case, accelerator=accelerator, tests=self.gate.tests(family),
            accepted=case.id in self.accepted, pairable=pairable, base_cases=self.base_cases, build=build,
        )  # fmt: skip

    def measure(self, workers: DeviceWorkers, job: Job, step: OnStep, after: Sequence[NextCase] = ()) -> CaseResult:
        """Measure a case that is built and judge it by what is stored; `after` may be loaded with it."""
        from ..gate.measurers import StoredMeasurer

        situation = self._situation(job.case, workers.accelerator, pairable=job.artifact is not None, build=job.build)
        with StoredMeasurer(workers, situation, job.artifact, job.build, after, self.options.cache) as measurer:
            result = self._drive(situation, measurer.going_on_from, step, job.build and job.build.program)
            if self.options.update and result.stored and self.devices.here:
                self.gate.keep(job.case, measurer.module_of(result.measurement.build))
        return result

    def measure_beside_base(
        self, case: Case, step: OnStep, ahead: Mapping[str, Prebuilt], after: Sequence[NextPair]
    ) -> CaseResult:
        """Measure a case beside its base and judge it; what was not built `ahead` of its sides is built."""
        from ..gate.base_measurer import BaseMeasurer

        situation = self._situation(case, self.accelerator)
        with BaseMeasurer(self.workers_beside_base(), situation, ahead, after) as measurer:
            return self._drive(situation, lambda _: measurer, step)

    def _drive(
        self, situation: Situation, made: Callable[[Situation], Measurer], step: OnStep, program: Any = None
    ) -> CaseResult:
        """Measure a case and judge it; a stage of a larger run judges nothing."""
        from ..gate.driver import drive

        if self.stage is not None:
            return self.stage.drive(situation, made, step, self.gate.machine(situation.accelerator.uuid))
        if self.resuming is not None:
            return self.resuming.drive(situation, made, step, program)
        return drive(situation, made(situation), step)

    def say(self, text: str, severity: Severity = Severity.INFO) -> None:
        """Let the end of the run say something."""
        self.notices.append(Notice(text, severity))

    def load_suite(self, file: Path | None) -> Suite:
        """Import what a suite's file defines, or with None all that is configured. Raises TrtgateError."""
        if file in self.suites.parts:
            return self.suites.parts[file]
        suite = self.suites.load(file)
        self.options = msgspec.structs.replace(self.options, source=self.suites.source.pinned())
        modelopt_package.expect(case.settings.precision for case in suite.cases.values())
        for name in ("suite", "zoo", "catalogue"):
            self.__dict__.pop(name, None)
        return suite

    @cached_property
    def suite(self) -> Suite:
        """All suites that were collected, or all that are configured where none was. Raises TrtgateError."""
        if not self.suites.parts:
            self.load_suite(None)
        return self.suites.whole

    @cached_property
    def zoo(self) -> dict[str, Case]:
        """The cases of the zoo, but for models that the suite has under the same name."""
        from ..suite import zoo

        mine = {model.name for model in self.suite.models}
        return Suite(model for model in zoo.models() if model.name not in mine).cases

    @cached_property
    def catalogue(self) -> Suite:
        """The suite, and the zoo where it is asked for. Raises TrtgateError."""
        if not self.options.zoo:
            return self.suite
        added = {case.model.name: case.model for case in self.zoo.values()}
        return Suite([*self.suite.models, *added.values()])

    def quarantine_of(self, case_id: str) -> Quarantine | None:
        """Return the case's quarantine while it is in force: it fails nothing."""
        return quarantines.in_force(self.catalogue.cases[case_id].settings.quarantine)

    def expected_failure_of(self, case_id: str) -> ExpectedFailure | None:
        """Return how the case is known to fail with what is installed here; None where nothing is known."""
        expected = self.catalogue.cases[case_id].settings.expected_failure
        flavour, _, version = self.devices.release.partition("-")
        applies = expected is not None and expected.applies(flavour or None, version)
        return expected if applies else None

    @contextmanager
    def progress(self, case_id: str) -> Generator[OnStep]:
        """Show the steps of a case while it is worked on."""
        with shown_steps(self.config, case_id, self._estimate) as step:
            yield step

    def _estimate(self) -> str:
        costs = self.gate.recorded_costs_s(self.cases_collected, built=self.prebuilt)
        return estimate(costs, self.results, self.spent.total_s - self.spent.of(spent_time.Work.BUILDING_AHEAD))

    def save_case(self, benchmark: Any) -> None:
        """Store a case that was just measured: a run that is killed keeps it. Raises TrtgateError."""
        self.gate.add_to_run(self.json.document([benchmark]))

    def save(self) -> Path:
        """Store what was measured so far. Raises TrtgateError."""
        return self.gate.save_run(self.json.document(list(self.benchmarks.values())))

    def close(self) -> None:
        """End the workers, however the run ended."""
        if self.gpu_queue is not None:
            self.gpu_queue.close()
        for workers in self.__dict__.get("workers", []):
            workers.close()
        if base := self.__dict__.get("base"):
            base.close()
        self.devices.close()
        self.run_folder.close()
        spent_time.end(self.spent)

    @property
    def times(self) -> str:
        """How many devices there are, to be put before their name; empty for one."""
        return f"{len(self.accelerators)} x " * (len(self.accelerators) > 1)

    @property
    def judges(self) -> bool:
        """Whether latencies are compared with a baseline of ours, or with a base."""
        return self.options.base is not None or (self.options.compare and not self.baseline_problem)
