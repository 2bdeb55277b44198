"""When Python's garbage is collected, and when it is not."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


def freeze() -> None:
    """Let collections pass over all that there is: half a million objects of libraries, which take 0.3 s each time."""
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Within: libraries are imported. No garbage is collected, which took a sixth of the CPU time of torch's and
    torch_tensorrt's import, and later collections pass over all that is there at the end."""
    with later():
        yield
        gc.freeze()


@contextlib.contextmanager
def not_collected() -> Iterator[None]:
    """Within: no garbage is collected, but before: what a destructor does may disturb what is done here."""
    gc.collect()
    with later():
        yield


@contextlib.contextmanager
def later() -> Iterator[None]:
    """Within: no garbage is collected."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
