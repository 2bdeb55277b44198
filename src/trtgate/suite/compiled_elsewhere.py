"""A callable that the user compiled, as a factory hands it over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ..common.errors import TrtgateError

if TYPE_CHECKING:
    import torch


class Compiled(msgspec.Struct, frozen=True, eq=False):
    """What a factory of the frontend `own` compiled, and the module that its output is compared with.

    Without `reference` it is compared with itself: whether it repeats itself, and is the same in every process.
    """

    run: Callable[..., Any]
    reference: torch.nn.Module | None = None

    def __post_init__(self) -> None:
        if not callable(self.run) or isinstance(self.run, type):
            raise TrtgateError(f"trtgate.Compiled takes a callable, not {_what(self.run)}")
        if self.reference is not None and (not callable(self.reference) or isinstance(self.reference, type)):
            raise TrtgateError(
                f"trtgate.Compiled: reference must be the module that was compiled, not {_what(self.reference)}"
            )


def _what(value: Any) -> str:
    """Return what a value is, as the end of a sentence; a call of a class makes an object, and answers nothing."""
    return f"the class {value.__name__}: make an object of it" if isinstance(value, type) else type(value).__name__
