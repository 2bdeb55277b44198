"""A profile as text: what its time adds up to, the layers and the modules that take most of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..common.text_columns import Line, TextTable
from ..records.profile_record import UNKNOWN, Layer, Profile
from . import kernel_names
from .attribution import MODULE
from .layer_names import modules, shown

TOP = 10


class LayerTime(msgspec.Struct, frozen=True, kw_only=True):
    """A layer to be shown; `us` is the median of its time in microseconds."""

    name: str
    modules: list[str]
    us: float


def longest(profile: Profile, top: int = TOP) -> list[LayerTime]:
    """Return the layers that take longest."""
    return [LayerTime(name=layer.name, modules=layer.modules, us=layer.median_us) for layer in _ranked(profile)[:top]]


def lines(profile: Profile, top: int = TOP) -> list[Line]:
    """Return the summary of a profile for a terminal."""
    return [
        *_sums(profile),
        "",
        TextTable(_layer_rows(profile, top), left=(3, 4)),
        "",
        TextTable(_module_rows(profile, top), left=(2,)),
        *(f"not profiled: {part.name}: {shown(part.problem)}" for part in profile.parts if part.problem),
        *profile.notes,
    ]


def module_times(profile: Profile) -> dict[str, float]:
    """Return module → µs of the layers that computed something of it, most first.

    A layer of several modules, fused, counts for those of its convolutions, matrix products and attention, which take
    the time, and where there is none for all of them in equal shares; UNKNOWN is what could not be attributed.
    """
    found: dict[str, float] = {}
    for part in profile.parts:
        heavy = {op.node: op.module for op in part.operators if kernel_names.is_heavy(op.operator)}
        for layer in part.layers:
            owners = [heavy[node] for node in layer.sources if node in heavy] or layer.modules or [UNKNOWN]
            for module in owners:
                found[module] = found.get(module, 0.0) + layer.median_us / len(owners)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _sums(profile: Profile) -> list[str]:
    engines = sum(part.engine_bytes > 0 for part in profile.parts)
    said = [
        f"{profile.case_id}: engines: {engines}, segments in PyTorch: {len(profile.parts) - engines}, layers: "
        f"{sum(1 for _ in profile.layers())}; {profile.attributed:.1%} of their time attributed to modules"
    ]
    if profile.device_us is not None:
        said.append(
            f"device latency {profile.device_us:.1f} µs without a profiler ({profile.clock}); "
            f"layers add up to {profile.sum_us:.1f} µs"
        )
    found = profile.breakdown
    if found is not None:
        none_runs = f"{found.between_us:.1f} µs of the latency none runs"
        overlap = f"traced one by one they keep the GPU busy {-found.between_us:.1f} µs longer than in the latency"
        said.append(
            f"the difference: {found.profiler_us:+.1f} µs for timing each layer by itself; kernels take "
            f"{found.kernels_us:.1f} µs ({found.copies_us:.1f} µs of it copies), "
            f"{overlap if found.between_us < 0 else none_runs}"
        )
    return said


def _ranked(profile: Profile) -> list[Layer]:
    return sorted((layer for _, layer in profile.layers()), key=lambda layer: -layer.median_us)


def _layer_rows(profile: Profile, top: int) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("µs", "95 % interval", "share", "layer", "modules")]
    total = profile.sum_us
    for layer in _ranked(profile)[:top]:
        interval = f"{layer.low_us:.2f} to {layer.high_us:.2f}"
        share = f"{layer.median_us / total:.1%}" if total else ""
        rows.append((f"{layer.median_us:.2f}", interval, share, shown(layer.name), _modules(layer)))
    return rows


def _module_rows(profile: Profile, top: int) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("µs", "share", "module")]
    total = profile.sum_us
    for module, spent in list(module_times(profile).items())[:top]:
        rows.append((f"{spent:.2f}", f"{spent / total:.1%}" if total else "", shown(module) or "(model)"))
    return rows


def _modules(layer: Layer) -> str:
    if not layer.modules:
        return UNKNOWN
    return f"somewhere in {modules([layer])}" if layer.evidence == MODULE else modules([layer])
