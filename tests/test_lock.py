"""The lock of a device: who times is alone, who builds shares it, and nobody waits for ever."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from trtgate.common.errors import TrtgateError
from trtgate.timing.device_lock import device_lock, lock_file


def _hold(shared: bool, held: multiprocessing.synchronize.Event, release: multiprocessing.synchronize.Event) -> None:
    with device_lock("GPU-test", 30, lambda _s: None, shared=shared):
        held.set()
        release.wait(30)


class Holders:
    """Starts processes that hold the lock until they are released."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("fork")
        self._release = self._context.Event()
        self._started: list[multiprocessing.process.BaseProcess] = []

    def start(self, *, shared: bool, wait: bool = True) -> multiprocessing.synchronize.Event:
        held = self._context.Event()
        self._started.append(self._context.Process(target=_hold, args=(shared, held, self._release)))
        self._started[-1].start()
        assert not wait or held.wait(30)
        return held

    def end(self) -> None:
        self._release.set()
        for process in self._started:
            process.join(30)


@pytest.fixture
def holders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holders]:
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    found = Holders()
    yield found
    found.end()


def test_one_process_times_on_a_device_at_a_time(holders: Holders) -> None:
    holders.start(shared=False)
    for shared in (False, True):
        with (
            pytest.raises(TrtgateError, match="other trtgate processes"),
            device_lock("GPU-test", 0.0, lambda _s: None, shared=shared),
        ):
            pass
    with device_lock("GPU-other", 0.0, lambda _s: None):  # another card is free
        pass
    holders.end()
    with device_lock("GPU-test", 5, lambda _s: None):
        pass


def test_builders_share_the_device_and_none_times_meanwhile(holders: Holders) -> None:
    holders.start(shared=True)
    holders.start(shared=True)
    with device_lock("GPU-test", 0.0, lambda _s: None, shared=True):
        pass
    with pytest.raises(TrtgateError, match="timing or building"), device_lock("GPU-test", 0.0, lambda _s: None):
        pass


def test_who_waits_to_time_is_not_overtaken_by_builders(holders: Holders) -> None:
    holders.start(shared=True)
    timer = holders.start(shared=False, wait=False)
    waited = []

    def waiting(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            raise KeyboardInterrupt

    queue = lock_file("GPU-test").with_suffix(".queue")
    while not queue.exists() or _free(queue):  # until the timer stands in the queue
        pass
    with pytest.raises(KeyboardInterrupt), device_lock("GPU-test", 30, waiting, shared=True):
        pass
    assert not timer.is_set()


def _free(queue: Path) -> bool:
    try:
        with FileLock(queue, timeout=0):
            return True
    except Timeout:
        return False


def test_a_lock_that_cannot_be_opened_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    lock_file("GPU-test").mkdir()
    with pytest.raises(TrtgateError, match="TRTGATE_LOCK_DIR"), device_lock("GPU-test", 5, lambda _s: None):
        pass
