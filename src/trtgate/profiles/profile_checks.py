"""What must be true of a profile: everything there, in order, finite, adding up."""

from __future__ import annotations

import math

from ..records.profile_record import TENSORRT, Part, Profile

LEAST_SUM, MOST_SUM = 0.5, 2.0
A_LAYER_US = 10.0
"""The sum of the layers is at least half the device latency, and at most twice that and 10 µs for every layer. Timing
each layer by itself adds 2 to 4 µs to each and undoes what runs side by side (resnet18 at batch 1, 24 layers: 182 µs of
latency, 291 µs of layers); far outside, something is missing or counted twice, or the host could not keep up."""
SHARES = 1e-3
"""How far shares, which are rounded, may add up to something else than 1."""


def problems(profile: Profile) -> list[str]:
    """Return what is wrong with a profile, each as one line; empty when nothing is."""
    found = []
    if not profile.parts:
        found.append("it has no parts")
    for part in profile.parts:
        found += [f"{part.name or 'the graph'}: {problem}" for problem in _of_part(part)]
    if not found and not any(part.layers for part in profile.parts):
        found.append("no layer was seen in any part")
    if profile.device_us is not None and not found:
        least = LEAST_SUM * profile.device_us
        most = MOST_SUM * profile.device_us + A_LAYER_US * sum(layer.median_us > 0 for _, layer in profile.layers())
        if not least <= profile.sum_us <= most:
            found.append(
                f"its layers add up to {profile.sum_us:.1f} µs at a device latency of {profile.device_us:.1f} µs; "
                f"{least:.0f} to {most:.0f} µs are believable"
            )
    return found


def _of_part(part: Part) -> list[str]:
    if part.problem:
        return [part.problem]
    if not part.layers:
        return ["no layer was seen"] if part.kind == TENSORRT else []  # views take no time
    times = [value for layer in part.layers for value in (layer.median_us, layer.low_us, layer.high_us)]
    found = []
    if not all(math.isfinite(value) and value >= 0 for value in times):
        found.append("a layer's time is not a finite number of microseconds")
    elif part.sum_us <= 0:
        found.append("no layer took any time")
    elif abs(sum(layer.share for layer in part.layers) - 1) > SHARES:
        found.append(f"the shares of its layers add up to {sum(layer.share for layer in part.layers):.6f}, not 1")
    if any(not layer.name for layer in part.layers):
        found.append("a layer has no name: build it with profiling_verbosity detailed or layer_names_only")
    found += _order(part)
    return found


def _order(part: Part) -> list[str]:
    """Layers stand in the order of execution: none takes a tensor that only a later one makes."""
    makers: dict[str, int] = {}
    for number, layer in enumerate(part.layers):
        for tensor in layer.outputs:
            if tensor.name:
                makers.setdefault(tensor.name, number)  # a tensor may be written piece by piece
    for number, layer in enumerate(part.layers):
        late = [tensor.name for tensor in layer.inputs if makers.get(tensor.name, -1) > number]
        if late:
            return [f"layer {layer.name!r} stands before the one that makes its input {late[0]!r}"]
    return []
