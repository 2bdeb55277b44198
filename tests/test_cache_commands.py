"""`trtgate cache`, and what a run refuses about its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from trtgate.commands import cache_contents
from trtgate.common import sealed_folder
from trtgate.common.errors import TrtgateError
from trtgate.compiling import artifact_cache
from trtgate.compiling.artifact_cache import ArtifactCache
from trtgate.compiling.sealed_store import SealedManifest
from trtgate.records.measurement import Build


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArtifactCache:
    """A cache with two cases, one of them with a hostile name."""
    monkeypatch.setenv("TRTGATE_CACHE_DIR", str(tmp_path / "cache"))
    cache = ArtifactCache(tmp_path / "cache")
    for number, name in enumerate(("resnet18-dynamo-fp16", "evil\x1b[31m-dynamo-fp16")):
        folder = tmp_path / f"built-{number}"
        folder.mkdir(mode=0o700)
        (folder / "compiled.pt2").write_bytes(b"x" * (1 << 20))
        made_from = {"program": str(number), "torch": "2.14.0", "device": "NVIDIA H100"}
        manifest = SealedManifest(
            case=name, made_from=made_from, created=artifact_cache.now(), build=Build(build_s=12.5), coverage=None,
            sha256=sealed_folder.digests(folder),
        )  # fmt: skip
        assert cache.put(artifact_cache.key_of(made_from), folder, manifest) == ""
    return cache


def test_info_shows_what_is_there_and_what_each_frontend_leaves(cache: ArtifactCache) -> None:
    said = "\n".join(map(str, cache_contents.info([])))
    assert f"{cache.folder}: 2 compiled modules, 2.0 MiB" in said
    assert "resnet18-dynamo-fp16" in said
    assert "12.5 s" in said
    assert "device NVIDIA H100, torch 2.14.0" in said
    assert "\x1b" not in said
    for frontend in ("eager", "inductor", "torch_compile", "dynamo"):
        assert f"\n{frontend}" in said


def test_clear_removes_what_is_named_or_all(cache: ArtifactCache) -> None:
    (first, _) = cache_contents.clear(["resnet18-*"])[0].split(", ")
    assert first.endswith("removed 1 compiled module")
    assert len(cache.entries()) == 1
    with pytest.raises(TrtgateError, match="has no resnet18-"):
        cache_contents.clear(["resnet18-*"])
    cache_contents.clear([])
    assert cache.entries() == []
    assert "0 compiled modules" in str(cache_contents.info([])[0])


def test_an_unreadable_entry_is_shown_and_cleared(cache: ArtifactCache) -> None:
    (cache.folder / "entries" / cache.entries()[0].key / "entry.json").write_text("{")
    assert cache_contents.UNREADABLE in "\n".join(map(str, cache_contents.info([])))
    cache_contents.clear([])
    assert cache.entries() == []


@pytest.mark.parametrize(
    ("options", "ini", "words"),
    [
        (("--trtgate-no-cache", "--trtgate-rebuild"), "", ("drop one",)),
        ((), "trtgate_cache_size = much\n", ("trtgate_cache_size", "20GiB")),
    ],
)
def test_options_that_make_no_sense_are_refused(folder: Any, options: Any, ini: str, words: Any) -> None:
    folder.suite("alpha")
    with (folder.path / "pytest.ini").open("a") as file:
        file.write(ini)
    folder.refused(folder.gate(*options), *words)


def test_a_date_that_no_calendar_has_is_shown(cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a broken clock writes it; not every file system stores such a one."""
    entries = [msgspec.structs.replace(entry, used=4e14) for entry in cache.entries()]
    monkeypatch.setattr(ArtifactCache, "entries", lambda _cache: entries)
    assert "\n".join(map(str, cache_contents.info([]))).count("(no date)") == 2
