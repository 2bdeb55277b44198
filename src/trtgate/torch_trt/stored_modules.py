"""Compiled modules in files: torch_tensorrt's format for the program, and its engines beside it as they are.

`torch_tensorrt.save` 2.11 copies a module to store it, and a copied engine is loaded anew, which with TensorRT-RTX
compiles its kernels: up to 4 s each. It writes engines as base64 text, twice, and reads them back from it. 2.14 pickles
them as base64 text, once. Here a copy shares its engines, and a program names its engines by number.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..suite import pytree_classes
from ..suite.model_inputs import CONSTANTS
from .patching import replaced
from .releases import imported

if TYPE_CHECKING:
    import torch

CLASSES = ".classes.json"
"""Suffix: the pytree classes of inputs and output, which must be known before the program is loaded."""
ENGINES, ENGINE = ".json", ".{}.engine"
"""Suffixes: what `torch.classes.tensorrt.Engine` takes for each engine, null where the serialized engine is to be put;
and the serialized engine of that number."""
NUMBER = b"trtgate engine "
"""What stands in the program for an engine, with its number."""


def save(module: torch.nn.Module, file: Path) -> None:
    """Store a compiled module with its engines (2.11's own engine cache fails on hits with RTX).

    Raises whatever torch_tensorrt.save raises: 2.11 can't store many of the modules with parts in PyTorch. Raises
    TrtgateError for a class of its inputs or output that no other process can find.
    """
    import torch

    torch_tensorrt = imported()
    engines = ((getattr(part, "engine", None), part) for part in module.modules())
    parts = {id(engine): part for engine, part in engines if isinstance(engine, torch.ScriptObject)}
    kept: list[Any] = []
    written, upstream = torch._C._pickle_save, _engine_pickling()

    def numbered(information: Any) -> bytes:
        kept.append(list(information))
        return NUMBER + str(len(kept) - 1).encode()

    def number(value: Any) -> bytes:
        return numbered(parts[id(value)]._pack_engine_info()) if id(value) in parts else written(value)

    with contextlib.ExitStack() as stack:
        if upstream is not None:
            reduced: Any = lambda one: (upstream._reconstruct_trt_engine, (numbered(one.serialized_info),))  # noqa: E731
            stack.enter_context(replaced(upstream.EngineSerializer, "__reduce__", reduced))
        stack.enter_context(sharing_engines())
        stack.enter_context(replaced(torch._C, "_pickle_save", number))
        stack.enter_context(_constants_of(module))
        torch_tensorrt.save(module, str(file), output_format="exported_program", retrace=False)
    for count, information in enumerate(kept):
        (at,) = (place for place, value in enumerate(information) if isinstance(value, bytes | bytearray))
        file.with_suffix(ENGINE.format(count)).write_bytes(information[at])
        information[at] = None
    file.with_suffix(ENGINES).write_text(json.dumps(kept))
    save_classes(module, file)


def save_classes(module: Any, file: Path) -> None:
    """Store which pytree classes a module takes and returns, and what registers them. Raises as `save`."""
    known = getattr(getattr(module, "graph", None), "_codegen", None)
    structures = [getattr(getattr(known, "pytree_info", None), name, None) for name in ("in_spec", "out_spec")]
    classes = pytree_classes.described(*(one for one in structures if one is not None))
    file.with_suffix(CLASSES).write_text(json.dumps(classes))


def load_classes(file: Path) -> None:
    """Make known what `save_classes` stored. Raises TrtgateError for a class that is not there any more."""
    pytree_classes.make_known(json.loads(file.with_suffix(CLASSES).read_text()))


def load(file: Path) -> torch.nn.Module:
    """Load what `save` stored. It unpickles: only for files that this user's own session just wrote."""
    import torch

    torch_tensorrt = imported()
    load_classes(file)
    kept = json.loads(file.with_suffix(ENGINES).read_text())
    upstream = _engine_pickling()

    def engine(data: bytes) -> Any:
        count = int(data.removeprefix(NUMBER))
        serialized = file.with_suffix(ENGINE.format(count)).read_bytes()
        information = [serialized if value is None else value for value in kept[count]]
        if upstream is not None and not torch_tensorrt.ENABLED_FEATURES.torch_tensorrt_runtime:
            return upstream.TRTEngine(information)
        return torch.classes.tensorrt.Engine(information)

    with contextlib.ExitStack() as stack:
        owners = [(torch._C, "_pickle_load_obj"), (upstream, "_reconstruct_trt_engine")]
        for owner, name in owners if upstream is not None else owners[:1]:
            stack.enter_context(replaced(owner, name, _or_numbered(engine, getattr(owner, name))))
        return torch_tensorrt.load(str(file)).module()


def _or_numbered(engine: Callable[[bytes], Any], read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what makes the engine of a number, and reads all else as upstream does: what an earlier trtgate stored."""

    def made(data: Any) -> Any:
        return engine(data) if isinstance(data, bytes) and data.startswith(NUMBER) else read(data)

    return made


def _engine_pickling() -> Any:
    """Return the module in which 2.14 pickles engines by Python; None before, where torch pickles them."""
    try:
        from torch_tensorrt.dynamo.runtime import _TRTEngine as module
    except ImportError:
        return None
    return module if hasattr(module, "EngineSerializer") and hasattr(module, "_reconstruct_trt_engine") else None


def _constants_of(module: Any) -> contextlib.AbstractContextManager[None]:
    """Within: inputs of a graph that are no tensors are constants; upstream's exporter takes all inputs for tensors.

    That is so from 2.11 to 2.14, and torch stores no such program.
    """
    import torch

    graph = getattr(module, "graph", None)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"] if graph is not None else []
    constants = {
        node.name: node.meta["val"]
        for node in placeholders
        if isinstance(node.meta.get("val", torch.Tensor), CONSTANTS)
    }
    if not constants:
        return contextlib.nullcontext()
    from torch.export.graph_signature import ConstantArgument, InputKind, InputSpec
    from torch_tensorrt.dynamo import _exporter

    def spec(*fields: Any, **named: Any) -> InputSpec:
        made = InputSpec(*fields, **named)
        if made.kind is InputKind.USER_INPUT and made.arg.name in constants:
            made.arg = ConstantArgument(name=made.arg.name, value=constants[made.arg.name])
        return made

    return replaced(_exporter, "InputSpec", spec)


@contextlib.contextmanager
def sharing_engines() -> Iterator[None]:
    """Within: a copied module has the original's engines, and a pickled one nothing in their place."""
    import torch

    upstream = _engine_pickling()
    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(torch.ScriptObject, "__deepcopy__", _itself))
        # the reduction is read by nobody
        stack.enter_context(replaced(torch.ScriptObject, "__reduce_ex__", lambda _engine, _protocol: (str, ())))
        if upstream is not None:  # engines of the Python runtime, which others pickle
            stack.enter_context(replaced(upstream.TRTEngine, "__deepcopy__", _itself))
        yield


def _itself(engine: Any, _copied: object) -> Any:
    return engine
