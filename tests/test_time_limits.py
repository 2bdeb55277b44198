"""A step that takes too long names the option that allows more, as its user spells it: pytest, or a command."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trtgate.common.errors import TrtgateError
from trtgate.common.time_limit import TimeLimit, option_of
from trtgate.launches import messages
from trtgate.launches.worker_handle import LaunchError, WorkerHandle
from trtgate.pytest_plugin import pytest_options
from trtgate.timing.device_lock import device_lock


def told(seconds: float) -> str:
    with (
        device_lock("GPU-test", 5, lambda _s: None),
        pytest.raises(TrtgateError) as error,
        device_lock("GPU-test", seconds, lambda _s: None),
    ):
        pass
    return str(error.value)


@pytest.mark.parametrize("option", ["--trtgate-timeout", "--timeout"])
def test_who_waits_for_the_device_is_told_the_option_of_its_command(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    assert told(TimeLimit(0.0, option)).endswith(f"wait for them to end, or raise {option} (docs: device-busy)")


@pytest.mark.parametrize("option", ["--trtgate-timeout", "--timeout"])
def test_a_worker_that_does_not_answer_is_told_so_too(option: str) -> None:
    reading, writing = os.pipe()
    worker: Any = object.__new__(WorkerHandle)
    with os.fdopen(reading, "rb") as stdout, os.fdopen(writing, "wb"):
        worker._process, worker._unread = SimpleNamespace(stdout=stdout), b""
        worker._timeout_s = TimeLimit(0.0, option)
        with pytest.raises(LaunchError, match=f"loading: no answer within 0 s; raise {option} if it needs longer"):
            worker.receive(messages.LoadedReply, "loading")


def test_where_no_option_raises_the_limit_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    assert told(0.0).endswith("wait for them to end (docs: device-busy)")


def test_a_limit_is_its_seconds() -> None:
    limit = TimeLimit(2.5, "--timeout")
    assert (limit, limit + 1, f"{limit:.1f}", option_of(limit), option_of(2.5)) == (2.5, 3.5, "2.5", "--timeout", "")


def declared() -> dict[str, Any]:
    """Return option → how it is declared."""
    found: dict[str, Any] = {}
    group = SimpleNamespace(addoption=lambda name, **more: found.update({name: more}))
    parser: Any = SimpleNamespace(getgroup=lambda *_: group, addini=lambda *_, **__: None)
    pytest_options.add(parser)
    return found


@pytest.mark.parametrize("text", ["abc", "", "-1", "nan", "1.5", "0.0"])
@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--trtgate-launches", "a whole number above 0"),
        ("--trtgate-cold-starts", "0 or a whole number above 0"),
        ("--trtgate-prebuild", "auto, 0 or a number of processes"),
    ],
)
def test_what_is_no_number_of_something_is_refused_in_words(option: str, wanted: str, text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"^must be {wanted}, not {text}$"):
        declared()[option]["type"](text)


@pytest.mark.parametrize("text", ["0", "00"])
def test_none_is_none_however_it_is_written(text: str) -> None:
    options = declared()
    assert [options[name]["type"](text) for name in ("--trtgate-cold-starts", "--trtgate-load")] == [0, 0]
    with pytest.raises(argparse.ArgumentTypeError, match=f"must be a whole number above 0, not {text}"):
        options["--trtgate-launches"]["type"](text)
