"""Compiled modules behind a baseline, kept on the machine that recorded it: suspects are measured beside them.

A compiled module is loaded by unpickling, so it is taken only from a folder that is this user's alone, and only if
every file has the SHA-256 that was written down when it was stored.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import msgspec

from ..common import sealed_folder
from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError
from ..common.files import write_whole

MANIFEST = "manifest.json"
FOLDER = "baseline-artifacts"


class KeptManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a kept compiled module is, and of which recorded session."""

    case: str
    recorded: str
    uuid: str
    libraries: dict[str, str]
    sha256: dict[str, str]
    """File name → digest."""


def keep(root: Path, artifact: Path, case_id: str, recorded: str, accelerator: Accelerator) -> None:
    """Move an artifact into the store, in place of an older one of the case.

    Raises TrtgateError when it can't be stored; an older one may be gone then, which is harmless.
    """
    place = _place(root, accelerator.key, case_id)
    try:
        manifest = KeptManifest(
            case=case_id,
            recorded=recorded,
            uuid=accelerator.uuid,
            libraries=accelerator.libraries,
            sha256=sealed_folder.digests(artifact),
        )
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(artifact / MANIFEST, msgspec.json.encode(manifest))
        sealed_folder.make_private(artifact)
        doomed = Path(tempfile.mkdtemp(prefix=".old-", dir=place.parent))
        if place.exists():
            place.rename(doomed / "old")
        artifact.rename(place)
        shutil.rmtree(doomed, ignore_errors=True)
    except OSError as error:
        raise TrtgateError(
            f"the compiled module of {case_id} could not be kept in {place}: {error.strerror}"
        ) from error


def find(root: Path, case_id: str, recorded: str, accelerator: Accelerator) -> tuple[Path | None, str]:
    """Return the kept module of a case, or None and the reason why none can be used.

    It must be of the session `recorded`, of this very card, and of the versions installed now.
    """
    place = _place(root, accelerator.key, case_id)
    if not place.is_dir():
        return None, "none is kept on this machine"
    try:
        if not sealed_folder.is_private(place):
            return None, f"{place} is not this user's alone"
        manifest = msgspec.json.decode((place / MANIFEST).read_bytes(), type=KeptManifest)
        if manifest.recorded != recorded:
            return None, "the kept one is of another session"
        if manifest.uuid != accelerator.uuid:
            return None, "the kept one is of another card"
        if manifest.libraries != accelerator.libraries:
            return None, "the kept one was built by other versions"
        changed = sealed_folder.changed(place, manifest.sha256)
        if changed is not None:
            return None, f"{changed} is not what was stored"
    except (OSError, msgspec.MsgspecError) as error:
        return None, f"{place} can't be read ({error})"
    return place, ""


def _place(root: Path, key: str, case_id: str) -> Path:
    return root / FOLDER / key / hashlib.sha256(case_id.encode()).hexdigest()[:24]
