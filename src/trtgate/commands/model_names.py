"""Which model a name on the command line means: one of the suite of this folder, of the zoo, or a factory."""

from __future__ import annotations

import difflib

from ..common.errors import TrtgateError
from ..launches.suite_here import factories_here, suite_here
from ..suite import zoo
from ..suite.cases import Model


def find(name: str) -> Model:
    """Return the model of a name, such as resnet18 or `package.module:factory`; the suite's wins over the zoo's.

    Raises TrtgateError for an unknown one, naming the nearest, and for one whose package is not installed.
    """
    if ":" in name:
        found, *others = factories_here(name).load().models
        if others:
            names = ", ".join(f"{name}.{one.name.rpartition('.')[2]}" for one in (found, *others))
            raise TrtgateError(f"model {name!r} has parts, which are models of their own: {names}")
        return found
    mine = suite_models()
    of_zoo = {model.name: model for model in zoo.models()}
    known = mine.get(name) or of_zoo.get(name)
    if known is None:
        close = difflib.get_close_matches(name, [*mine, *of_zoo], n=1)
        hint = f"did you mean {close[0]!r}?" if close else "name one of the suite or the zoo, or package.module:factory"
        parts = [model.name for model in mine.values() if model.whole == name]
        if parts:
            hint = f"it has parts, which are models of their own: {', '.join(parts)}"
        raise TrtgateError(f"unknown model {name!r}; {hint}")
    if name not in mine and (reason := zoo.unavailable(name)):
        raise TrtgateError(f"model {name!r}: {reason}")
    return known


def suite_models() -> dict[str, Model]:
    """Return the models of the suite of this folder, by name."""
    source = suite_here()
    return {} if source is None else {model.name: model for model in source.load().models}
