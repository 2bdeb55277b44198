"""Inputs in a file: their tensors and constants, their structure as text, and what is imported before it is read."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils import _pytree as pytree

from ..common.errors import TrtgateError, one_line
from ..suite import pytree_classes
from ..suite.model_inputs import Inputs

FILE = "inputs.pt"


def save(inputs: Inputs, folder: Path) -> None:
    """Write inputs. Raises TrtgateError for a structure that no other process could read."""
    leaves, structure = pytree.tree_flatten(inputs)
    try:
        text = pytree.treespec_dumps(structure)
        same = pytree.treespec_loads(text) == structure
    except Exception as error:
        raise TrtgateError(f"its inputs can't be stored: {one_line(error)}") from error
    if not same:
        raise TrtgateError("its inputs can't be stored: a key or another part of their structure is no plain data")
    document = {"leaves": leaves, "structure": text, "classes": pytree_classes.described(structure)}
    torch.save(document, folder / FILE)


def load(folder: Path, device: str) -> Inputs:
    """Read what `save` wrote, tensors on `device`. Raises TrtgateError for a class that is not there any more."""
    document = torch.load(folder / FILE, weights_only=True, map_location=device)
    if not isinstance(document, dict):
        raise TrtgateError(f"{folder / FILE} was written by another version of trtgate: let it be built again")
    pytree_classes.make_known(document["classes"])
    found: Inputs = pytree.tree_unflatten(document["leaves"], pytree.treespec_loads(document["structure"]))
    return found
