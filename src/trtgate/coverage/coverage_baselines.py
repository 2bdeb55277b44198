"""Stored coverage: `baselines/coverage/<flavour>-<version>/<model>.json`, plain sorted JSON, one model a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from packaging.version import InvalidVersion, Version

from ..common.errors import TrtgateError, explaining
from ..common.explanations import Explanation
from ..common.files import decoded, is_there, key_twice, listed, locked, read_bytes, write_json
from ..records.coverage_record import Coverage

FOLDER = "coverage"
SCHEMA = 1


class ModelFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The coverage of one model; `cases` are by the suffix of their ids, such as `dynamo-fp16-b1-mbs5`."""

    schema: int
    model: str
    cases: dict[str, Coverage]

    def by_id(self) -> dict[str, Coverage]:
        """Return the cases by their whole ids."""
        return {f"{self.model}-{suffix}": coverage for suffix, coverage in self.cases.items()}


class StoredCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """A stored coverage, and the folder that it is from."""

    coverage: Coverage
    release: str


def releases(root: Path, flavour: str = "") -> list[str]:
    """Return the releases that something is stored for, oldest first; of one flavour, or of all."""
    names = [entry.name for entry in listed(root / FOLDER)]
    known = [name for name in names if _version(name) and (not flavour or name.startswith(f"{flavour}-"))]
    return sorted(known, key=lambda name: (name.rpartition("-")[0], _version(name) or Version("0")))


def _version(release: str) -> Version | None:
    try:
        return Version(release.rpartition("-")[2])
    except InvalidVersion:
        return None


def path_of(root: Path, release: str, model: str) -> Path:
    """Return where a model's coverage is stored."""
    return root / FOLDER / release / f"{model}.json"


@explaining(Explanation.BASELINE_BROKEN)
def read(path: Path) -> ModelFile:
    """Read a model's file. Raises TrtgateError, naming it, when it is broken or of another schema."""
    try:
        content = read_bytes(path)
        found: ModelFile = decoded(content, ModelFile)
    except OSError as error:
        raise TrtgateError(f"{path} can't be read: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise TrtgateError(f"{path} is broken ({error}): restore it, or delete it and record it anew") from error
    if found.schema != SCHEMA:
        raise TrtgateError(f"{path} has schema {found.schema}, this trtgate reads {SCHEMA}: update trtgate")
    if key := key_twice(content):
        raise TrtgateError(f"{path} has the key {key!r} twice, as a merge may leave it: make one of the two")
    if not found.cases:
        raise TrtgateError(f"{path} holds no case: restore it, or delete it and record it anew")
    for suffix, coverage in found.cases.items():
        if not coverage.adds_up:
            raise TrtgateError(
                f"{path}: the operators of case {suffix} do not add up, as a bad merge may leave them: restore it, or "
                "delete it and record it anew"
            )
    return found


def read_release(folder: Path) -> dict[str, Coverage]:
    """Read all models of a folder: case id → coverage. Raises TrtgateError when one is broken, or there is none."""
    files = listed(folder, "*.json")
    if not files:
        raise TrtgateError(f"{folder} holds no coverage")
    return {case_id: coverage for file in files for case_id, coverage in read(file).by_id().items()}


def find(root: Path, release: str, model: str, suffix: str) -> StoredCoverage | None:
    """Return what a case is compared with: its release's coverage, else that of the newest older one that has it.

    Raises TrtgateError when a file on the way is broken.
    """
    for name in _up_to(root, release):
        path = path_of(root, name, model)
        if is_there(path):
            found = read(path).cases.get(suffix)
            if found is not None:
                return StoredCoverage(coverage=found, release=name)
    return None


def newest(root: Path, release: str) -> str:
    """Return the release itself if something is stored for it, else the newest older one; empty if there is none."""
    return next(iter(_up_to(root, release)), "")


def _up_to(root: Path, release: str) -> list[str]:
    """Return the stored releases of the same flavour up to this one, newest first."""
    wanted = _version(release)
    names = releases(root, release.rpartition("-")[0])
    return [name for name in reversed(names) if wanted and (_version(name) or wanted) <= wanted]


def store(root: Path, release: str, model: str, suffix: str, coverage: Coverage) -> None:
    """Store the coverage of one case; other cases of the model stay. Several processes may do so at once.

    Raises TrtgateError when the file is broken, or can't be written.
    """
    path = path_of(root, release, model)
    with locked(path):
        cases = read(path).cases if is_there(path) else {}
        cases[suffix] = coverage
        _write(path, ModelFile(schema=SCHEMA, model=model, cases=cases))


def remove(root: Path, case_ids: Iterable[str]) -> list[Path]:
    """Remove cases from all releases; returns the files that changed."""
    wanted, changed = set(case_ids), []
    for path in _files(root):
        with locked(path):
            found = read(path)
            kept = {suffix: value for suffix, value in found.cases.items() if f"{found.model}-{suffix}" not in wanted}
            if len(kept) == len(found.cases):
                continue
            changed.append(path)
            if kept:
                _write(path, ModelFile(schema=SCHEMA, model=found.model, cases=kept))
            else:
                path.unlink()
    return changed


def case_ids(root: Path, release: str = "*") -> set[str]:
    """Return the ids of all stored cases, of one release or of all. Raises TrtgateError for a broken file."""
    return {case_id for file in _files(root, release) for case_id in read(file).by_id()}


def _files(root: Path, release: str = "*") -> Iterator[Path]:
    for folder in listed(root / FOLDER, release):
        yield from listed(folder, "*.json") if folder.is_dir() or _version(folder.name) else ()


def _write(path: Path, content: ModelFile) -> None:
    write_json(path, msgspec.to_builtins(content, order="sorted"))
