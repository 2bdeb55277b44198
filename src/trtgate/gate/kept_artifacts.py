"""Compiled modules behind a baseline, kept on the machine that recorded it: suspects are measured beside them.

Each is sealed as an entry of the artifact cache is (`compiling/sealed_store.py`); what decides is its session, its card
and the versions that built it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from ..common import sealed_folder
from ..common.accelerator import Accelerator
from ..common.errors import TrtgateError
from ..common.files import is_there
from ..compiling import sealed_store
from ..compiling.sealed_store import SealedManifest

FOLDER = "baseline-artifacts"
OTHER = {"recorded": "is of another session", "uuid": "is of another card"}
"""What decides whether a kept module may be used, but for versions → what is said where it differs."""


def keep(root: Path, artifact: Path, case_id: str, recorded: str, accelerator: Accelerator) -> None:
    """Move an artifact into the store, in place of an older one of the case.

    Raises TrtgateError when it can't be stored; an older one may be gone then, which is harmless.
    """
    place = _place(root, accelerator.key, case_id)
    try:
        manifest = SealedManifest(
            case=case_id,
            made_from=_made_from(recorded, accelerator),
            created=recorded,
            sha256=sealed_folder.digests(artifact),
        )
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        sealed_store.seal(artifact, manifest)
        sealed_store.put_in_place(place, artifact, place.parent)
    except OSError as error:
        raise TrtgateError(
            f"the compiled module of {case_id} could not be kept in {place}: {error.strerror}"
        ) from error


def find(root: Path, case_id: str, recorded: str, accelerator: Accelerator) -> tuple[Path | None, str]:
    """Return the kept module of a case, or None and the reason why none can be used.

    It must be of the session `recorded`, of this very card, and of the versions installed now.
    """
    place = _place(root, accelerator.key, case_id)
    try:
        if not is_there(place):
            return None, "none is kept on this machine"
        if not sealed_folder.is_private(place):
            return None, f"{place} is not this user's alone"
        manifest = sealed_store.read(place)
        differing = dict(_made_from(recorded, accelerator).items() ^ manifest.made_from.items())
        if differing:
            what = next((what for name, what in OTHER.items() if name in differing), "was built by other versions")
            return None, f"the kept one {what}"
        changed = sealed_folder.changed(place, manifest.sha256)
        if changed is not None:
            return None, f"{changed} is not what was stored"
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        return None, f"{place} can't be read ({error})"
    return place, ""


def _made_from(recorded: str, accelerator: Accelerator) -> dict[str, str]:
    versions = {f"version of {name}": version for name, version in accelerator.libraries.items()}
    return {"recorded": recorded, "uuid": accelerator.uuid, **versions}


def _place(root: Path, key: str, case_id: str) -> Path:
    return root / FOLDER / key / hashlib.sha256(case_id.encode()).hexdigest()[:24]
