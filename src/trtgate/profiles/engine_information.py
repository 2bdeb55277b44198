"""The layers of an engine from the JSON of TensorRT's engine inspector, at any verbosity, in both of its spellings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..common.errors import TrtgateError
from ..records.profile_record import Layer, Tensor

DTYPES = {
    "half": "float16", "fp16": "float16", "float": "float32", "fp32": "float32", "bfloat16": "bfloat16",
    "bf16": "bfloat16", "int8": "int8", "int32": "int32", "int64": "int64", "bool": "bool", "uint8": "uint8",
    "fp8": "float8_e4m3fn", "int4": "int4", "fp4": "float4_e2m1fn",
}  # fmt: skip
"""What TensorRT calls a type, in the spelling of Myelin's layers and of all others → torch's name for it."""
BINDINGS = ("Bindings", "I/O Tensors")


def layers_of(document: Any) -> list[Layer]:
    """Return an engine's layers in the order of the document; with names only, layers that have nothing but a name.

    Raises TrtgateError for what is no engine information.
    """
    described = document.get("Layers") if isinstance(document, dict) else None
    if not isinstance(described, list):
        raise TrtgateError("TensorRT's inspector gave no layers: was the engine built with ProfilingVerbosity none?")
    return [_layer(entry) for entry in described]


def bindings_of(document: Mapping[str, Any]) -> list[str]:
    """Return the names of an engine's inputs and outputs."""
    found: list[Any] = next((document[key] for key in BINDINGS if key in document), [])
    return [entry["Name"] if isinstance(entry, dict) else str(entry) for entry in found]


def _layer(entry: Any) -> Layer:
    if isinstance(entry, str):
        return Layer(name=entry, type="")
    if not isinstance(entry, dict) or "Name" not in entry:
        raise TrtgateError(f"TensorRT's inspector gave a layer without a name: {str(entry)[:80]!r}")
    return Layer(
        name=str(entry["Name"]),
        type=str(entry.get("LayerType", "")),
        tactic=str(entry.get("TacticName") or entry.get("TacticValue") or ""),
        inputs=_tensors(entry.get("Inputs")),
        outputs=_tensors(entry.get("Outputs")),
        stream=entry.get("StreamId"),
        metadata=str(entry.get("Metadata") or ""),
    )


def _tensors(described: Any) -> list[Tensor]:
    found = []
    for entry in described if isinstance(described, list) else []:
        if not isinstance(entry, dict):
            continue
        format_ = str(entry.get("Format/Datatype") or entry.get("Format") or "")
        found.append(
            Tensor(
                name=str(entry.get("Name", "")),
                shape=[int(size) for size in entry.get("Dimensions") or []],
                dtype=dtype_of(str(entry.get("Datatype") or format_)),
                format=format_,
            )
        )
    return found


def dtype_of(format_: str) -> str:
    """Return torch's name of the type in a format such as `Half` or `Row major linear FP16 format`; empty if none."""
    words = re.findall(r"[a-z]+[0-9]*", format_.lower())
    return next((DTYPES[word] for word in words if word in DTYPES), "")


def in_order(layers: Sequence[Layer], names: Iterable[str]) -> list[Layer]:
    """Return a layer for every reported name, in that order: the described one where there is one, else its name alone.

    A profiler reports what ran, in the order in which it ran; the inspector's order is not promised to be that.
    """
    described: dict[str, list[Layer]] = {}
    for layer in layers:
        described.setdefault(layer.name, []).append(layer)
    return [described[name].pop(0) if described.get(name) else Layer(name=name, type="") for name in names]
