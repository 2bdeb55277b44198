"""How a worker takes its turn among others: to build, or to compare what it built with eager."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple


class BuildTurn(NamedTuple):
    """How a worker takes its turn among others."""

    wait: Callable[[], float]
    """Waits for it; returns the seconds that this took."""
    end: Callable[[], None] = lambda: None
    """Says that another may build."""

    @contextlib.contextmanager
    def to_build(self) -> Iterator[float]:
        """Within: this one builds, and no other does; gives the seconds that it waited."""
        waited_s = self.wait()
        try:
            yield waited_s
        finally:
            self.end()
