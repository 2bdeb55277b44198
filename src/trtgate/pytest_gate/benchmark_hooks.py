"""pytest-benchmark's own hooks: what it is told about the machine, and its JSON with our sessions in it."""

from __future__ import annotations

from collections.abc import Generator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from .. import accelerator

if TYPE_CHECKING:
    from .hooks import GatePlugin


class BenchmarkHooks:
    """The hooks that pytest-benchmark calls in a run with a suite."""

    def __init__(self, plugin: GatePlugin) -> None:
        self._plugin = plugin
        self._config = plugin.config

    def pytest_benchmark_update_machine_info(self, machine_info: dict[str, Any]) -> None:
        """Add the accelerator; drop clock readings, which differ at every run, and 150 lines of CPU flags."""
        machine_info["accelerator"] = msgspec.to_builtins(self._plugin.accelerator)
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
            msgspec.convert(before["accelerator"], accelerator.Accelerator), self._plugin.accelerator
        )
        if changed:
            self._plugin.lines.append("since the baseline was last recorded: " + ", ".join(changed))
        compared_benchmark["machine_info"] = machine_info
        try:
            return (yield)
        finally:
            compared_benchmark["machine_info"] = before

    @cached_property
    def _machine_info(self) -> dict[str, Any]:
        hook = self._config.hook
        found: dict[str, Any] = hook.pytest_benchmark_generate_machine_info(config=self._config)
        hook.pytest_benchmark_update_machine_info(config=self._config, machine_info=found)
        return found

    @cached_property
    def _commit_info(self) -> dict[str, Any]:
        hook = self._config.hook
        found: dict[str, Any] = hook.pytest_benchmark_generate_commit_info(config=self._config)
        hook.pytest_benchmark_update_commit_info(config=self._config, commit_info=found)
        return found

    def document(self) -> dict[str, Any]:
        """Return the JSON that pytest-benchmark would save of what was measured so far, regressed cases included."""
        fixtures = list(self._plugin.benchmarks.values())
        hook = self._config.hook
        failed = [fixture for fixture in fixtures if fixture.has_error]
        for fixture in failed:
            fixture.has_error = False  # a run file holds regressed cases too, so that one can be accepted later
        all_stats = [fixture.stats for fixture in fixtures]
        document: dict[str, Any] = hook.pytest_benchmark_generate_json(
            config=self._config,
            benchmarks=all_stats,
            include_data=False,
            machine_info=self._machine_info,
            commit_info=self._commit_info,
        )
        for fixture in failed:
            fixture.has_error = True
        hook.pytest_benchmark_update_json(config=self._config, benchmarks=all_stats, output_json=document)
        return document
