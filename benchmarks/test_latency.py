"""Latency of every case against the stored baselines: `pytest benchmarks -m trtgate_latency`."""

from trtgate.pytest_plugin.suite_tests import test_latency

__all__ = ["test_latency"]
