"""A profile as text: what its time adds up to, the layers and the modules that take most of it."""

from __future__ import annotations

from collections.abc import Sequence

from ..report.columns import aligned, first_few
from .attribution import MODULE
from .record import Layer, Profile

TOP = 10
MODULES_SHOWN = 3


def lines(profile: Profile, top: int = TOP) -> list[str]:
    """Return the summary of a profile for a terminal."""
    return [
        *_sums(profile),
        "",
        *aligned(_layer_rows(profile, top)),
        "",
        *aligned(_module_rows(profile, top)),
        *(f"not profiled: {part.name}: {shown(part.problem)}" for part in profile.parts if part.problem),
        *profile.notes,
    ]


def shown(text: str) -> str:
    """Return a text with everything that is not printable escaped: a layer's name is whatever its author wrote."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def module_times(profile: Profile) -> dict[str, float]:
    """Return module → µs of the layers that computed something of it, most first.

    A layer of several modules, fused, counts for each of them in equal shares; `?` is what could not be attributed.
    """
    found: dict[str, float] = {}
    for _, layer in profile.layers():
        modules = layer.modules or ["?"]
        for module in modules:
            found[module] = found.get(module, 0.0) + layer.median_us / len(modules)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _sums(profile: Profile) -> list[str]:
    engines = sum(part.engine_bytes > 0 for part in profile.parts)
    said = [
        f"{profile.case_id}: {engines} engines, {len(profile.parts) - engines} segments in PyTorch, "
        f"{sum(1 for _ in profile.layers())} layers; {profile.attributed:.1%} of their time attributed to modules"
    ]
    if profile.device_us is not None:
        said.append(
            f"device latency {profile.device_us:.1f} µs without a profiler ({profile.clock}); "
            f"layers add up to {profile.sum_us:.1f} µs"
        )
    found = profile.breakdown
    if found is not None:
        said.append(
            f"the difference: {found.profiler_us:+.1f} µs for timing each layer by itself; kernels take "
            f"{found.kernels_us:.1f} µs ({found.copies_us:.1f} µs of it copies), {found.between_us:+.1f} µs without any"
        )
    return said


def _layer_rows(profile: Profile, top: int) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("layer", "µs", "95 % interval", "share", "modules")]
    total = profile.sum_us
    ranked = sorted(profile.layers(), key=lambda found: -found[1].median_us)
    for _, layer in ranked[:top]:
        rows.append(
            (
                shown(_cut(layer.name)),
                f"{layer.median_us:.2f}",
                f"{layer.low_us:.2f} to {layer.high_us:.2f}",
                f"{layer.median_us / total:.1%}" if total else "",
                _modules(layer),
            )
        )
    return rows


def _module_rows(profile: Profile, top: int) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("module", "µs", "share")]
    total = profile.sum_us
    for module, spent in list(module_times(profile).items())[:top]:
        rows.append((shown(module) or "(the model itself)", f"{spent:.2f}", f"{spent / total:.1%}" if total else ""))
    return rows


def _modules(layer: Layer) -> str:
    if not layer.evidence:
        return "?"
    names = first_few([shown(module) or "(the model itself)" for module in layer.modules], MODULES_SHOWN)
    return f"somewhere in {names}" if layer.evidence == MODULE else names


def _cut(name: str, longest: int = 60) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
