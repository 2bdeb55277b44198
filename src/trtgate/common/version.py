"""The version of trtgate, apart from `__init__`, which imports what users need."""

VERSION = "0.1.0"
