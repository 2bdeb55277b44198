"""What a call changes beside its output, held against what eager's does: inputs, their containers, buffers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
import torch

from ..suite.cases import Case
from ..suite.model_inputs import Inputs
from ..suite.settings import OWN
from . import output_leaves
from .inference import Inference
from .leaf_comparison import MEASURED
from .output_check import Comparison
from .output_leaves import Container, Leaf

RUN_THE_MODULE = ("eager", "aot_eager", "inductor", "torch_compile")
"""Frontends whose compiled module keeps its state in the module that it was made of; others have copies."""

Walked = list[Leaf | Container]


def taken_apart(name: str, value: object, but: Collection[int] = ()) -> Walked:
    """Return what a call left under a name, as `output_leaves.copied`. Raises TrtgateError as `output_leaves`."""
    return output_leaves.copied(value, _root(name), but)


def _root(name: str) -> str:
    return f"after the call {name}"


def tensors(module: object, inputs: Inputs) -> tuple[Inputs, dict[str, torch.Tensor]]:
    """Return the inputs and the buffers of a module: a compiled module may write there where eager does not."""
    return inputs, dict(module.named_buffers()) if isinstance(module, torch.nn.Module) else {}


def reachable(case: Case, inference: Inference) -> dict[str, Any]:
    """Return what a call could change, by name: its inputs, their containers, and buffers of the factory's module."""
    leaves = inference.inputs.leaves
    found: dict[str, Any] = {f"input {at}": leaf for at, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)}
    run = inference.compiled.run
    if case.settings.frontend in RUN_THE_MODULE and isinstance(run, torch.nn.Module):
        found |= {name.removeprefix("_orig_mod."): buffer for name, buffer in run.named_buffers()}
    return found | inference.given.containers


def untouched(case: Case, inference: Inference, changes: Iterable[str]) -> dict[str, Walked]:
    """Return copies of what a call may not change: all that is not among the changes of eager's, containers first.

    A container may hold inputs that eager writes to: their values are compared as those of inputs.
    """
    there = reachable(case, inference)
    written = {id(there[name]) for name in changes if name in there}
    containers = inference.given.containers
    names = sorted(there.keys() - set(changes), key=lambda name: (name not in containers, name))
    return {name: taken_apart(name, there[name], written) for name in names}


def tolerances(case: Case, left: Comparison) -> dict[str, float]:
    """Return path → tolerance of what a call left, where a callable of the user's may round more than its reference.

    It is the widest that the case gives a leaf of its output.
    """
    widest = max(case.settings.tolerances.values(), default=0.0) if case.settings.frontend == OWN else 0.0
    return {leaf.path: widest for leaf in left.leaves if widest and leaf.kind in MEASURED}


def as_left(name: str, wanted: Walked, value: object, inputs: Inputs) -> Walked:
    """Return what a call left under a name, to be compared with what eager's left there.

    What eager took out of a mapping of the inputs may still be in it: nobody looks for it there.
    """
    root = _root(name)
    now = output_leaves.walk(value, root)
    if name not in inputs.containers:
        return now
    at_first = {node.path for node in output_leaves.walk(inputs.containers[name], root)}
    kept = {node.path: node.keys for node in wanted if isinstance(node, Container) and node.ordered}
    found: Walked = []
    left: tuple[str, ...] = ()
    for node in now:
        if left and node.path.startswith(left):
            continue
        if isinstance(node, Container) and node.path in kept:
            gone = [key for key in node.keys if key not in kept[node.path] and node.path + key in at_first]
            left += tuple(node.path + key for key in gone)
            node = msgspec.structs.replace(node, keys=tuple(key for key in node.keys if key not in gone))
        found.append(node)
    return found


def hint(name: str, inputs: Inputs, unwritten: Mapping[str, Walked]) -> str:
    """Return the end of a sentence on what a call left under a name and eager's did not."""
    if name in unwritten:
        return "; eager leaves it as it is"
    if name in inputs.containers:
        return "; eager puts that into a container of its inputs: let forward return it instead"
    return ""
