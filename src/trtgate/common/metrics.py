"""What is judged of a case: each metric's name, unit and default limit. More is worse, of all of them."""

from __future__ import annotations

import msgspec

from .default_limits import DEFAULT_LIMITS

DEVICE, HOST, ENQUEUE = "device", "host", "enqueue"
ON_HOST = "host"
"""How the names of clocks begin that time on a CPU."""
GRAPHS, QUEUED = "cuda_graph", "cuda_events"
"""How those begin that replay CUDA graphs; and the one that times what can't be captured."""
SAMPLED = (DEVICE, HOST, ENQUEUE)
"""Measured block by block in launches; microseconds of one inference."""
COLD_START = "cold_start"
"""Measured in processes of its own, once in each; seconds."""
BUILD = "build"
ENGINE_BYTES, GPU_MEMORY, LEAF_ERROR = "engine_bytes", "gpu_memory", "leaf_error"
COLD_HOST_MEMORY, COLD_GPU_MEMORY = "cold_host_memory", "cold_gpu_memory"
ENGINES, PYTORCH_OPERATORS = "engines", "pytorch_operators"
PYTHON_LINES, DISPATCHER_OPS, CUDA_CALLS = "python_lines", "dispatcher_ops", "cuda_calls"
KERNEL_LAUNCHES, WAITS, MEMORY_OPERATIONS = "kernel_launches", "waits", "memory_operations"
OF_A_CALL = (PYTHON_LINES, DISPATCHER_OPS, CUDA_CALLS, KERNEL_LAUNCHES, WAITS, MEMORY_OPERATIONS)
"""What one call does on the host, counted."""


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


def _of_a_call(name: str, title: str) -> Metric:
    return Metric(title=f"{title} a call", unit="", limit=DEFAULT_LIMITS[name], figure=name)


def _of_bytes(name: str, title: str, figure: str, resolution: int) -> Metric:
    return Metric(title=title, unit="bytes", limit=DEFAULT_LIMITS[name], figure=figure, resolution=resolution)


METRICS = {
    DEVICE: Metric(title="device latency", unit="us", limit=DEFAULT_LIMITS[DEVICE]),
    HOST: Metric(title="host latency", unit="us", limit=DEFAULT_LIMITS[HOST]),
    ENQUEUE: Metric(title="enqueue time", unit="us", limit=DEFAULT_LIMITS[ENQUEUE]),
    BUILD: Metric(title="build time", unit="s", limit=DEFAULT_LIMITS[BUILD], figure="build_s"),
    ENGINE_BYTES: _of_bytes(ENGINE_BYTES, "engine size", "engine_bytes", 1 << 16),
    GPU_MEMORY: _of_bytes(GPU_MEMORY, "GPU memory", "gpu_memory_bytes", 64 << 20),
    COLD_START: Metric(title="cold start", unit="s", limit=DEFAULT_LIMITS[COLD_START]),
    COLD_HOST_MEMORY: _of_bytes(COLD_HOST_MEMORY, "host memory of a cold start", "cold_host_bytes", 16 << 20),
    COLD_GPU_MEMORY: _of_bytes(COLD_GPU_MEMORY, "GPU memory of a cold start", "cold_gpu_bytes", 64 << 20),
    LEAF_ERROR: Metric(
        title="leaf error", unit="", limit=DEFAULT_LIMITS[LEAF_ERROR], figure="leaf_error", resolution=1e-5
    ),
    ENGINES: Metric(title="engines", unit="", limit=DEFAULT_LIMITS[ENGINES], figure="engines"),
    PYTORCH_OPERATORS: Metric(
        title="operators in PyTorch", unit="", limit=DEFAULT_LIMITS[PYTORCH_OPERATORS], figure="pytorch_operators"
    ),
    PYTHON_LINES: _of_a_call(PYTHON_LINES, "lines of Python"),
    DISPATCHER_OPS: _of_a_call(DISPATCHER_OPS, "dispatcher operations"),
    CUDA_CALLS: _of_a_call(CUDA_CALLS, "CUDA calls"),
    KERNEL_LAUNCHES: _of_a_call(KERNEL_LAUNCHES, "kernel launches"),
    WAITS: _of_a_call(WAITS, "waits for the device"),
    MEMORY_OPERATIONS: _of_a_call(MEMORY_OPERATIONS, "copies and allocations"),
}
RENAMED = {"output_error": (LEAF_ERROR, "the error of the worst tensor of the output, not of all of them together")}
"""Earlier names → name, and what is meant by it. Figures stored under an earlier name are not compared."""
OF_COLD_STARTS = (COLD_HOST_MEMORY, COLD_GPU_MEMORY)
EXACT = (ENGINE_BYTES, GPU_MEMORY, *OF_COLD_STARTS, LEAF_ERROR, ENGINES, PYTORCH_OPERATORS, *OF_A_CALL)
"""Read off once; compared without statistics."""


def sampled(*, gpu: bool, cold: bool) -> tuple[str, ...]:
    """Return the metrics that launches measure block by block, and, with `cold`, processes that start cold."""
    return (*(SAMPLED if gpu else (HOST,)), *[COLD_START] * cold)
