"""A profile as Trace Event JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..common.files import write_json
from ..records.profile_record import Layer, Part, Profile, Tensor

NOTE = (
    "Not a timeline of one call: layers stand end to end in the order of execution, each as long as its median. "
    "What ran at the same time on two streams, and what passed between layers, does not show."
)

Event = dict[str, Any]


def events(profile: Profile) -> dict[str, Any]:
    """Return a profile as a document of the Trace Event Format; `ts` and `dur` are in microseconds.

    Every part is a process and every stream of it a thread, numbered from 1: viewers keep 0 for an idle CPU. Every
    layer is one complete event, one without time, such as a signal, an event of length 0. This is no timeline of one
    call: the layers are laid end to end, in the order of execution, each as long as its median.
    """
    found: list[Event] = []
    start_ns = 0
    for pid, part in enumerate(profile.parts, 1):
        streams = _streams(part)
        found += _names(part, pid, streams)
        for layer in part.layers:
            length_ns = round(layer.median_us * 1e3)
            where = {"ts": _us(start_ns), "dur": _us(length_ns), "pid": pid, "tid": streams[layer.stream]}
            found.append({"name": layer.name, "cat": part.kind, "ph": "X", **where, "args": _args(part, layer)})
            start_ns += length_ns
    return {"traceEvents": found, "displayTimeUnit": "ns", "otherData": _origin(profile)}


def write(profile: Profile, path: Path) -> None:
    """Write a profile as Trace Event JSON. Raises TrtgateError when that fails; what was there stays."""
    write_json(path, events(profile))


def _streams(part: Part) -> dict[int | None, int]:
    named = sorted({layer.stream for layer in part.layers}, key=lambda stream: -1 if stream is None else stream)
    return {stream: tid for tid, stream in enumerate(named, 1)}


def _names(part: Part, pid: int, streams: Mapping[int | None, int]) -> list[Event]:
    """Return the metadata events that name a part's process and threads."""
    found = [{"name": "process_name", "ph": "M", "pid": pid, "tid": 1, "args": {"name": part.name}}]
    for stream, tid in streams.items():
        name = "no stream stated" if stream is None else f"stream {stream}"
        found.append({"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}})
    return found


def _us(time_ns: int) -> float:
    """Return nanoseconds as microseconds, at most one bit above: Perfetto multiplies by 1000 and cuts off the rest.

    A start that comes out a nanosecond early overlaps the layer before it, and Perfetto drops or nests such events.
    """
    time_us = time_ns / 1e3
    return time_us if int(time_us * 1e3) == time_ns else math.nextafter(time_us, math.inf)


def _args(part: Part, layer: Layer) -> dict[str, Any]:
    return {
        "type": layer.type,
        "tactic": layer.tactic,
        "modules": layer.modules,
        "operators": [operator.operator for operator in part.operators if operator.node in layer.sources],
        "shapes": {"inputs": _shapes(layer.inputs), "outputs": _shapes(layer.outputs)},
        "share": round(layer.share, 6),
    }


def _shapes(tensors: Iterable[Tensor]) -> list[str]:
    """Return shapes as one text each, as `1x3x224x224 float16`: viewers show every number of a list on its own line."""
    return [f"{'x'.join(map(str, tensor.shape))} {tensor.dtype}".strip() for tensor in tensors]


def _origin(profile: Profile) -> dict[str, Any]:
    return {
        "note": NOTE,
        "case": profile.case_id,
        "device": profile.accelerator.name,
        "runtime": profile.runtime,
        "calls": profile.calls,
        "recorded": profile.recorded,
    }
