"""trtgate: a performance gate for PyTorch models compiled with Torch-TensorRT."""

from typing import TYPE_CHECKING, Any

from .common.errors import TrtgateError
from .common.version import VERSION
from .suite.cases import Case, Model
from .suite.compiled_elsewhere import Compiled
from .suite.declaring import grid, model
from .suite.expected_failures import expected_failure
from .suite.quarantines import quarantine
from .suite.settings import Settings

if TYPE_CHECKING:
    from .compiling.saved_modules import load
    from .coverage.assertion import assert_supported

__all__ = [
    "Case", "Compiled", "Model", "Settings", "TrtgateError", "assert_supported", "expected_failure", "grid", "load",
    "model", "quarantine",
]  # fmt: skip
__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for: collecting tests must not."""
    if name == "assert_supported":
        from .coverage.assertion import assert_supported

        return assert_supported
    if name == "load":
        from .compiling.saved_modules import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
