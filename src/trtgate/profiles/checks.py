"""What must be true of a profile: everything there, in order, finite, adding up."""

from __future__ import annotations

import math

from .record import TENSORRT, Part, Profile

LEAST_SUM, MOST_SUM = 0.5, 5.0
"""The sum of the layers as a multiple of device latency. Measuring each layer by itself adds some µs to each and undoes
what runs side by side, so short layers add up to more (resnet18 at batch 1: 1.76 times); far outside, something is
missing or counted twice."""
SHARES = 1e-3
"""How far shares, which are rounded, may add up to something else than 1."""


def problems(profile: Profile) -> list[str]:
    """Return what is wrong with a profile, each as one line; empty when nothing is."""
    found = []
    if not profile.parts:
        found.append("it has no parts")
    for part in profile.parts:
        found += [f"{part.name or 'the graph'}: {problem}" for problem in _of_part(part)]
    if profile.device_us is not None and not found:
        ratio = profile.sum_us / profile.device_us
        if not LEAST_SUM <= ratio <= MOST_SUM:
            found.append(
                f"its layers add up to {profile.sum_us:.1f} µs, {ratio:.2f} times the device latency of "
                f"{profile.device_us:.1f} µs; {LEAST_SUM:g} to {MOST_SUM:g} times is believable"
            )
    return found


def _of_part(part: Part) -> list[str]:
    if part.problem:
        return [part.problem]
    if not part.layers:
        return ["no layer was seen"] if part.kind == TENSORRT or part.operators else []
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
    makers = {
        tensor.name: number for number, layer in enumerate(part.layers) for tensor in layer.outputs if tensor.name
    }
    for number, layer in enumerate(part.layers):
        late = [tensor.name for tensor in layer.inputs if makers.get(tensor.name, -1) > number]
        if late:
            return [f"layer {layer.name!r} stands before the one that makes its input {late[0]!r}"]
    return []
