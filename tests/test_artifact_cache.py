"""The artifact cache: what is taken is what was put, whole, private and unchanged; else it is built again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from trtgate.common import sealed_folder
from trtgate.common.errors import TrtgateError
from trtgate.common.locks import ClaimedFolder
from trtgate.compiling import artifact_cache, sealed_store
from trtgate.compiling.artifact_cache import ArtifactCache, key_of, size
from trtgate.compiling.sealed_store import SealedManifest
from trtgate.records.measurement import Build

from . import faults

KEY = key_of({"program": "1"})
OTHER = key_of({"program": "2"})


def built(folder: Path, content: bytes = b"engine") -> tuple[Path, SealedManifest]:
    folder.mkdir(mode=0o700)
    (folder / "compiled.pt2").write_bytes(content)
    manifest = SealedManifest(
        case="net-dynamo-fp16", made_from={"program": "1"}, created=artifact_cache.now(), build=Build(build_s=12.5),
        coverage=None, sha256=sealed_folder.digests(folder),
    )  # fmt: skip
    (folder / "inputs.pt").write_bytes(b"inputs")  # not named in the manifest: goes into no cache
    return folder, manifest


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "cache")


@pytest.fixture
def place(tmp_path: Path) -> Callable[[], Path]:
    """Make a private folder."""
    made: list[Path] = []

    def make() -> Path:
        made.append(tmp_path / f"place-{len(made)}")
        made[-1].mkdir(mode=0o700)
        return made[-1]

    return make


@pytest.fixture
def full(cache: ArtifactCache, tmp_path: Path) -> ArtifactCache:
    assert cache.put(KEY, *built(tmp_path / "built")) == ""
    return cache


def entry(cache: ArtifactCache, key: str = KEY) -> Path:
    return cache.folder / "entries" / key


def test_what_was_put_is_taken(full: ArtifactCache, place: Callable[[], Path]) -> None:
    folder = place()
    manifest, problem = full.take(KEY, folder)
    assert manifest is not None
    assert (problem, manifest.build.build_s) == ("", 12.5)
    assert [file.name for file in folder.iterdir()] == ["compiled.pt2"]
    assert (folder / "compiled.pt2").read_bytes() == b"engine"
    assert full.take(OTHER, place()) == (None, "")


def test_what_was_taken_stays_when_the_entry_goes(full: ArtifactCache, place: Callable[[], Path]) -> None:
    folder = place()
    full.take(KEY, folder)
    full.remove(KEY)
    assert (folder / "compiled.pt2").read_bytes() == b"engine"
    assert full.take(KEY, place()) == (None, "")
    assert full.entries() == []


def test_all_is_this_users_alone(full: ArtifactCache) -> None:
    modes = {path: path.stat().st_mode & 0o777 for path in full.folder.rglob("*")}
    assert full.folder.stat().st_mode & 0o777 == 0o700
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_another_file_system_gets_copies(
    full: ArtifactCache, place: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crosses(*_arguments: object, **_keywords: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", crosses)
    before = os.umask(0o002)
    try:
        folder = place()
        assert full.take(KEY, folder)[0] is not None
        assert (folder / "compiled.pt2").read_bytes() == b"engine"
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "break_", ["byte", "gone", "manifest", "schema", "writable", "link", "name", "no files", "more files"]
)
def test_what_does_not_match_is_removed_and_never_handed_out(
    full: ArtifactCache, place: Callable[[], Path], tmp_path: Path, break_: str
) -> None:
    file, manifest = entry(full) / "compiled.pt2", entry(full) / "entry.json"
    if break_ == "byte":
        file.write_bytes(b"enginf")
    elif break_ == "gone":
        file.unlink()
    elif break_ == "manifest":
        manifest.write_text("{")
    elif break_ == "schema":
        manifest.write_bytes(manifest.read_bytes().replace(b'"schema":1', b'"schema":2'))
    elif break_ == "writable":
        file.chmod(0o620)
    elif break_ == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    elif break_ == "no files":
        stored = json.loads(manifest.read_bytes())
        manifest.write_text(json.dumps({**stored, "sha256": {}}))
        file.unlink()
    elif break_ == "more files":
        (entry(full) / "compiled.extra").write_bytes(b"x")
    else:
        manifest.write_bytes(manifest.read_bytes().replace(b'"compiled.pt2"', b'"../compiled.pt2"'))
    folder = place()
    found, problem = full.take(KEY, folder)
    assert found is None
    assert "it was removed, and is built again" in problem
    assert str(entry(full)) in problem
    assert list(folder.iterdir()) == []
    assert not entry(full).exists()
    assert full.take(KEY, place()) == (None, "")


def test_an_entry_that_is_replaced_while_it_is_checked_was_taken(
    full: ArtifactCache, place: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = full._locked

    @contextmanager
    def and_gone() -> Iterator[None]:
        with locked():
            yield
        shutil.rmtree(entry(full), ignore_errors=True)  # another process puts a new one there

    monkeypatch.setattr(full, "_locked", and_gone)
    manifest, problem = full.take(KEY, place())
    assert (manifest is not None, problem) == (True, "")


def test_rebuilding_takes_nothing_and_replaces(full: ArtifactCache, tmp_path: Path, place: Callable[[], Path]) -> None:
    again = ArtifactCache(full.folder, rebuild=True)
    assert again.take(KEY, place()) == (None, "")
    assert again.put(KEY, *built(tmp_path / "newer", b"newer")) == ""
    folder = place()
    assert full.take(KEY, folder)[0] is not None
    assert (folder / "compiled.pt2").read_bytes() == b"newer"


def test_the_least_lately_used_go_first_and_the_newest_never(tmp_path: Path, place: Callable[[], Path]) -> None:
    cache = ArtifactCache(tmp_path / "cache", limit_bytes=2500)
    keys = [key_of({"program": str(number)}) for number in range(4)]
    for number, key in enumerate(keys[:2]):
        cache.put(key, *built(tmp_path / f"built-{number}", b"x" * 600))
        os.utime(entry(cache, key) / "entry.json", (number, number))
    assert cache.take(keys[0], place())[0] is not None  # now the other one is the oldest
    cache.put(keys[2], *built(tmp_path / "built-2", b"x" * 600))
    assert {found.key for found in cache.entries()} == {keys[0], keys[2]}
    cache.put(keys[3], *built(tmp_path / "built-3", b"x" * 5000))
    assert [found.key for found in cache.entries()] == [keys[3]]


def test_folders_of_killed_processes_go(full: ArtifactCache, tmp_path: Path) -> None:
    abandoned = full.folder / f"new-{os.getpid()}-x"  # by a process of that id in another container
    abandoned.mkdir()
    held = ClaimedFolder(full.folder, "new")
    full.put(OTHER, *built(tmp_path / "more"))
    assert not abandoned.exists()
    assert held.path.exists()
    held.remove()
    assert [path.name for path in full.folder.iterdir()] == ["entries"]


@pytest.mark.parametrize("wrong", ["mode", "link", "file"])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, wrong: str) -> None:
    folder = tmp_path / "cache"
    if wrong == "mode":
        folder.mkdir(mode=0o700)
        folder.chmod(0o750)
    elif wrong == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.write_text("")
    with pytest.raises(TrtgateError, match=r"cache folder .*(this user alone|can't be made)"):
        ArtifactCache(folder)


def test_a_folder_of_entries_that_others_may_write_is_refused(full: ArtifactCache) -> None:
    (full.folder / "entries").chmod(0o770)
    with pytest.raises(TrtgateError, match=r"entries must be a folder that this user alone may write.*remove it"):
        ArtifactCache(full.folder)


def test_a_cache_that_can_only_be_read_is_used(
    full: ArtifactCache, place: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = place(), place()
    with monkeypatch.context() as context:
        faults.read_only(context, full.folder)
        cache = ArtifactCache(full.folder)
        assert cache.take(KEY, good)[0] is not None
    (entry(full) / "compiled.pt2").write_bytes(b"enginf")
    with monkeypatch.context() as context:
        faults.read_only(context, full.folder)
        found, said = cache.take(KEY, bad)
    assert found is None
    assert "is not what was stored, and can't be removed" in said
    assert "Read-only file system" in said


def test_another_users_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ArtifactCache(tmp_path / "cache")
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(TrtgateError, match="this user alone"):
        ArtifactCache(tmp_path / "cache")


def test_a_full_disk_is_a_note(cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sealed_store, "write_whole", full_disk)
    note = cache.put(KEY, *built(tmp_path / "built"))
    assert note == "the compiled module of net-dynamo-fp16 could not be cached: No space left on device"
    assert [path.name for path in cache.folder.iterdir()] == ["entries"]


def test_keys_are_of_everything_and_of_no_order() -> None:
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})
    others: list[dict[str, str]] = [{}, {"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": '1","b":"2'}]
    assert len({key_of(one) for one in others}) == len(others)


def test_an_unreadable_entry_is_listed(full: ArtifactCache) -> None:
    (entry(full) / "entry.json").write_text("{")
    (found,) = full.entries()
    assert found.manifest is None
    assert found.size_bytes == len(b"engine") + 1


@pytest.mark.parametrize(("text", "wanted"), [("20GiB", 20 << 30), ("500 M", 500 << 20), ("1.5k", 1536), ("7", 7)])
def test_sizes(text: str, wanted: int) -> None:
    assert size(text) == wanted


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "10 pounds"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(TrtgateError, match="a size is a number with a unit"):
        size(text)


def test_the_folder_is_found_as_others_find_theirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRTGATE_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert artifact_cache.default_folder() == tmp_path / ".cache/trtgate/artifacts"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert artifact_cache.default_folder() == tmp_path / "xdg/trtgate/artifacts"
    monkeypatch.setenv("TRTGATE_CACHE_DIR", str(tmp_path / "own"))
    assert artifact_cache.default_folder() == tmp_path / "own"


def test_a_manifest_says_what_an_entry_was_made_from(full: ArtifactCache) -> None:
    manifest = msgspec.json.decode((entry(full) / "entry.json").read_bytes(), type=SealedManifest)
    assert manifest.made_from == {"program": "1"}
    assert set(manifest.sha256) == {"compiled.pt2"}
