"""Outputs of every case against eager: `pytest benchmarks -m trtgate_accuracy`."""

from trtgate.pytest_plugin.suite_tests import test_accuracy

__all__ = ["test_accuracy"]
