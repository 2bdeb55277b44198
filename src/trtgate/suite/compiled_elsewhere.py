"""A callable that the user compiled, as a factory hands it over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ..common.errors import TrtgateError
from .declared_values import answers, kind_of
from .settings import OWN

if TYPE_CHECKING:
    import torch

    from .cases import Model


def is_all_of(model: Model) -> bool:
    """Whether a model is what its factory compiled, under all of its settings."""
    return bool(model.settings) and all(one.frontend == OWN for one in model.settings)


class Compiled(msgspec.Struct, frozen=True, eq=False):
    """A callable that a factory of the frontend `own` compiled, and the module whose output is its reference.

    Without `reference` the callable is compared with itself: it must return the same output in every call and process.
    """

    run: Callable[..., Any]
    reference: torch.nn.Module | None = None

    def __post_init__(self) -> None:
        if not answers(self.run):
            raise TrtgateError(f"trtgate.Compiled takes a callable, not {kind_of(self.run)}")
        if self.reference is not None and not answers(self.reference):
            raise TrtgateError(
                f"trtgate.Compiled: reference must be the module that was compiled, not {kind_of(self.reference)}"
            )
