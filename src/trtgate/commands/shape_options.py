"""`--shape seq=128` and `--shape seq=16:128:512`: sizes of a model's dimensions on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..common.errors import TrtgateError
from ..suite import compiled_elsewhere
from ..suite.cases import Case, Model
from ..suite.dimensions import BATCH, checked_ranges, nearest
from ..suite.settings import OWN, Settings

ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=SIZE", help="Size of a dimension, such as seq=128, or dynamic: seq=16:128:512; may be repeated."
    ),
]


def case_of(model: Model, shape: Sequence[str], batch: int | None = None, **fields: Any) -> Case:
    """Return a case of a model at the shape of the texts; `batch`, or 1, is that of a model that takes one.

    Raises TrtgateError for a text that is no size, for a dimension that the model has not, for one that is missing, and
    for a model that trtgate does not compile.
    """
    if compiled_elsewhere.is_all_of(model):
        raise TrtgateError(
            f"model {model.name!r} is what its factory compiled (frontend {OWN!r}), and this asks what trtgate would "
            "compile: name a model whose factory returns the module"
        )
    sizes: dict[str, int] = {BATCH: batch or 1} if model.takes_batch else {}
    dynamic: dict[str, tuple[int, ...]] = {}
    for text in shape:
        name, _, value = text.partition("=")
        numbers = value.split(":")
        if len(numbers) not in (1, 3) or not all(one.isdecimal() for one in numbers):
            raise TrtgateError(f"--shape {text!r}: write seq=128, or seq=16:128:512, which is minimum:optimum:maximum")
        if name not in model.dimensions.names:
            raise TrtgateError(
                f"--shape {text!r}: model {model.name!r} takes no {name!r}: "
                f"{nearest(name, model.dimensions.names, 'dimension')}"
            )
        found = tuple(map(int, numbers))
        sizes[name] = found[len(found) // 2]
        if len(found) > 1:
            dynamic[name] = found
    for name in sorted(model.dimensions.required - set(sizes)):
        raise TrtgateError(f"model {model.name!r} takes {name}: add --shape {name}=128")
    settings = Settings(shape=sizes, dynamic=checked_ranges(dynamic), **fields)
    return Case(model.having([settings]), settings)
