"""How much memory a process takes: of the GPU, and of the host at its peak."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from ..common.errors import TrtgateError

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def used_bytes() -> int:
    """Return the memory of the GPU that is in use, by all processes."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return int(total - free)


class HostPeak:
    """How far the resident memory of this process rises above what it was when this was made.

    Linux keeps the peak (proc(5): VmHWM; writing 5 to clear_refs begins it anew). Where a sandbox does not let it begin
    anew, or keeps none, the rise is that between the beginning and the end.
    """

    def __init__(self) -> None:
        """Begin. Raises TrtgateError where nobody says what memory is resident."""
        self._peak = "VmRSS"
        with contextlib.suppress(OSError, TrtgateError):
            FORGET.write_text("5")
            _of_status("VmHWM")
            self._peak = "VmHWM"
        self._before = _of_status("VmRSS")

    def rise_bytes(self) -> int:
        """Return the rise so far."""
        return max(0, _of_status(self._peak) - self._before)


def _of_status(name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise TrtgateError(f"{STATUS} does not say {name}: how much memory the process holds is not known")
    return int(found[1]) << 10
