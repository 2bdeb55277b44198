"""The pytest plugin: options, and, where a suite is named, the hooks and fixtures of `trtgate.pytest_gate`."""

from __future__ import annotations

import pytest

from .errors import TrtgateError
from .pytest_gate import command_line

MARKERS = {
    "trtgate_latency": "latency of a case against its stored baseline",
    "trtgate_accuracy": "outputs of a case against eager",
    "trtgate_coverage": "operator coverage of a case, needs no GPU",
    "trtgate_profile": "per-layer profile of a case with TensorRT engines",
    'trtgate_limit(METRIC="0.5%")': 'largest tolerated changes of a latency test, such as device=0.005 or host="20%"',
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    command_line.add(parser)


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark reads its options, which we point at our baseline
def pytest_configure(config: pytest.Config) -> None:
    """Register the real plugin, if a suite is named; otherwise change nothing in the run."""
    for name, description in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {description}")
    source = command_line.source_of(config)
    if source is None:
        return
    from .pytest_gate import benchmark_hooks, building_only, coverage_tests, fixtures, hooks, profile_tests, reporting
    from .pytest_gate.run import GateRun

    try:
        run = GateRun(config, command_line.read(config, source))
    except TrtgateError as error:
        raise pytest.UsageError(f"trtgate: {error}") from error
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(reporting.Reporting(run), "trtgate-reporting")
    config.pluginmanager.register(hooks.Hooks(run), "trtgate-hooks")
    config.pluginmanager.register(benchmark_hooks.BenchmarkHooks(run), "trtgate-benchmark-hooks")
    config.pluginmanager.register(coverage_tests.CoverageEnding(run), "trtgate-coverage-ending")
    config.pluginmanager.register(profile_tests.ProfileEnding(run), "trtgate-profile-ending")
    config.pluginmanager.register(building_only.BuildEnding(), "trtgate-build-ending")
    config.pluginmanager.register(fixtures, "trtgate-fixtures")
