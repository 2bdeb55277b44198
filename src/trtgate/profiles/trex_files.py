"""An engine's profile as the files that NVIDIA's TensorRT Engine Explorer (TREx) opens.

The form is what TREx reads since it knows TensorRT 10 (0.1.8). 0.1.5, which PyPI has, loads it too, but takes types as
Myelin spells them (`Half`) for an unknown format of 0 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..common.accelerator import GIB, Accelerator
from ..common.errors import TrtgateError
from ..common.files import write_whole
from ..records.profile_record import Layer, Part, Profile
from .engine_information import bindings_of, dtype_of, in_order
from .layer_names import SYNCHRONIZING

TYPES = {
    "float16": "Half", "float32": "Float", "bfloat16": "BFloat16", "float8_e4m3fn": "FP8", "int8": "Int8",
    "uint8": "UInt8", "int32": "Int32", "int64": "Int64", "bool": "Bool",
}  # fmt: skip
"""torch's name of a type → the one that TREx knows."""

Document = dict[str, Any]


def write(profile: Profile, part: Part, inspector: Mapping[str, Any], folder: Path, stem: str) -> list[Path]:
    """Write `<stem>.graph.json`, `…profile.json`, `…profile.metadata.json`, `…build.metadata.json`; return their paths.

    `part` is an engine of `profile`, `inspector` the parsed JSON of TensorRT's engine inspector at detailed verbosity.
    All times are milliseconds. TREx's average is our median, its total time that median times the calls; percentages
    are of the time of all the part's layers. A layer that was not timed, a constant say, has a time of 0, as TREx
    matches the two files line by line; one that the inspector does not describe is left out of both.

    Raises TrtgateError when the inspector names no layers, or only names them, or no inputs and outputs, and when a
    file cannot be written.
    """
    layers = _layers(part, inspector)
    bindings = bindings_of(inspector)
    if not bindings:
        raise TrtgateError(f"{part.name}: TensorRT's inspector names no inputs and outputs, which TREx needs")
    timed = in_order(part.layers, [layer["Name"] for layer in layers])
    for layer, name in zip(layers, _unique(layer["Name"] for layer in layers), strict=True):
        layer["Name"] = name
    documents = {
        "graph": {"Layers": layers, "Bindings": bindings},
        "profile": [
            {"count": profile.calls},
            *(_times(layer["Name"], times, profile.calls) for layer, times in zip(layers, timed, strict=True)),
        ],
        "profile.metadata": _profile_metadata(profile, part),
        "build.metadata": _build_metadata(profile, part),
    }
    paths = {folder / f"{stem}.{kind}.json": document for kind, document in documents.items()}
    for path, document in paths.items():
        _write(path, document)
    return list(paths)


def _layers(part: Part, inspector: Mapping[str, Any]) -> list[Document]:
    described = inspector.get("Layers") or []
    if not described or not all(isinstance(entry, dict) for entry in described):
        raise TrtgateError(f"{part.name}: TREx needs an engine that was built with ProfilingVerbosity detailed")
    # Python reads NaN and Infinity where it finds them, and they are no JSON.
    copies: list[Document] = json.loads(json.dumps(described), parse_constant=str)
    # Signals and waits have no inputs and outputs: 0.1.5's tables fail on them, later versions drop every other one.
    layers = [layer for layer in copies if layer.get("LayerType") not in SYNCHRONIZING]
    if not layers:
        raise TrtgateError(f"{part.name}: the engine has no layers beside signals and waits; TREx needs one")
    for layer in layers:
        layer.setdefault("ParameterType", layer.get("LayerType", ""))
        for tensor in [*layer.get("Inputs", []), *layer.get("Outputs", [])]:
            tensor.setdefault("Format/Datatype", _type(tensor))
    return layers


def _type(tensor: Mapping[str, Any]) -> str:
    """Return the type of a tensor that TensorRT gives a `Format` and a `Datatype` apart, as newer versions do."""
    said = str(tensor.get("Datatype") or tensor.get("Format") or "")
    return TYPES.get(dtype_of(said), said)


def _unique(names: Iterable[str]) -> list[str]:
    """Return names as they are, repeated ones with a number: TREx's own numbering may meet a name that exists."""
    unique: dict[str, None] = {}
    for name in names:
        candidate, number = name, 1
        while candidate in unique:
            number += 1
            candidate = f"{name}_{number}"
        unique[candidate] = None
    return list(unique)


def _times(name: str, layer: Layer, calls: int) -> Document:
    median_ms = round(layer.median_us / 1e3, 6)
    return {
        "name": name,
        "timeMs": round(layer.median_us * calls / 1e3, 6),
        "averageMs": median_ms,
        "medianMs": median_ms,
        "percentage": round(100 * layer.share, 4),
    }


def _profile_metadata(profile: Profile, part: Part) -> Document:
    return {
        "performance_summary": _known(
            {
                "Sum of layers (ms)": round(part.sum_us / 1e3, 6),
                "Device latency of the whole model (ms)": round((profile.device_us or 0) / 1e3, 6),
            }
        ),
        "inference_options": _known(
            {
                "Calls": profile.calls,
                "Runtime": profile.runtime,
                "Clock": profile.clock,
                "Recorded": profile.recorded,
            }
        ),
        "device_information": _device(profile.accelerator),
    }


def _build_metadata(profile: Profile, part: Part) -> Document:
    return {
        "model_options": {"Format": "Torch-TensorRT", "Model": profile.case_id, "Part": part.name},
        "build_options": _known(
            {
                "Profiling verbosity": part.verbosity,
                "Engine size (bytes)": part.engine_bytes,
                **profile.accelerator.libraries,
            }
        ),
        "device_information": _device(profile.accelerator),
    }


def _device(accelerator: Accelerator) -> Document:
    """Return a device in the terms of trtexec: clocks are in GHz."""
    return _known(
        {
            "Selected Device": accelerator.name,
            "Device Global Memory": f"{accelerator.memory_bytes * 1024 // GIB} MiB" if accelerator.memory_bytes else "",
            "Compute Clock Rate": accelerator.max_sm_clock_mhz / 1e3,
            "Power limit (W)": accelerator.power_limit_w,
            "MIG profile": accelerator.mig_profile,
            "Driver": accelerator.driver,
            "CUDA": accelerator.cuda,
        }
    )


def _known(values: Document) -> Document:
    return {key: value for key, value in values.items() if value}


def _write(path: Path, document: Any) -> None:
    """Write JSON in ASCII: TREx reads its files in the encoding of its locale, whatever that is."""
    try:
        write_whole(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise TrtgateError(f"{path} could not be written ({error.strerror})") from error
