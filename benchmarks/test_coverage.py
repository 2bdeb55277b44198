"""Operator coverage of every case against `baselines/coverage`: `pytest benchmarks -m trtgate_coverage [-n 2]`.

Needs no GPU. `--trtgate-zoo` adds some 110 well-known models.
"""

from trtgate.pytest_plugin.suite_tests import test_coverage

__all__ = ["test_coverage"]
