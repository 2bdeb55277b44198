"""The suite of pytest.ini has its own test files in benchmarks/, so the plugin need not make tests of it.

The examples are a suite of their own, with a pytest.ini and libraries that they need.
"""

collect_ignore = ["benchmarks/suite.py", "benchmarks/examples"]
