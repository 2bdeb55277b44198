"""trtgate: a performance gate for PyTorch models compiled with Torch-TensorRT."""

from typing import TYPE_CHECKING, Any

from .cases import Case, Model, Settings, grid, model
from .errors import TrtgateError
from .expected_failures import expected_failure
from .quarantines import quarantine

if TYPE_CHECKING:
    from .dry_run import assert_supported

__all__ = [
    "Case", "Model", "Settings", "TrtgateError", "assert_supported", "expected_failure", "grid", "model", "quarantine",
]  # fmt: skip
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first asked for: collecting tests must not."""
    if name == "assert_supported":
        from .dry_run import assert_supported

        return assert_supported
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
