"""pytest-benchmark's JSON of a run, made through its hooks."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import pytest

from ..common import git

COLUMNS = ["median", "iqr", "rounds"]
ALL_COLUMNS = ["min", "max", "mean", "stddev", "median", "iqr", "outliers", "ops", "rounds", "iterations"]
"""pytest-benchmark's default up to 5.2; later ones say None where the user named none."""


def choose_columns(option: Any) -> None:
    """Let pytest-benchmark show few columns, where the user chose none."""
    if option.benchmark_columns is None or list(option.benchmark_columns) == ALL_COLUMNS:
        option.benchmark_columns = COLUMNS


class PytestJson:
    """Makes the document; machine and commit are asked for once, which takes a second."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @cached_property
    def _machine_info(self) -> dict[str, Any]:
        hook = self._config.hook
        with git.unbound():
            found: dict[str, Any] = hook.pytest_benchmark_generate_machine_info(config=self._config)
        hook.pytest_benchmark_update_machine_info(config=self._config, machine_info=found)
        return found

    @cached_property
    def commit_info(self) -> dict[str, Any]:
        """The revision, as pytest-benchmark finds it."""
        hook = self._config.hook
        with git.unbound():
            found: dict[str, Any] = hook.pytest_benchmark_generate_commit_info(config=self._config)
        hook.pytest_benchmark_update_commit_info(config=self._config, commit_info=found)
        return found

    def document(self, fixtures: list[Any]) -> dict[str, Any]:
        """Return the JSON that pytest-benchmark would save of these benchmarks, regressed ones included."""
        hook = self._config.hook
        failed = [fixture for fixture in fixtures if fixture.has_error]
        for fixture in failed:
            fixture.has_error = False  # a run file holds regressed cases too, so that one can be accepted later
        all_stats = [fixture.stats for fixture in fixtures if fixture.stats is not None]
        document: dict[str, Any] = hook.pytest_benchmark_generate_json(
            config=self._config,
            benchmarks=all_stats,
            include_data=False,
            machine_info=self._machine_info,
            commit_info=self.commit_info,
        )
        for fixture in failed:
            fixture.has_error = True
        hook.pytest_benchmark_update_json(config=self._config, benchmarks=all_stats, output_json=document)
        return document
