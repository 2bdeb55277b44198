"""Where runs lie: a file, a folder or a URL. Everything that reads runs finds and reads them here.

Where `trtgate_runs` keeps them, a run is `<accelerator>/<date>/<commit>-<run>.json`, written once. Directly in a
folder, such as `.trtgate/runs`, every *.json may be one.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from . import run_file
from .errors import PROBLEMS, TrtgateError, sentence_of
from .escaping import printable
from .explanations import Explanation, bare, explained
from .files import is_there, listed, locked, open_file, read_bytes, write_whole
from .notices import Notice, Severity
from .run_store import RunStore, StoredObject, StoreError
from .urls import is_url

Place = Path | StoredObject
"""One run."""
Folder = Path | RunStore
"""What holds runs."""

MOST_BYTES = 512 << 20
"""A larger run is not read. A case with 3 launches of 6 captures of 12 blocks takes 55 kB in a shard's."""
MOST_VALUES = 12_000_000
"""JSON with more values is not read: 512 MiB of nothing but brackets would become 20 GiB. A case takes some 6,000."""
MOST_RUNS = 500
"""Runs of a store that are read at once: the newest."""
SHARD, CONFIRMATION, MERGED, OPEN, REPORT, WHOLE = "shard", "confirmation", "merged", "open", "report", "run"
EVIDENCE = "evidence"
STAGES, JUDGED = (SHARD, CONFIRMATION), (WHOLE, MERGED)
_NAME = re.compile(
    r"(?:(?P<commit>[0-9a-f]{7,40}|unknown)-)?(?P<stamp>\d{8}T\d{6})-(?P<run>[0-9a-f]+)-"
    r"(?P<part>(?P<kind>shard|confirmation|merged|open|report|evidence|run)(?:-\d+-of-\d+)?)?.*\.json",
    re.ASCII,
)
_KEY = re.compile(r"[A-Za-z0-9][\w.+-]{0,199}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MAGIC = re.compile(r"[*?\[]")


def at(text: str, base: Path = Path()) -> Folder:
    """Return the folder or file that a path, from `base`, or a URL names. Raises TrtgateError for a URL of no use."""
    if text.startswith("file://"):
        text = unquote(text.removeprefix("file://"))
    return RunStore(text) if is_url(text) else base / text


def one(text: str, base: Path = Path()) -> Place:
    """Return the run that a path or a URL names. Raises TrtgateError where a URL names a folder, or nothing."""
    place = at(text, base)
    if isinstance(place, Path):
        return place
    if not place.is_object():
        raise TrtgateError(f"{place} is a folder, not a run: name one of its objects")
    return place.object()


def to_confirm(text: str, base: Path, *, key: str, commit: str) -> Place:
    """Return the run that a merge left to be confirmed, which a path or a URL names.

    Of a folder: the newest one of an accelerator and a commit. Raises TrtgateError where there is none, or where the
    newest run was merged more than once.
    """
    place = at(text, base)
    if not _is_folder(place):
        return place if isinstance(place, Path) else place.object()
    found = runs_in(place, (OPEN,), key=key, commit=commit)
    if not found:
        of_commit = f" of commit {commit[:12]}" if commit else ""
        raise TrtgateError(f"{place} has no run of {key}{of_commit} that waits for a confirmation")
    if len(found) > 1 and _stamp(found[-1].name) == _stamp(found[-2].name):
        raise TrtgateError(f"{place} has two merges of one run: name {found[-2].name} or {found[-1].name}")
    return found[-1]


def several(texts: Sequence[str], commit: str) -> list[Place]:
    """Return what shards left that paths, folders, URLs and patterns of URLs name.

    Of a folder: all that its names say is of a shard or a confirmation, and of this commit where they name one. Raises
    TrtgateError where a folder or a pattern has none.
    """
    found: list[Place] = []
    for text in texts:
        place = at(text)
        if isinstance(place, RunStore) and _MAGIC.search(text.rpartition("://")[2]):
            some: list[Place] = [*place.matching()]
        elif _is_folder(place):
            some = runs_in(place, STAGES, commit=commit)
        else:
            some = [place if isinstance(place, Path) else place.object()]
        if not some:
            of_commit = f" of commit {commit[:12]}" if commit else ""
            raise TrtgateError(f"{place} has no run of a shard or a confirmation{of_commit}")
        found += some
    return found


def _is_folder(place: Folder) -> bool:
    """Whether it is there, and no run itself. Raises StoreError where a URL names nothing."""
    return place.is_dir() if isinstance(place, Path) else not place.is_object()


def runs_in(
    folder: Folder, kinds: Sequence[str] = JUDGED, *, key: str = "", commit: str = "", without: Collection[str] = ()
) -> list[Place]:
    """Return the runs in a folder as `named_runs` finds them, without their names."""
    return list(named_runs(folder, kinds, key=key, commit=commit, without=without).values())


def named_runs(
    folder: Folder, kinds: Sequence[str] = JUDGED, *, key: str = "", commit: str = "", without: Collection[str] = (),
    all_dates: bool = False,
) -> dict[str, Place]:  # fmt: skip
    """Return the runs in a folder, of these kinds as far as names tell, the oldest first.

    By their paths in the folder; what is in `without` does not count. `key`, `commit`: of this accelerator and this
    commit alone, where a name says of which. Of runs by date all of stages and, without `all_dates`, the MOST_RUNS
    newest others. What has no name of ours is passed over, but for judged runs directly in the folder. Raises OSError
    or StoreError for what can't be read.
    """
    most = sys.maxsize if all_dates or kinds == STAGES else MOST_RUNS
    direct, dated = dict[str, Place](), list[tuple[str, str, str]]()
    for name, is_folder, entry in _entries(folder):
        if not is_folder and name.endswith(".json") and _wanted(name, kinds, commit, strictly=kinds != JUDGED):
            direct[name] = _run_at(folder, entry)
        elif is_folder and _KEY.fullmatch(name) and key in ("", name):
            dated += [
                (date, f"{name}/{date}", below) for date, is_date, below in _entries(folder, entry)
                if is_date and _DATE.fullmatch(date)
            ]  # fmt: skip
    found: list[tuple[str, str, Place]] = []
    for _, where, entry in sorted(dated, key=lambda one: one[0], reverse=True):
        if len(found) < most:
            found += [
                (_stamp(name), f"{where}/{name}", _run_at(folder, below))
                for name, is_folder, below in _entries(folder, entry)
                if not is_folder and _wanted(name, kinds, commit, strictly=True) and f"{where}/{name}" not in without
            ]
    found.sort(key=lambda run: run[0])
    # A run that was saved here may be kept below the same folder.
    kept = {_identity(posixpath.basename(name)) for name in [*without, *(name for _, name, _ in found)] if "/" in name}
    saved = {name: place for name, place in direct.items() if name not in without and _identity(name) not in kept}
    return saved | {name: place for _, name, place in found[-most:]}


def keys_in(folder: Folder) -> list[str]:
    """Return the accelerators of which a folder has runs by `<accelerator>/<date>`. Raises as `runs_in`."""
    return [name for name, is_folder, _ in _entries(folder) if is_folder and _KEY.fullmatch(name)]


def _entries(folder: Folder, below: str = "") -> Iterator[tuple[str, bool, str]]:
    """Return (name, whether it is a folder, path) of what lies in a folder, or below it; sorted."""
    if isinstance(folder, Path):
        paths = listed(Path(below) if below else folder)
        return ((path.name, path.is_dir(), str(path)) for path in paths)
    return iter(folder.entries(below))


def _run_at(folder: Folder, path: str) -> Place:
    return Path(path) if isinstance(folder, Path) else folder.at(path)


def _wanted(name: str, kinds: Sequence[str], commit: str, *, strictly: bool) -> bool:
    found = _NAME.fullmatch(name)
    if found is None:
        return not strictly
    of_commit = not (commit and found["commit"]) or commit.startswith(found["commit"])
    return (found["kind"] or WHOLE) in kinds and of_commit


def _identity(name: str) -> str:
    """Return what a run's name has wherever it lies; of what is no name of ours, itself."""
    found = _NAME.fullmatch(name)
    return name if found is None else f"{_stamp(name)}-{found['part'] or WHOLE}"


def _stamp(name: str) -> str:
    found = _NAME.fullmatch(name)
    return "" if found is None else f"{found['stamp']}-{found['run']}"


# Reading and writing


def content_of(place: Place) -> bytes:
    """Return a run's JSON; of one that a kill cut short, what is whole.

    Raises TrtgateError for what is too large to be a run, StoreError or OSError for what can't be read.
    """
    if isinstance(place, Path):
        with open_file(place) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise TrtgateError(f"{place} is larger than {MOST_BYTES >> 20} MiB: no run of trtgate's is")
    else:
        content = place.read(MOST_BYTES)
    if sum(map(content.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise TrtgateError(f"{place} has more than {MOST_VALUES:,} values: no run of trtgate's has")
    return run_file.repaired(content)


def put(folder: Folder, local_name: str, content: bytes, *, key: str, commit: str, kind: str = "") -> str:
    """Write a run that is named `<time>-<run>-<part>-…json` here as a new object; returns what it is called there.

    `kind` takes the place of the part that the name says; such an object may follow others of the same run, so its name
    has a digest of the content. Raises StoreError or OSError; what has that name already stays as it is.
    """
    found = _NAME.fullmatch(local_name)
    if found is None:
        raise TrtgateError(f"{printable(local_name)} is no name of a run")
    part = f"{kind}-{hashlib.sha256(content).hexdigest()[:12]}" if kind else found["part"] or WHOLE
    day, of_commit = found["stamp"][:8], commit[:12] if re.fullmatch(r"[0-9a-f]{7,}", commit) else "unknown"
    name = f"{key}/{day[:4]}-{day[4:6]}-{day[6:]}/{of_commit}-{found['stamp']}-{found['run']}-{part}.json"
    if isinstance(folder, RunStore):
        return folder.put(name, content)
    path = folder / name
    with locked(path):
        if not is_there(path):
            write_whole(path, content)
        elif read_bytes(path) != content:
            raise StoreError(f"{path}: another run has that name")
    return os.path.relpath(path)


def keep(
    folder: Folder, local_name: str, content: bytes, *, key: str, commit: str, here: str, kind: str = ""
) -> tuple[str, Notice]:
    """Put a run as `put` does; return where it is, and what to say. Where that fails the file `here` alone has it."""
    what = REPORT if kind == REPORT else WHOLE
    try:
        where = put(folder, local_name, content, key=key, commit=commit, kind=kind)
    except PROBLEMS as error:
        said = f"the {what} was not kept: {bare(sentence_of(error))}; {here} alone has it"
        return "", Notice(explained(said, Explanation.FILE_FAULT), Severity.WARNING)
    return where, Notice(f"{what} kept: {where}")
