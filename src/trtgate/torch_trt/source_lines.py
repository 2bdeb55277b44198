"""The line of the user's code that a node of a graph came from."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from ..common.escaping import printable

LONGEST_LINE = 120
_FRAME = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+), in .*\n(?:\s*(?P<code>.*\S))?', re.MULTILINE)


def source_line(node: Any) -> str:
    """Return `models/net.py:12: x = torch.special.bessel_j0(x)`; empty for a node that came without a stack trace.

    The innermost frame outside of torch counts. A path is relative to the working directory or to `site-packages`;
    of a file elsewhere it is the name.
    """
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    if not frames:
        return ""
    root = torch_folder()
    frame = next((one for one in reversed(frames) if not one["file"].startswith(root)), frames[-1])
    return printable(f"{shortened(frame['file'])}:{frame['line']}: {frame['code'] or ''}".rstrip(": "), LONGEST_LINE)


def shortened(file: str) -> str:
    """Return a path without what differs between machines."""
    path = Path(file)
    for folder in ("site-packages", "dist-packages"):
        if folder in path.parts:
            return Path(*path.parts[path.parts.index(folder) + 1 :]).as_posix()
    here = Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.name


@functools.cache
def torch_folder() -> str:
    """Return the folder of the installed torch, ending in a separator."""
    import torch

    return f"{Path(torch.__file__).parent}/"
