"""How much more of each metric is tolerated, as a fraction (growth: in bytes a call), unless a user says otherwise."""

from __future__ import annotations

DEFAULT_LIMITS = {
    "device": 0.01,
    "host": 0.10,
    "enqueue": 0.10,
    "build": 0.50,
    "threads_throughput": 0.10,
    "threads_p50": 0.10,
    "threads_p99": 0.50,
    "processes_throughput": 0.10,
    "processes_p50": 0.10,
    "processes_p99": 0.50,
    "cold_l2": 0.05,
    "host_memory_growth": 256.0,
    "torch_memory_growth": 256.0,
    "gpu_memory_growth": 4096.0,
    "cold_start": 0.20,
    "cold_start_cached": 0.20,
    "cold_host_memory": 0.20,
    "cold_gpu_memory": 0.20,
    "engine_bytes": 0.05,
    "gpu_memory": 0.05,
    "leaf_error": 1.0,
    "engines": 0.0,
    "pytorch_operators": 0.0,
    "python_lines": 0.05,
    "dispatcher_ops": 0.05,
    "cuda_calls": 0.05,
    "kernel_launches": 0.05,
    "waits": 0.0,
    "memory_operations": 0.0,
}
"""Every metric of `metrics` has one; what is counted is held to its count by 0."""
