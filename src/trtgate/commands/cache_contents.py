"""What `trtgate cache info` and `trtgate cache clear` do. Needs neither a GPU nor torch."""

from __future__ import annotations

import datetime
import fnmatch
from collections.abc import Sequence

from .. import frontends
from ..common.errors import TrtgateError
from ..common.text_columns import Line, TextTable, number_of
from ..compiling import artifact_cache
from ..compiling.artifact_cache import ArtifactCache, Entry
from ..suite.settings import FRONTENDS

UNREADABLE = "(can't be read)"


def info(cases: Sequence[str]) -> list[Line]:
    """Return what is stored of cases, or of all. Raises TrtgateError for a folder that can't be used."""
    cache, entries = _found(cases)
    rows: list[tuple[str, ...]] = [("case", "MiB", "built in", "last used", "for")] if entries else []
    rows += [_row(entry) for entry in reversed(entries)]
    stores = [("frontend", "what it leaves for later"), *((name, frontends.get(name).stores) for name in FRONTENDS)]
    return [
        f"{cache.folder}: {_sum(entries)}",
        TextTable(rows, left=(0, 4)),
        "",
        TextTable(stores, left=(0, 1)),
    ]


def clear(cases: Sequence[str]) -> list[str]:
    """Remove what is stored of cases, or of all, and say how much. Raises TrtgateError as `info` does."""
    cache, entries = _found(cases)
    for entry in entries:
        cache.remove(entry.key)
    return [f"{cache.folder}: removed {_sum(entries)}"]


def _found(cases: Sequence[str]) -> tuple[ArtifactCache, list[Entry]]:
    cache = ArtifactCache(artifact_cache.default_folder())
    found = [entry for entry in cache.entries() if not cases or any(fnmatch.fnmatch(_case(entry), c) for c in cases)]
    if cases and not found:
        raise TrtgateError(f"the cache {cache.folder} has no {' '.join(cases)}; `trtgate cache info` shows what it has")
    return cache, found


def _row(entry: Entry) -> tuple[str, ...]:
    used = _when(entry.used)
    size = f"{entry.size_bytes / (1 << 20):,.1f}"
    if entry.manifest is None or entry.manifest.build is None:
        return _case(entry), size, "", used, ""
    made_from = entry.manifest.made_from
    names = ("device", "torch", "torch-tensorrt-rtx", "torch-tensorrt")
    what = ", ".join(f"{name} {made_from[name]}" for name in names if name in made_from)
    return _case(entry), size, f"{entry.manifest.build.build_s:.1f} s", used, what


def _when(seconds: float) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):  # beyond the year 9999, as a broken clock writes it
        return "(no date)"


def _case(entry: Entry) -> str:
    return UNREADABLE if entry.manifest is None else entry.manifest.case


def _sum(entries: Sequence[Entry]) -> str:
    number = number_of(len(entries), "compiled module")
    return f"{number}, {sum(entry.size_bytes for entry in entries) / (1 << 20):,.1f} MiB"
