"""What is judged of a case: each metric's name, unit and default limit. More is worse, of all of them."""

from __future__ import annotations

import msgspec

DEVICE, HOST, ENQUEUE = "device", "host", "enqueue"
SAMPLED = (DEVICE, HOST, ENQUEUE)
"""Measured block by block in launches; microseconds of one inference."""
BUILD = "build"
ENGINE_BYTES, GPU_MEMORY, OUTPUT_ERROR = "engine_bytes", "gpu_memory", "output_error"
ENGINES, PYTORCH_OPERATORS = "engines", "pytorch_operators"


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. `limit` is the fraction beyond which more of it is a regression, unless a user says otherwise."""

    title: str
    """What a sentence calls it."""
    unit: str
    """"us", "s", "bytes", or "" for a count or a ratio."""
    limit: float
    figure: str = ""
    """Its name among a record's figures; empty for what is sampled."""
    resolution: float = 0.0
    """Differences up to this, in its unit, are none: what the way of counting can't tell."""


METRICS = {
    DEVICE: Metric(title="device latency", unit="us", limit=0.01),
    HOST: Metric(title="host latency", unit="us", limit=0.10),
    ENQUEUE: Metric(title="enqueue time", unit="us", limit=0.10),
    BUILD: Metric(title="build time", unit="s", limit=0.50, figure="build_s"),
    ENGINE_BYTES: Metric(title="engine size", unit="bytes", limit=0.05, figure="engine_bytes", resolution=1 << 16),
    GPU_MEMORY: Metric(title="GPU memory", unit="bytes", limit=0.05, figure="gpu_memory_bytes", resolution=64 << 20),
    OUTPUT_ERROR: Metric(title="output error", unit="", limit=1.0, figure="output_error", resolution=1e-5),
    ENGINES: Metric(title="engines", unit="", limit=0.0, figure="engines"),
    PYTORCH_OPERATORS: Metric(title="operators in PyTorch", unit="", limit=0.0, figure="pytorch_operators"),
}
EXACT = (ENGINE_BYTES, GPU_MEMORY, OUTPUT_ERROR, ENGINES, PYTORCH_OPERATORS)
"""Read off once; compared without statistics."""
