"""Names of layers: without what differs from build to build, and as one may show them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..common.text_columns import first_few
from ..records.profile_record import PYTORCH, TENSORRT, Layer

SHOWN = 3
"""Names of layers or modules that stand in one phrase."""
LONGEST = 80
"""Characters of one name."""

SYNCHRONIZING = frozenset(("signal", "wait"))
"""Types of layers by which streams wait for one another."""
_EVENT = re.compile(r"__mye\d+")
_VARYING = re.compile(r"_myl\d+_\d+|(?<=__mye)\d+|0x[0-9a-f]{8,}|_\d+(?=\])")
"""Graph and index of a Myelin layer, the number of an event, a hash, and the number of a node such as `relu_3]`."""
_NUMBER = re.compile(r"_\d+$")


def normalised(name: str, kind: str = TENSORRT) -> str:
    """Return a layer's name without what differs from build to build: indexes, event numbers, hashes, node numbers."""
    name = _VARYING.sub("", name)
    return _NUMBER.sub("", name) if kind == PYTORCH else name


def synchronizes(layer: Layer) -> bool:
    """Whether a layer only signals or awaits an event between streams; TensorRT reports no time for it."""
    if layer.type:
        return layer.type in SYNCHRONIZING
    return not layer.inputs and not layer.outputs and _EVENT.match(layer.name) is not None


def shown(name: str) -> str:
    """Return a name of at most LONGEST characters in which nothing is left that a terminal would obey."""
    name = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    half = (LONGEST - 1) // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}"


def phrase(layers: Sequence[Layer]) -> str:
    """Return the names of a few layers, or how many there are."""
    if len(layers) > SHOWN:
        return f"{len(layers)} layers"
    return " + ".join(shown(layer.name) for layer in layers)


def modules(layers: Sequence[Layer]) -> str:
    """Return the modules of layers, cut short, `(model)` for the model itself; empty where none is known."""
    names = dict.fromkeys(module for layer in layers for module in layer.modules)
    return first_few([shown(name) or "(model)" for name in names], SHOWN)
