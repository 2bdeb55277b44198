"""Files of an export job: exported programs, saved Torch-TensorRT modules, AOTInductor packages, TorchScript."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..common.errors import TrtgateError, one_line
from ..torch_trt import releases

PROGRAM, PACKAGE, SCRIPT = "an exported program", "an AOTInductor package", "a TorchScript module"
TENSORRT = b"tensorrt"
"""What the code or graph of a module with engines names."""
LARGEST_READ = 1 << 26
"""Bytes of a code or graph entry that are searched."""


def load(path: str | os.PathLike[str]) -> Any:
    """Load a program that another process saved.

    Returns an `ExportedProgram` for files of `torch.export.save` and `torch_tensorrt.save`, which a factory may return
    in place of a module; a callable for an AOTInductor package; a `ScriptModule` for TorchScript. If the file has
    engines, torch_tensorrt is imported first. Loading runs code from the file: load only files that you trust.
    Raises TrtgateError if the file is missing, is of another kind, or can't be loaded by this release.
    """
    file = Path(path)
    kind, has_engines = _kind_of(file)
    try:
        if has_engines:
            releases.imported()
        if kind == PROGRAM:
            return torch.export.load(file)
        if kind == PACKAGE:
            return torch._inductor.aoti_load_package(str(file))
        return torch.jit.load(str(file))
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        raise TrtgateError(
            f"{file}: torch {torch.__version__} can't load {kind} that is in it: {one_line(error)}; was it saved with "
            "the same release?"
        ) from error


def _kind_of(file: Path) -> tuple[str, bool]:
    """Return what a file is, by the names in its archive, and whether it has TensorRT engines."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
            kind = _kind_by(names + archive.namelist())
            told = (".json", ".py") if kind else ()
            entries = [
                one for one in archive.infolist() if one.filename.endswith(told) and one.file_size < LARGEST_READ
            ]
            has_engines = kind != PACKAGE and any(TENSORRT in archive.read(one) for one in entries)
    except FileNotFoundError as error:
        raise TrtgateError(f"{file}: there is no such file") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise TrtgateError(f"{file}: this is no file that torch saved ({one_line(error)})") from error
    if not kind:
        raise TrtgateError(f"{file}: this is neither {PROGRAM}, {PACKAGE} nor {SCRIPT}; weights alone have no code")
    return kind, has_engines


def _kind_by(names: list[str]) -> str:
    if any(name.startswith("data/aotinductor/") for name in names):
        return PACKAGE
    if any(name.startswith("models/") or name == "serialized_exported_program.json" for name in names):
        return PROGRAM
    return SCRIPT if any(name.startswith("code/") for name in names) else ""
