"""The libraries of C++ operators that this process has loaded: nobody says which of them an operator is in."""

from __future__ import annotations

import os
import re
import sysconfig
from pathlib import Path

import torch

from ..common.errors import TrtgateError
from .imported_files import INSTALLED, UPSTREAM, upstream_folders

MAPPED = Path("/proc/self/maps")
GONE = " (deleted)"
OF_PYTHON = f"{Path(sysconfig.get_paths()['stdlib']).resolve().parent}{os.sep}lib"
SYSTEM = (OF_PYTHON, "/usr/lib", "/usr/local/lib", "/usr/local/cuda", "/lib", "[")
"""How paths of the system's libraries begin, and of those beside Python's own."""
OF_NVIDIA = re.compile(
    r"lib(nvinfer_builder_resource\w*|tensorrt(_onnxparser)?_rtx|cudart|cublas(Lt)?|cufftw?|curand|cusolver(Mg)?"
    r"|cudnn(_(adv|cnn|ops)(_infer|_train)?|_engines_\w+|_ext|_graph|_heuristic)?|cusparse(Lt)?|nvrtc(-builtins)?"
    r"|nvJitLink|nccl|cupti|cuda|nvidia-[\w-]+)([.-][0-9a-f]{8}|\.alt)?\.so"
)
"""Libraries that a process loads when it first needs them, wherever they lie: which ones follows from what it did.
TensorRT's plugins are none of these, for users build them anew. A user's own may begin with such a name."""

COMPILED = ("aotinductor", "torchinductor", ".triton")
"""How folders begin in which Inductor and Triton put what they compile: kernels of modules, and no operators."""


def loaded() -> list[Path]:
    """Return the files of all libraries that torch was told to load, and of all others that are not installed.

    What Inductor and Triton compiled in this process, for whichever case, is none.
    Raises TrtgateError for one whose file was replaced since, as building it again does: nobody can read what runs.
    """
    told = [Path(file) for file in torch.ops.loaded_libraries if not _is_upstream(Path(file))]
    real = {os.path.realpath(file) for file in told}
    mapped = [line.split(maxsplit=5) for line in MAPPED.read_text().splitlines()]
    own: dict[Path, bool] = {}
    installed = (*SYSTEM, *INSTALLED, *upstream_folders())
    for inode, file in dict.fromkeys((one[4], one[5]) for one in mapped if len(one) == 6):  # a file is mapped in parts
        path = file.removesuffix(GONE)
        if _is_compiled(Path(path)) or OF_NVIDIA.match(Path(path).name):
            continue
        if ".so" in Path(path).name and (path in real or not path.startswith(installed)):
            own[Path(path)] = file.endswith(GONE) or Path(path).stat().st_ino != int(inode)
    for library, replaced in own.items():
        if replaced:
            raise TrtgateError(f"{library} was built again after it was loaded, so nobody can read what runs")
    return [file for file in dict.fromkeys((*map(Path, sorted(real)), *own)) if file.is_file()]


def _is_compiled(file: Path) -> bool:
    caches = [os.environ[name] for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR") if os.environ.get(name)]
    return any(part.startswith(COMPILED) for part in file.parts) or any(map(file.is_relative_to, caches))


def _is_upstream(file: Path) -> bool:
    return any(file.is_relative_to(place) and file.relative_to(place).parts[0] in UPSTREAM for place in INSTALLED)
