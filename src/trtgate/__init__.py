"""trtgate: a performance gate for PyTorch models compiled with Torch-TensorRT."""

from .cases import Case, Model, Settings, grid, model
from .errors import TrtgateError

__all__ = ["Case", "Model", "Settings", "TrtgateError", "grid", "model"]
__version__ = "0.1.0"
