"""pytest-benchmark's own hooks: what it is told about the machine, and its JSON with our sessions in it."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import Any

import msgspec
import pytest
from pytest_benchmark.logger import PytestBenchmarkWarning

from ..common import accelerator
from .gate_run import GateRun


class BenchmarkHooks:
    """The hooks that pytest-benchmark calls in a run with a suite."""

    def __init__(self, run: GateRun) -> None:
        self._run = run
        if run.options.compare:  # trtgate has read the file: it refuses it, or reads more of it than pytest-benchmark
            warnings.filterwarnings("ignore", "Failed to load|Can't compare", PytestBenchmarkWarning)

    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Add the accelerator; drop clock readings, which differ at every run, and 150 lines of CPU flags."""
        machine_info["accelerator"] = msgspec.to_builtins(self._run.accelerator)
        cpu = machine_info.get("cpu", {})
        for name in [name for name in cpu if name.startswith("hz_") or name == "flags"]:
            del cpu[name]

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Mark the file as one that `trtgate.gate.baselines` can read."""
        from ..gate.baselines import SCHEMA

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
            msgspec.convert(before["accelerator"], accelerator.Accelerator), self._run.accelerator
        )
        if changed:
            self._run.environment = changed
        compared_benchmark["machine_info"] = machine_info
        try:
            return (yield)
        finally:
            compared_benchmark["machine_info"] = before
