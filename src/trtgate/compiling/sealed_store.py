"""One stored compiled module, in the artifact cache or kept behind a baseline: a folder, its files, and one manifest.

It is loaded by unpickling, so it is the user's alone, and each file must have the SHA-256 that its manifest names.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..common import sealed_folder
from ..common.files import decoded, read_bytes, write_whole
from ..common.locks import ClaimedFolder
from ..records.coverage_record import Coverage
from ..records.measurement import Build

MANIFEST = "entry.json"
SCHEMA = 1


class SealedManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stored module is: what it was built from, and, in the cache, what building it gave."""

    schema: int = SCHEMA
    case: str
    """The case that built it; in the cache, others with the same key use it too."""
    made_from: dict[str, str]
    """What decides whether it may be used: all that it was made from, or its session, card and versions."""
    created: str
    """UTC, ISO 8601."""
    build: Build | None = None
    coverage: Coverage | None = None
    sha256: dict[str, str]
    """File name → digest."""


def seal(folder: Path, manifest: SealedManifest) -> None:
    """Write the manifest of a folder's files, and take the folder away from all others. Raises OSError."""
    write_whole(folder / MANIFEST, msgspec.json.encode(manifest))
    sealed_folder.make_private(folder)


def read(place: Path) -> SealedManifest:
    """Return a manifest. Raises OSError, msgspec.MsgspecError or ValueError for one that is no good."""
    manifest: SealedManifest = decoded(read_bytes(place / MANIFEST), SealedManifest)
    if manifest.schema != SCHEMA:
        raise ValueError(f"schema {manifest.schema}")
    if any(Path(name).name != name for name in manifest.sha256):
        raise ValueError("a name with a folder")
    if not manifest.sha256:
        raise ValueError("it names no file")
    extra = {path.name for path in place.iterdir()} - {MANIFEST, *manifest.sha256}
    if extra:  # whoever loads a module may look for files beside those that it was stored with
        raise ValueError(f"{sorted(extra)[0]!r} is not in its manifest")
    return manifest


def put_in_place(place: Path, made: Path, scratch: Path) -> None:
    """Let a sealed folder take the place of an older one, by renames. Raises OSError."""
    if place.exists():
        discard(place, scratch)
    made.rename(place)


def discard(place: Path, scratch: Path) -> None:
    """Take a stored module out by one rename into a new folder of `scratch`, and delete it then. Raises OSError."""
    doomed = ClaimedFolder(scratch, "new")
    try:
        place.rename(doomed.path / "old")
    finally:
        doomed.remove()
