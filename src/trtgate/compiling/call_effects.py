"""What a call changes beside its output, held against what eager's does: inputs, their containers, buffers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import torch

from ..suite.cases import Case
from ..suite.model_inputs import Inputs
from . import output_leaves
from .building import Inference
from .output_leaves import Container, Leaf

RUN_THE_MODULE = ("eager", "aot_eager", "inductor", "torch_compile")
"""Frontends whose compiled module keeps its state in the module that it was made of; others have copies."""

Walked = list[Leaf | Container]


def taken_apart(name: str, value: object) -> Walked:
    """Return what a call left under a name, with tensors of their own. Raises TrtgateError as `output_leaves`."""
    return output_leaves.copied(value, f"after the call {name}")


def tensors(case: Case, inference: Inference) -> dict[str, torch.Tensor]:
    """Return what a call could write to, by name: its inputs, and buffers where they are the factory's module's."""
    leaves = inference.inputs.leaves
    found = {f"input {number}": leaf for number, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)}
    run = inference.compiled.run
    if case.settings.frontend in RUN_THE_MODULE and isinstance(run, torch.nn.Module):
        found |= {name.removeprefix("_orig_mod."): buffer for name, buffer in run.named_buffers()}
    return found


def untouched(case: Case, inference: Inference, changes: Iterable[str]) -> dict[str, Walked]:
    """Return copies of what a call may not write to: all that is not among the changes of eager's."""
    there = tensors(case, inference)
    return {name: taken_apart(name, there[name]) for name in there.keys() - set(changes)}


def as_left(name: str, wanted: Walked, value: object) -> Walked:
    """Return what a call left under a name, to be compared with what eager's left there.

    What eager took out of a mapping may still be in it: nobody looks for it there.
    """
    now, mappings = output_leaves.walk(value, f"after the call {name}"), {
        node.path: node.keys for node in wanted if isinstance(node, Container) and node.ordered
    }  # fmt: skip
    found: Walked = []
    more: tuple[str, ...] = ()
    for node in now:
        if more and node.path.startswith(more):
            continue
        if isinstance(node, Container) and node.path in mappings:
            kept = tuple(key for key in node.keys if key in mappings[node.path])
            more += tuple(node.path + key for key in node.keys if key not in kept)
            node = msgspec.structs.replace(node, keys=kept)
        found.append(node)
    return found


def hint(name: str, inputs: Inputs, unwritten: Mapping[str, Walked]) -> str:
    """Return the end of a sentence on what a call left under a name and eager's did not."""
    if name in unwritten:
        return "; eager leaves it as it is"
    if name in inputs.containers:
        return "; eager puts that into a container of its inputs: let forward return it instead"
    return ""
