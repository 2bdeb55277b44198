"""The TensorRT engines inside a compiled module, and how much they remember of their layers.

TensorRT is reached as `tensorrt`, which is what torch_tensorrt makes of either flavour.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..common.errors import TrtgateError, one_line
from ..suite.settings import VERBOSITIES
from .patching import replaced

if TYPE_CHECKING:
    pass

CPP, PYTHON, OWN = "cpp", "python", "own"
"""Who runs an engine: Torch-TensorRT's C++ runtime, its Python runtime (2.11), or `tensorrt.Runtime`, driven here."""


@contextlib.contextmanager
def verbosity(name: str) -> Iterator[None]:
    """Within: engines are built with a `ProfilingVerbosity`, one of `VERBOSITIES`.

    Torch-TensorRT sets `detailed` under its `Debugger` only, which replaces the root logger's handlers; so the
    function that fills the builder's configuration is wrapped (2.11 to 2.14).
    """
    from torch_tensorrt.dynamo.conversion import _TRTInterpreter as module

    interpreter = module.TRTInterpreter
    before = interpreter._populate_trt_builder_config

    def populate(self: Any, *arguments: Any, **keywords: Any) -> Any:
        config = before(self, *arguments, **keywords)
        config.profiling_verbosity = getattr(tensorrt().ProfilingVerbosity, name.upper())
        return config

    with replaced(interpreter, "_populate_trt_builder_config", populate):
        yield


class BuiltEngine:
    """One engine of a compiled module: the submodule that runs it, and its serialized form.

    `own` has it deserialized and run here, whoever runs it in the module.
    """

    def __init__(self, module: Any, *, own: bool = False) -> None:
        self._module = module
        self._own = own
        self.serialized: bytes = bytes(module.serialized_engine)

    @property
    def runtime(self) -> str:
        """Who runs it, CPP, PYTHON or OWN."""
        import torch

        if self._own:
            return OWN
        if type(self._module).__name__ == "PythonTorchTensorRTModule":  # 2.11
            return PYTHON
        return CPP if isinstance(getattr(self._module, "engine", None), torch.ScriptObject) else OWN

    @property
    def input_names(self) -> list[str]:
        """Names of its inputs, in the order of the submodule's arguments."""
        names = getattr(self._module, "input_binding_names", None) or getattr(self._module, "input_names", [])
        return list(names)

    def information(self) -> Any:
        """Return what TensorRT's inspector says, parsed. Raises TrtgateError when that is no JSON."""
        said = self._module.get_layer_info()
        if not said.strip():
            return {}
        try:
            return json.loads(said)
        except ValueError as error:
            raise TrtgateError(f"TensorRT's inspector gave no valid JSON ({one_line(error)})") from error


def verbosity_of(information: Any) -> str:
    """Return the verbosity that an engine was built with, as its inspector shows it."""
    layers = information.get("Layers") if isinstance(information, dict) else None
    if not layers or all(isinstance(layer, str) and layer.isdecimal() for layer in layers):
        return VERBOSITIES[0]  # then layers are numbered
    return VERBOSITIES[2] if isinstance(layers[0], dict) else VERBOSITIES[1]


def tensorrt() -> Any:
    """Import TensorRT, of the flavour that is installed."""
    import torch_tensorrt  # noqa: F401  - makes `tensorrt` mean the flavour that is installed

    return importlib.import_module("tensorrt")
