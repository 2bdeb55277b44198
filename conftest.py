"""The suite of pytest.ini has its own test files in benchmarks/, so the plugin need not make tests of it."""

collect_ignore = ["benchmarks/suite.py"]
