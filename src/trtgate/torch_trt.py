"""Everything that depends on which torch_tensorrt and TensorRT are installed: 2.11 to 2.14, RTX or standard.

torch_tensorrt is imported inside functions only: it takes seconds, and on a machine without a GPU it fails.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import TrtgateError

if TYPE_CHECKING:
    import torch

SUPPORTED = "2.11 to 2.14"
FLAVOURS = {"torch-tensorrt-rtx": "rtx", "torch-tensorrt": "standard"}


def flavour() -> str | None:
    """Return "rtx" or "standard" as installed, None when torch_tensorrt is not."""
    for distribution, name in FLAVOURS.items():
        try:
            metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
        return name
    return None


def unavailable() -> str:
    """Return why TensorRT can't be used at all; empty when it can, as far as is known without importing it."""
    if importlib.util.find_spec("torch_tensorrt") is None:
        return "torch_tensorrt is not installed: pip install 'trtgate[rtx]' or 'trtgate[standard]'"
    return ""


def fp32_is_tf32() -> bool:
    """Whether fp32 layers round their operands to TF32 whatever `disable_tf32` says.

    So on RTX 2.11 (TensorRT-RTX 1.4): outputs are bit for bit the same with the option on and off, with TF32's error.
    """
    return flavour() == "rtx"


def option_names() -> frozenset[str]:
    """Return the fields of `CompilationSettings`, read from its source: importing it needs a GPU.

    Raises TrtgateError when torch_tensorrt is not installed.
    """
    spec = importlib.util.find_spec("torch_tensorrt")
    if spec is None or spec.origin is None:
        raise TrtgateError(unavailable())
    source = Path(spec.origin).parent / "dynamo" / "_settings.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == "CompilationSettings":
            return frozenset(
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            )
    raise TrtgateError(f"{source}: no class CompilationSettings; torch_tensorrt {SUPPORTED} is supported")


def check_options(case_id: str, options: Mapping[str, object]) -> None:
    """Raise TrtgateError for an option that torch_tensorrt would swallow in silence, naming the nearest one."""
    if not options or unavailable():
        return
    known = option_names()
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "see CompilationSettings of torch_tensorrt.dynamo"
            raise TrtgateError(f"case {case_id}: unknown compile option {name!r}; {hint}")


def compile_exported(
    program: torch.export.ExportedProgram, inputs: tuple[Any, ...], options: Mapping[str, Any]
) -> torch.nn.Module:
    """Compile an exported program with `torch_tensorrt.dynamo.compile`.

    `use_explicit_typing` stays at its default: weights and inputs are cast before export, since
    `enabled_precisions` raises on 2.11 and is ignored on 2.14.
    """
    import torch_tensorrt

    return torch_tensorrt.dynamo.compile(program, arg_inputs=inputs, **options)


def save(module: torch.nn.Module, inputs: tuple[Any, ...], file: Path) -> None:
    """Store a compiled module with its engines (2.11's own engine cache fails on hits with RTX)."""
    import torch_tensorrt

    torch_tensorrt.save(module, str(file), output_format="exported_program", arg_inputs=inputs, retrace=False)


def load(file: Path) -> torch.nn.Module:
    """Load what `save` stored. It unpickles: only for files that this user's own session just wrote."""
    import torch_tensorrt

    return torch_tensorrt.load(str(file)).module()


def engine_bytes(module: torch.nn.Module) -> list[int]:
    """Return the serialized size of every TensorRT engine of a compiled module, in bytes."""
    engines = [getattr(child, "serialized_engine", None) for child in module.modules()]
    return [len(engine) for engine in engines if isinstance(engine, bytes | bytearray)]


def features() -> dict[str, bool]:
    """Return `ENABLED_FEATURES` of the installed build. Imports torch_tensorrt, so it needs a GPU."""
    from torch_tensorrt._features import ENABLED_FEATURES

    return {name: bool(value) for name, value in ENABLED_FEATURES._asdict().items()}
