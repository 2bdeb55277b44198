"""The pytest plugin: options, and, where a suite is named, the hooks and fixtures of `trtgate.gate_plugin`."""

from __future__ import annotations

import pytest

from . import options
from .errors import TrtgateError

MARKERS = {
    "trtgate_latency": "latency of a case against its stored baseline",
    "trtgate_accuracy": "outputs of a case against eager",
    "trtgate_coverage": "operator coverage of a case, needs no GPU",
    "trtgate_profile": "per-layer profile of a case",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    options.add(parser)


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark reads its options, which we point at our baseline
def pytest_configure(config: pytest.Config) -> None:
    """Register the real plugin, if a suite is named; otherwise change nothing in the run."""
    for name, description in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {description}")
    source = options.source_of(config)
    if source is None:
        return
    from .gate_plugin import GatePlugin

    try:
        config.pluginmanager.register(GatePlugin(config, options.read(config, source)), "trtgate-gate")
    except TrtgateError as error:
        raise pytest.UsageError(f"trtgate: {error}") from error
