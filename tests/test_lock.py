"""The lock of a device: who times is alone, who builds shares it, and nobody waits for ever."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import multiprocessing.synchronize
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trtgate.common import files
from trtgate.common.errors import TrtgateError
from trtgate.common.files import locked, write_json
from trtgate.common.locks import ClaimedFolder, folder_locked, open_shared, remove_abandoned, try_lock
from trtgate.timing.device_lock import device_lock, lock_file

from . import faults


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
    descriptor = open_shared(queue)
    try:
        return try_lock(descriptor)
    finally:
        os.close(descriptor)


def test_a_lock_that_cannot_be_opened_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    lock_file("GPU-test").mkdir()
    with pytest.raises(TrtgateError, match="TRTGATE_LOCK_DIR"), device_lock("GPU-test", 5, lambda _s: None):
        pass


@pytest.fixture
def shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRTGATE_LOCK_DIR", str(tmp_path))
    return tmp_path


def test_every_user_may_lock_whatever_the_first_ones_umask(shared_folder: Path) -> None:
    before = os.umask(0o077)
    try:
        with device_lock("GPU-test", 5, lambda _s: None):
            pass
    finally:
        os.umask(before)
    for file in shared_folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o666


def test_a_file_that_can_only_be_read_can_be_locked(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's, made by hand or by an older version: neither its mode nor its owner blocks anybody."""
    path = lock_file("GPU-test")
    for file in (path, path.with_suffix(".queue")):
        file.touch(0o644)

    def hook(name: str, path: Path) -> None:
        if name == "open+" and path.parent == shared_folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as context:
        faults.watch(context, hook)
        with device_lock("GPU-test", 5, lambda _s: None):
            assert not _free(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("name", ["lock", "queue"])
@pytest.mark.parametrize("what", ["a link", "a link to nothing", "a pipe", "a folder"])
def test_what_others_put_in_a_locks_place_is_not_touched(shared_folder: Path, name: str, what: str) -> None:
    victim = shared_folder / "victim"
    path = lock_file("GPU-test").with_suffix(f".{name}")
    if what == "a pipe":
        os.mkfifo(path)
    elif what == "a folder":
        path.mkdir()
    else:
        path.symlink_to(victim)
    if what == "a link":
        victim.write_text("theirs")
        victim.chmod(0o600)
    refused = pytest.raises(TrtgateError, match="let its owner remove it, or set TRTGATE_LOCK_DIR")
    with refused as raised, device_lock("GPU-test", 5, lambda _s: None):
        pass
    assert str(path) in str(raised.value)
    if what == "a link":
        assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == ("theirs", 0o600)
    else:
        assert not victim.exists()


def test_jobs_with_temporary_folders_of_their_own_share_the_lock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TRTGATE_LOCK_DIR", raising=False)
    before = lock_file("GPU-test")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert lock_file("GPU-test") == before
    assert before.parent != tmp_path


# What a process holds


def test_a_folder_is_locked_by_one_at_a_time_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    refused = pytest.raises(TrtgateError, match="another process has been writing")
    with folder_locked(tmp_path, 0.0), refused, folder_locked(tmp_path, 0.0):
        pass
    with folder_locked(tmp_path, 0.0):
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_locked_itself_gets_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, whose locks need a file that is open for writing."""
    real = fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    refused = pytest.raises(TrtgateError, match="another process")
    with folder_locked(tmp_path, 0.0), refused, folder_locked(tmp_path, 0.0):
        pass
    held = ClaimedFolder(tmp_path, "base")
    assert remove_abandoned(tmp_path, "base") == []
    held.remove()


def test_baselines_are_locked_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two containers have temporary folders of their own, and one folder of baselines."""
    path = tmp_path / "key" / "latency.json"
    with locked(path):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        monkeypatch.setattr(files, "LOCK_TIMEOUT_S", 0.0)
        with pytest.raises(TrtgateError, match="another process"), locked(path):
            pass


def test_what_a_writer_of_any_file_left_when_it_was_killed_goes_and_a_live_writers_stays(tmp_path: Path) -> None:
    for name in (".run.json-abcd1234", ".run.json-live5678", ".other.json-abcd1234", ".run.json"):
        (tmp_path / name).write_text("half of it")
    live = os.open(tmp_path / ".run.json-live5678", os.O_RDONLY)
    try:
        assert try_lock(live)
        files.write_whole(tmp_path / "run.json", b"{}")
    finally:
        os.close(live)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"run.json", ".run.json", ".run.json-live5678", ".other.json-abcd1234"}


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "latency.json"
    (tmp_path / ".latency.json-abcd_123").write_text("{")
    (tmp_path / ".latency.json-mine").write_text("kept")
    with locked(path):
        write_json(path, {})
    assert {file.name for file in tmp_path.iterdir()} == {"latency.json", ".latency.json-mine"}


def test_a_link_is_written_through(tmp_path: Path) -> None:
    target, path = tmp_path / "shared" / "latency.json", tmp_path / "latency.json"
    path.symlink_to(target)
    for content in ({"a": 1}, {"a": 2}):
        with locked(path):
            write_json(path, content)
        assert path.is_symlink()
        assert json.loads(target.read_text()) == content
