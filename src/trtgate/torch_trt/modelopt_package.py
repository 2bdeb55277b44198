"""Whether nvidia-modelopt is there, and its import; imports neither it nor torch by itself."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Iterable, Iterator

from ..suite.precisions import QUANTIZED


def unavailable() -> str:
    """Return why nothing can be quantized, in one line; empty when nvidia-modelopt is there."""
    if importlib.util.find_spec("modelopt") is None:
        return "quantized precisions need nvidia-modelopt: pip install 'trtgate[quant]'"
    return ""


_expected: set[str] = set()


def expect(precisions: Iterable[str]) -> None:
    """Say which precisions this process may be asked for: whoever has cases calls it before torch_tensorrt is imported.

    A quantized module needs nvidia-modelopt to be imported first, which takes 10 s, so nobody else imports it.
    """
    _expected.update(precisions)


def is_expected() -> bool:
    """Whether a quantized precision may be asked for."""
    return bool(_expected & QUANTIZED)


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
