"""Profiles as files: read, checked, written whole; and what of one is worth keeping in git as a baseline."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..common.errors import TrtgateError, explaining, one_line
from ..common.explanations import Explanation
from ..common.files import decoded, is_there, listed, locked, read_bytes, write_json
from ..records.profile_record import SCHEMA, TENSORRT, Layer, Operator, Part, Profile, Tensor
from ..suite.settings import VERBOSITIES
from . import trace_events, trex_files
from .layer_times import timed

FOLDER = "profiles"
PROFILE, TRACE = "profile.json", "trace.json"
BASELINE_BLOCKS = 6
"""Fewest blocks from which a 95 % interval of the median follows."""


@explaining(Explanation.BASELINE_BROKEN)
def read(path: Path) -> Profile:
    """Read a profile. Raises TrtgateError, naming the file, when it is broken, or of another schema."""
    try:
        found: Profile = decoded(read_bytes(path), Profile)
    except OSError as error:
        raise TrtgateError(f"profile {path} can't be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise TrtgateError(f"profile {path} is broken ({one_line(error)}): record it again") from error
    if found.schema != SCHEMA:
        raise TrtgateError(f"profile {path} has schema {found.schema}, this trtgate reads {SCHEMA}: record it again")
    return found


def write(path: Path, profile: Profile) -> None:
    """Write a profile. Raises TrtgateError when that fails; what was there stays."""
    write_json(path, msgspec.to_builtins(profile))


def write_folder(folder: Path, profile: Profile, information: dict[str, Any]) -> list[Path]:
    """Write everything there is of a case: the profile, a trace, and TREx's four files for every detailed engine.

    `information` is the inspector's JSON by part. Raises TrtgateError when something can't be written.
    """
    written = [folder / PROFILE, folder / TRACE]
    write(written[0], profile)
    trace_events.write(profile, written[1])
    for part in profile.parts:
        if part.kind == TENSORRT and part.verbosity == VERBOSITIES[-1] and part.name in information:
            written += trex_files.write(profile, part, information[part.name], folder, part.name)
    return written


def baseline_path(root: Path, key: str, case_id: str) -> Path:
    """Return where the profile of a case is kept for an accelerator key."""
    return root / key / FOLDER / f"{_file_name(case_id)}.json"


def read_baseline(root: Path, key: str, case_id: str) -> Profile | None:
    """Return the stored profile of a case, None where there is none. Raises TrtgateError for a broken one."""
    path = baseline_path(root, key, case_id)
    return read_to_compare(path) if is_there(path) else None


@explaining(Explanation.BASELINE_BROKEN)
def read_to_compare(path: Path) -> Profile:
    """Read a profile that has layers. Raises TrtgateError for one that has none, or is broken."""
    found = read(path)
    if not any(part.layers for part in found.parts):
        raise TrtgateError(f"profile {path} holds no layer: delete it and record it anew")
    return found


def store_baseline(root: Path, key: str, profile: Profile) -> Path:
    """Store what is worth keeping of a profile, in place of what was there. Raises TrtgateError."""
    path = baseline_path(root, key, profile.case_id)
    with locked(path):
        write(path, slim(profile))
    return path


def stored_baselines(root: Path, key: str = "*") -> dict[Path, str]:
    """Return the stored profiles, of one accelerator key or of all: file → case id."""
    folders = [place / FOLDER for place in listed(root, key) if place.is_dir()]
    return {path: path.name.removesuffix(".json") for folder in folders for path in listed(folder, "*.json")}


def slim(profile: Profile) -> Profile:
    """Return a profile without what a comparison does not need: shapes of operators, most blocks, names of tensors."""
    kept = msgspec.structs.replace(profile, parts=[_slim_part(part) for part in profile.parts])
    for part in kept.parts:
        timed(part, [layer.blocks_us for layer in part.layers])
    return kept


def _slim_part(part: Part) -> Part:
    operators = [Operator(node=op.node, operator=op.operator, module=op.module) for op in part.operators]
    return msgspec.structs.replace(part, operators=operators, layers=[_slim_layer(layer) for layer in part.layers])


def _slim_layer(layer: Layer) -> Layer:
    return msgspec.structs.replace(
        layer,
        blocks_us=_fewer(layer.blocks_us),
        inputs=[_slim_tensor(tensor) for tensor in layer.inputs],
        outputs=[_slim_tensor(tensor) for tensor in layer.outputs],
        metadata="",
    )


def _slim_tensor(tensor: Tensor) -> Tensor:
    return msgspec.structs.replace(tensor, name="")


def _fewer(blocks_us: Sequence[float]) -> list[float]:
    """Return medians of consecutive blocks, BASELINE_BLOCKS of them."""
    size = len(blocks_us) // BASELINE_BLOCKS
    if size < 2:
        return list(blocks_us)
    return [statistics.median(blocks_us[start : start + size]) for start in range(0, size * BASELINE_BLOCKS, size)]


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a profile."""
    return msgspec.json.schema(Profile)


def folder_of(root: Path, case_id: str) -> Path:
    """Return the folder of a case's files, its id made safe for a file name."""
    return root / _file_name(case_id)


def _file_name(case_id: str) -> str:
    return case_id.replace(os.sep, "_")


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))
