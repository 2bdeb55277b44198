"""On a machine without a GPU a program says of `torch.autocast("cuda")` what it says on one with a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from .patching import replaced


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within: without a GPU, torch does not switch autocast for CUDA off: an exported region says what code asked for.

    What is computed on a CPU is not affected by it.
    """
    with contextlib.ExitStack() as stack:
        if not torch.cuda.is_available():
            stack.enter_context(replaced(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False))
            stack.enter_context(replaced(torch.cuda, "is_bf16_supported", lambda *_arguments, **_named: True))
        yield
