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
COLD_START, COLD_START_CACHED = "cold_start", "cold_start_cached"
"""Measured in processes of their own, once in each; seconds. The second takes kernels from a runtime cache."""
THREADS_THROUGHPUT, THREADS_P50, THREADS_P99 = "threads_throughput", "threads_p50", "threads_p99"
PROCESSES_THROUGHPUT, PROCESSES_P50, PROCESSES_P99 = "processes_throughput", "processes_p50", "processes_p99"
OF_LOAD = (THREADS_THROUGHPUT, THREADS_P50, THREADS_P99, PROCESSES_THROUGHPUT, PROCESSES_P50, PROCESSES_P99)
"""Measured while several threads or processes call the module at once, in processes of their own."""
COLD_L2 = "cold_l2"
"""Device latency where the GPU's L2 cache holds nothing of the case; measured with the load."""
BUILD = "build"
ENGINE_BYTES, GPU_MEMORY, LEAF_ERROR = "engine_bytes", "gpu_memory", "leaf_error"
COLD_HOST_MEMORY, COLD_GPU_MEMORY = "cold_host_memory", "cold_gpu_memory"
HOST_GROWTH, TORCH_GROWTH, GPU_GROWTH = "host_memory_growth", "torch_memory_growth", "gpu_memory_growth"
ENGINES, PYTORCH_OPERATORS = "engines", "pytorch_operators"
PYTHON_LINES, DISPATCHER_OPS, CUDA_CALLS = "python_lines", "dispatcher_ops", "cuda_calls"
KERNEL_LAUNCHES, WAITS, MEMORY_OPERATIONS = "kernel_launches", "waits", "memory_operations"
OF_A_CALL = (PYTHON_LINES, DISPATCHER_OPS, CUDA_CALLS, KERNEL_LAUNCHES, WAITS, MEMORY_OPERATIONS)
"""What one call does on the host, counted."""


EACH, A_CALL = "us_each", "bytes_a_call"


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. `limit` is the fraction beyond which more of it is a regression, unless a user says otherwise."""

    title: str
    """What a sentence calls it."""
    unit: str
    """"us", "s", "bytes", EACH for microseconds an inference that are shown as inferences a second, A_CALL for bytes a
    call, or "" for a count or a ratio."""
    limit: float
    """Of what is A_CALL that many bytes a call."""
    figure: str = ""
    """Its name among a record's figures; empty for what is sampled."""
    resolution: float = 0.0
    """Differences up to this, in its unit, are none: what the way of counting can't tell; bytes of what is A_CALL."""


def _of_a_call(name: str, title: str) -> Metric:
    return Metric(title=f"{title} a call", unit="", limit=DEFAULT_LIMITS[name], figure=name)


def _of_bytes(name: str, title: str, figure: str, resolution: int) -> Metric:
    return Metric(title=title, unit="bytes", limit=DEFAULT_LIMITS[name], figure=figure, resolution=resolution)


def _of_load(name: str, title: str, unit: str = "us") -> Metric:
    return Metric(title=title, unit=unit, limit=DEFAULT_LIMITS[name])


def _of_growth(name: str, title: str, resolution: int) -> Metric:
    return Metric(title=title, unit=A_CALL, limit=DEFAULT_LIMITS[name], figure=f"{name}_bytes", resolution=resolution)


METRICS = {
    DEVICE: Metric(title="device latency", unit="us", limit=DEFAULT_LIMITS[DEVICE]),
    HOST: Metric(title="host latency", unit="us", limit=DEFAULT_LIMITS[HOST]),
    ENQUEUE: Metric(title="enqueue time", unit="us", limit=DEFAULT_LIMITS[ENQUEUE]),
    BUILD: Metric(title="build time", unit="s", limit=DEFAULT_LIMITS[BUILD], figure="build_s"),
    ENGINE_BYTES: _of_bytes(ENGINE_BYTES, "engine size", "engine_bytes", 1 << 16),
    GPU_MEMORY: _of_bytes(GPU_MEMORY, "GPU memory", "gpu_memory_bytes", 64 << 20),
    COLD_START: Metric(title="cold start", unit="s", limit=DEFAULT_LIMITS[COLD_START]),
    COLD_START_CACHED: Metric(
        title="cold start with a runtime cache", unit="s", limit=DEFAULT_LIMITS[COLD_START_CACHED]
    ),
    COLD_HOST_MEMORY: _of_bytes(COLD_HOST_MEMORY, "host memory of a cold start", "cold_host_bytes", 16 << 20),
    COLD_GPU_MEMORY: _of_bytes(COLD_GPU_MEMORY, "GPU memory of a cold start", "cold_gpu_bytes", 64 << 20),
    THREADS_THROUGHPUT: _of_load(THREADS_THROUGHPUT, "throughput of threads at once", EACH),
    THREADS_P50: _of_load(THREADS_P50, "median latency with threads at once"),
    THREADS_P99: _of_load(THREADS_P99, "p99 latency with threads at once"),
    PROCESSES_THROUGHPUT: _of_load(PROCESSES_THROUGHPUT, "throughput of processes at once", EACH),
    PROCESSES_P50: _of_load(PROCESSES_P50, "median latency with processes at once"),
    PROCESSES_P99: _of_load(PROCESSES_P99, "p99 latency with processes at once"),
    COLD_L2: _of_load(COLD_L2, "device latency with a cold L2"),
    HOST_GROWTH: _of_growth(HOST_GROWTH, "growth of host memory", 1 << 16),
    TORCH_GROWTH: _of_growth(TORCH_GROWTH, "growth of memory that PyTorch allocated on the GPU", 0),
    GPU_GROWTH: _of_growth(GPU_GROWTH, "growth of GPU memory", 2 << 20),
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
OF_GROWTH = (HOST_GROWTH, TORCH_GROWTH, GPU_GROWTH)
"""Bytes a call, judged by an interval of their own."""
EXACT = (ENGINE_BYTES, GPU_MEMORY, *OF_COLD_STARTS, LEAF_ERROR, ENGINES, PYTORCH_OPERATORS, *OF_A_CALL)
"""Read off once; compared without statistics."""
NO_ERROR_RATE = frozenset((*EXACT, *OF_GROWTH))
"""Judged without a share of the error rate."""


def sampled(*, gpu: bool, cold: bool = False, load: bool = False) -> tuple[str, ...]:
    """Return the metrics that launches measure block by block.

    With `cold` those of processes that start cold, with `load` those of processes that are under load. A case may lack
    some of them: one without a runtime cache has no cold start with one.
    """
    of_load, of_cold = (*OF_LOAD, *[COLD_L2] * gpu), (COLD_START, COLD_START_CACHED)
    return (*(SAMPLED if gpu else (HOST,)), *(of_cold if cold else ()), *(of_load if load else ()))
