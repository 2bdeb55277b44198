"""Models and cases: what is compiled, under which settings, and which id that has; `declaring.py` makes them.

Nothing here imports torch, so that collecting stays fast: factories import what they need when they are called.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ..common.errors import TrtgateError
from ..common.limits import checked as checked_limits
from . import declared_values, dimensions, model_parts
from .dimensions import BATCH
from .settings import OWN, Settings


class Model:
    """A named factory of a module in eval mode and its example inputs, and the settings under which it is measured.

    A call of a model calls its factory. `trtgate.model` makes a model of a decorated function, and describes the
    parameters that both have.

    Parameters
    ----------
    name
        Letters, digits, `_` and `.`.
    factory
        Returns a module in eval mode and its example inputs; its parameters are the model's dimensions.
    settings
        The result of `trtgate.grid`.
    inputs, dynamic_shapes, save, load, parts, weights_said
        As `trtgate.model` takes them; with `parts` the factory and `inputs` return mappings.
    limits
        Metric to its largest tolerated change for the worse; limits of the settings override it.
    samples
        `samples(count, seed)` yields `count` inputs, others for another seed. It gets the sizes of dimensions other
        than the batch if it has parameters of their names.
    weights
        A safetensors file with the module's state dict; by default the module keeps the weights of its factory.

    Raises
    ------
    TrtgateError
        If a name, a limit or a function is invalid, or the factory does not take a dimension.

    """

    def __init__(
        self,
        name: str,
        factory: Callable[..., Any],
        settings: Iterable[Settings],
        *,
        inputs: Callable[..., Any] | None = None,
        dynamic_shapes: Any = None,
        limits: Mapping[str, float | str] | None = None,
        samples: Callable[..., Any] | None = None,
        weights: str | None = None,
        weights_said: str = "random weights",
        save: Callable[..., Any] | None = None,
        load: Callable[..., Any] | None = None,
        parts: Iterable[str] = (),
    ) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_.]+", name):
            raise TrtgateError(f"model name {name!r}: use letters, digits, '_' and '.' only, '-' separates ids")
        self.name = name
        self.factory = factory
        self.inputs = inputs
        self.dynamic_shapes = dynamic_shapes
        self.dimensions = _dimensions_of(factory, inputs, f"model {name!r}")
        self.takes_batch = BATCH in self.dimensions.names
        self.samples = samples
        self.weights = weights
        self.weights_said = weights_said
        self.save, self.load = save, load
        self.parts = model_parts.checked(parts, f"model {name!r}")
        self.whole = name
        """The name of the model that this is a part of; its own where it is none."""
        self.settings = tuple(settings)
        self.limits = checked_limits(limits or {}, f"model {name!r}, limits")
        for what, function in (("samples", samples), ("save", save), ("load", load)):
            if function is not None:
                declared_values.check_callable(f"model {name!r}: {what}=", function)
        if (save is None) != (load is None):
            raise TrtgateError(f"model {name!r}: save= and load= go together: what one writes the other reads")
        if save is not None and any(settings_.frontend != OWN for settings_ in self.settings):
            raise TrtgateError(f"model {name!r}: save= and load= are for the frontend {OWN!r}; trtgate stores others")
        for settings_ in self.settings:
            dimensions.check_known(settings_.sizes, self.dimensions, f"model {name!r}")

    def having(self, settings: Iterable[Settings], weights: str | None = None) -> Model:
        """Return the same model under other settings, and with other weights if a file is given."""
        found = Model(
            self.name, self.factory, settings, inputs=self.inputs, dynamic_shapes=self.dynamic_shapes,
            limits=self.limits, samples=self.samples, weights=weights or self.weights, weights_said=self.weights_said,
            save=self.save, load=self.load, parts=self.parts,
        )  # fmt: skip
        found.whole = self.whole
        return found

    @functools.cached_property
    def each(self) -> tuple[Model, ...]:
        """A model for each part, named `model.part`; itself where it has none."""
        return tuple(map(self._part, self.parts)) or (self,)

    def _part(self, part: str) -> Model:
        what = f"model {self.name!r}"
        inputs = None if self.inputs is None else model_parts.part_of(self.inputs, part, f"{what}, its inputs")
        found = Model(
            f"{self.name}.{part}", model_parts.part_of(self.factory, part, f"{what}, its factory"), self.settings,
            inputs=inputs, dynamic_shapes=self.dynamic_shapes, limits=self.limits, samples=self.samples,
            weights=self.weights, weights_said=self.weights_said, save=self.save, load=self.load,
        )  # fmt: skip
        found.whole = self.name
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the factory."""
        return self.factory(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {len(self.settings)} settings)"


class Case(msgspec.Struct, frozen=True):
    """A model under settings. Its `id` is the parameter id in pytest and the key in every stored file."""

    model: Model
    settings: Settings

    @property
    def id(self) -> str:
        """Readable and stable, such as `resnet18-dynamo-fp16-b1-mbs5`."""
        return f"{self.model.name}-{self.settings.suffix}"

    @property
    def built_as(self) -> str:
        """The id of the case that is built for this one; all shapes of one compiled module share it."""
        return f"{self.model.name}-{self.settings.at_optimum.suffix}"

    def __repr__(self) -> str:
        return f"<case {self.id}>"


class Suite:
    """Cases in order, by id.

    Raises TrtgateError when two cases share an id.
    """

    def __init__(self, models: Iterable[Model]) -> None:
        self.models = tuple(each for model_ in models for each in model_.each)
        self.cases: dict[str, Case] = {}
        for model_ in self.models:
            for settings in model_.settings:
                case = Case(model_, settings)
                if case.id in self.cases:
                    raise TrtgateError(f"case {case.id!r} is defined twice: give one of the two models another name")
                self.cases[case.id] = case


def _dimensions_of(factory: Callable[..., Any], inputs: Callable[..., Any] | None, what: str) -> dimensions.Dimensions:
    own = dimensions.of(factory)
    if inputs is None:
        return own
    if not callable(inputs):
        raise TrtgateError(f"{what}: inputs={inputs!r} must be a function of the dimensions that returns inputs")
    if own.required:
        raise TrtgateError(
            f"{what}: its factory takes {', '.join(sorted(own.required))}, and with inputs= it is called with nothing: "
            "let it return the module alone"
        )
    return dimensions.of(inputs)
