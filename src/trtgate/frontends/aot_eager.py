"""torch.compile up to the point where a backend would generate code: what tracing and functionalizing cost."""

from __future__ import annotations

from .frontend import Frontend
from .inductor import TorchBackend

FRONTEND: Frontend = TorchBackend("aot_eager", "nothing: every launch traces the module anew")
