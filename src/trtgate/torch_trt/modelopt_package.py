"""Whether nvidia-modelopt is there, and its import; imports neither it nor torch by itself."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Iterator


def unavailable() -> str:
    """Return why nothing can be quantized, in one line; empty when nvidia-modelopt is there."""
    if importlib.util.find_spec("modelopt") is None:
        return "quantized precisions need nvidia-modelopt: pip install 'trtgate[quant]'"
    return ""


def import_modelopt() -> None:
    """Import nvidia-modelopt, if it is there; what is wrong with it is for who quantizes to say."""
    if not unavailable():
        with quiet(), contextlib.suppress(Exception):
            import modelopt.torch.quantization  # noqa: F401


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within: what it prints and warns of is kept back."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
