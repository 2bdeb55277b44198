"""Per-layer profiles of every case with engines: `pytest benchmarks -m trtgate_profile [--trtgate-strict-layers]`."""

from trtgate.pytest_plugin.suite_tests import test_profile

__all__ = ["test_profile"]
