"""Which cases of a suite a run takes: by model, frontend, precision and sizes of dimensions."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgspec

from ..common.errors import TrtgateError
from .dimensions import BATCH, check_known
from .settings import FRONTENDS, PRECISIONS, one_of

if TYPE_CHECKING:
    from .cases import Case, Suite


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which cases a run takes; an empty tuple takes all."""

    models: tuple[str, ...] = ()
    frontends: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    shapes: tuple[str, ...] = ()
    """Sizes of other dimensions, such as `seq=128`: a case is taken whose size of each of them is named."""

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__struct_fields__)

    def sizes(self) -> dict[str, set[int]]:
        """Return the sizes that are taken of each dimension that is named. Raises TrtgateError for another text."""
        found: dict[str, set[int]] = {BATCH: set(self.batches)} if self.batches else {}
        for text in self.shapes:
            name, _, size = text.partition("=")
            if not size.isdecimal():
                raise TrtgateError(f"--trtgate-shapes {text!r}: write DIMENSION=SIZE, such as seq=128")
            found.setdefault(name, set()).add(int(size))
        return found

    def describe(self) -> str:
        """Return it as the command line has it."""
        parts = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return " ".join(f"--trtgate-{name} {','.join(map(str, values))}" for name, values in parts if values)

    def takes_id(self, case_id: str) -> bool:
        """Whether it takes a case that the suite does not have any more, as far as its id tells."""
        model_name, *parts = case_id.split("-")
        wanted = [set(self.frontends), set(self.precisions)]
        sizes = [(name == BATCH, name, values) for name, values in self.sizes().items()]
        named = not self.models or any(f"{model_name}.".startswith(f"{name}.") for name in self.models)
        return (
            named
            and all(not values or values & set(parts) for values in wanted)
            and all(
                any(_says(part, "b" if is_batch else name, size) for part in parts for size in values)
                for is_batch, name, values in sizes
            )
        )

    def takes(self, case: Case) -> bool:
        """Whether every non-empty part names this case's value."""
        settings = case.settings
        pairs: tuple[tuple[Collection[Any], Any], ...] = (
            (self.models, case.model.whole if case.model.whole in self.models else case.model.name),
            (self.frontends, settings.frontend),
            (self.precisions, settings.precision),
            *((sizes, settings.sizes.get(name)) for name, sizes in self.sizes().items()),
        )
        return all(not wanted or value in wanted for wanted, value in pairs)

    def select(self, suite: Suite) -> list[Case]:
        """Return the cases of a suite that are taken.

        Raises TrtgateError when something unknown is named, no case fits, or a model's sizes are not said.
        """
        for model in suite.models:
            if not model.settings:
                check_known((), model.dimensions, f"model {model.name!r}")
        known = dict.fromkeys(name for model in suite.models for name in model.dimensions.names)
        for what, wanted, names in (
            ("model", self.models, dict.fromkeys(name for model in suite.models for name in (model.name, model.whole))),
            ("frontend", self.frontends, FRONTENDS),
            ("precision", self.precisions, PRECISIONS),
            ("dimension", [name for name in self.sizes() if name != BATCH], known),
        ):
            for name in wanted:
                one_of(what, name, names)
        found = [case for case in suite.cases.values() if self.takes(case)]
        if not found:
            raise TrtgateError(f"no case fits the selection {self.describe()}")
        return found


def _says(part: str, name: str, size: int) -> bool:
    """Whether a part of an id says that a dimension has a size: `seq128`, or `seq16..128..512@128`."""
    return part == f"{name}{size}" or re.fullmatch(rf"{re.escape(name)}[\d.+]+@{size}", part) is not None
