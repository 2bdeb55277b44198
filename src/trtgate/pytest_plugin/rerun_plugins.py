"""Plugins that run a failed test again until it passes: none may do that to a test that judges.

Each function below reads one plugin's options, ini keys and markers as that plugin does (seen in pytest-rerunfailures
16.7, pytest-retry 1.7 and flaky 3.8); conditions of markers count as met. A plugin is known by two of its options: one
may be a user's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from ..common.errors import TrtgateError

WHY = (
    "each re-run is another chance to pass or fail: it inflates the error rate; suspects are confirmed by fresh "
    "launches already"
)


def refuse(gated: Iterable[pytest.Item]) -> None:
    """Raise TrtgateError when a plugin would run one of these tests again."""
    for item in gated:
        asked = _rerunfailures(item) or _retry(item) or _flaky(item)
        if asked:
            raise TrtgateError(f"{asked} would run a gated test again when it fails, and {WHY}: drop it")


def _rerunfailures(item: pytest.Item) -> str:
    options = item.config.option
    if not _has(options, "reruns", "reruns_delay"):
        return ""
    forced = getattr(options, "force_reruns", None)
    if forced is not None:
        return f"--force-reruns={forced}" if forced > 0 else ""
    marker = item.get_closest_marker("flaky")
    if marker is not None:
        if marker.kwargs.get("reruns", marker.args[0] if marker.args else 1) != 0:
            return _marker(item)
        if getattr(options, "reruns_mode", "strict") == "strict":
            return ""  # its own 0 wins over what is asked for all tests
    if options.reruns is not None:
        return f"--reruns={options.reruns}" if options.reruns > 0 else ""
    key = _ini(item.config, "reruns")
    return f"ini key reruns={key}" if key.isdecimal() and int(key) > 0 else ""


def _retry(item: pytest.Item) -> str:
    options = item.config.option
    if not _has(options, "retries", "retry_delay"):
        return ""
    if options.retries:
        return f"--retries={options.retries}"
    key = _ini(item.config, "retries")
    if key:
        return f"ini key retries={key}" + " (any text there retries once or more)" * (key == "0")
    return _marker(item) if item.get_closest_marker("flaky") else ""


def _flaky(item: pytest.Item) -> str:
    options = item.config.option
    if not _has(options, "force_flaky", "max_runs"):
        return ""
    if options.force_flaky:
        return "--force-flaky"
    decorated = any(hasattr(getattr(item, name, None), "_flaky_max_runs") for name in ("obj", "cls"))
    return _marker(item) if decorated or item.get_closest_marker("flaky") else ""


def _has(options: Any, *names: str) -> bool:
    return all(hasattr(options, name) for name in names)


def _marker(item: pytest.Item) -> str:
    return f"{item.nodeid}: the marker flaky"


def _ini(config: pytest.Config, key: str) -> str:
    try:
        return str(config.getini(key) or "").strip()
    except ValueError:  # no such key
        return ""
