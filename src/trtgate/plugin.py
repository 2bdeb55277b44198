"""The pytest plugin: options, and, where a suite is named, the hooks and fixtures of `trtgate.pytest_plugin`."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from .common.explanations import Explanation
from .pytest_plugin import beside_base, checked_options, pytest_options, ray_options
from .pytest_plugin.refusals import refusals
from .suite.pytest_config import STARTED_WITH
from .torch_trt import import_hook

MARKERS = {
    "trtgate_latency": "latency of a case against its stored baseline",
    "trtgate_accuracy": "outputs of a case against eager",
    "trtgate_coverage": "operator coverage of a case, needs no GPU",
    "trtgate_profile": "per-layer profile of a case with TensorRT engines",
    'trtgate_limit(METRIC="0.5%")': 'largest tolerated changes of a latency test, such as device=0.005 or host="20%"',
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    pytest_options.add(parser)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None]:
    """Let torch_tensorrt be imported without a GPU where there is a suite: conftest files import it as well.

    The variables that they find are kept: a base has conftest files of its own.
    """
    started_with = early_config.pluginmanager.get_plugin(STARTED_WITH)
    variables = dict(os.environ) if started_with is None else started_with.variables
    early_config.stash[beside_base.VARIABLES] = variables
    import_hook.install(everywhere=bool(checked_options.suite_key(early_config)))
    yield


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Let a run on several kinds of accelerators be one run for each."""
    if not ray_options.several_kinds(config):
        return None
    from .pytest_plugin import kinds

    with refusals(Explanation.OPTION_CONFLICT):
        try:
            return kinds.run(config)
        except KeyboardInterrupt:
            return int(pytest.ExitCode.INTERRUPTED)


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark reads its options, which we point at our baseline
def pytest_configure(config: pytest.Config) -> None:
    """Register the real plugin, if a suite is named; otherwise change nothing in the run."""
    for name, description in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {description}")
    with refusals(Explanation.SUITE_PROBLEM):
        source = checked_options.source_of(config)
    import_hook.install(everywhere=source is not None)
    if source is None:
        return
    from .pytest_plugin import (
        benchmark_hooks,
        build_only,
        coverage_tests,
        devices,
        fixtures,
        hooks,
        outcome_guard,
        profile_tests,
        red_end,
        report_collector,
        resuming,
        stage,
        stage_evidence,
        upstream_logs,
        xdist_processes,
    )
    from .pytest_plugin.gate_run import GateRun

    with refusals(Explanation.OPTION_CONFLICT):
        options = checked_options.read(config, source)
        run = GateRun(config, options, devices.of(options, config.rootpath))
        reporting = report_collector.Reporting(run)
        if run.options.resume:
            run.resuming = resuming.Resuming(run)
        if run.options.shard or run.options.confirm is not None:
            run.stage = stage_evidence.StageEvidence(run.options)
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(xdist_processes.Teller(run), "trtgate-xdist")
    else:
        config.pluginmanager.register(xdist_processes.Listener(run), "trtgate-xdist")
        config.pluginmanager.register(reporting, "trtgate-reporting")
        config.pluginmanager.register(red_end.RedEnd(run), "trtgate-red-end")
    if run.stage is not None:
        config.pluginmanager.register(stage.Stage(run, run.stage, reporting.collected), "trtgate-stage")
    config.pluginmanager.register(hooks.Hooks(run), "trtgate-hooks")
    config.pluginmanager.register(benchmark_hooks.BenchmarkHooks(run), "trtgate-benchmark-hooks")
    config.pluginmanager.register(coverage_tests.CoverageEnding(run), "trtgate-coverage-ending")
    config.pluginmanager.register(profile_tests.ProfileEnding(run), "trtgate-profile-ending")
    config.pluginmanager.register(build_only.BuildEnding(), "trtgate-build-ending")
    config.pluginmanager.register(outcome_guard.OutcomeGuard(run), "trtgate-outcome-guard")
    config.pluginmanager.register(upstream_logs.UpstreamLogs(), "trtgate-upstream-logs")
    config.pluginmanager.register(fixtures, "trtgate-fixtures")
